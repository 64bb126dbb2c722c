"""Settings and jobs of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable

from finsent.config import Section, setting
from ray_jobs._cli import Call, Job, JobSettings, Result


class BenchConfig(Section):
    """The section `bench` of the settings."""

    rounds: int = setting(
        3, "rounds in which the variants run in turn; the ratios compare medians", ge=1
    )
    rows: int | None = setting(
        None,
        "rows of one round; null: 800 for train, 1,000,000 for ingest, 30,000 for readback",
        unit="rows",
        ge=8,
    )
    ray: bool = setting(
        True, "train: also measure the loop under Ray Train; false: no Ray is started"
    )
    seconds: int = setting(8, "serve: duration of each load", unit="seconds", ge=2)
    fault_seconds: int = setting(
        60, "serve_faults: duration of the overload, and of the kills", unit="seconds", ge=5
    )
    fault: str | None = setting(
        None, "faults: name of the one fault to plant, e.g. serve_worker_sigkill; null: all"
    )
    trials: int = setting(500, "sweep: number of trials, which do nothing", ge=2)
    seed: int = setting(0, "drift, canary: seed of the simulated streams", ge=0)
    years: int = setting(1_000, "drift: simulated years without drift", ge=1)
    shift_runs: int = setting(200, "drift, canary: simulated streams of each case", ge=1)
    peers_python: str | None = setting(
        None,
        "serve: interpreter of an environment with LitServe, BentoML and infinity, e.g. "
        ".peers/bin/python; null: the interpreter of the benchmark",
    )
    checkout: str | None = setting(
        None,
        "startup: directory of another version of finsent, e.g. a git worktree, to compare with; "
        "null: none",
    )
    peer_rows: int = setting(
        2_000_000, "ingest: rows of the comparison with pandas and Polars", unit="rows", ge=1000
    )


class BenchSettings(JobSettings):
    """The settings of all jobs, and the section `bench`."""

    bench: BenchConfig = setting(BenchConfig, "benchmarks")


def benchmark(
    name: str,
    measure: Callable[[BenchSettings], Result],
    *,
    summary: str,
    result: str,
    sections: tuple[str, ...],
) -> Job:
    """Return the job `python -m benchmarks.NAME`.

    Args:
        name: name of the module.
        measure: runs the benchmark and returns its result.
        summary: what the benchmark measures, for `--help`.
        result: keys of the result, for `--help`.
        sections: sections of settings that the benchmark uses besides `bench`, `storage`, `run`.
    """

    def run(call: Call) -> Result:
        assert isinstance(call.settings, BenchSettings)
        return measure(call.settings)

    return Job(
        name=f"bench-{name}",
        module=f"benchmarks.{name}",
        summary=summary,
        result=f"{result}, run_dir, seconds",
        sections=("bench", *sections, "storage", "run"),
        run=run,
        home="bench",
        settings=BenchSettings,
    )
