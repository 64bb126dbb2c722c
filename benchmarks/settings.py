"""The settings of the benchmarks, and the job of one."""

from __future__ import annotations

from collections.abc import Callable

from finsent.config import Section, setting
from ray_jobs._cli import Call, Job, JobSettings, Result


class BenchConfig(Section):
    """Settings of the benchmarks."""

    rounds: int = setting(3, "rounds of each variant, in turn; medians are compared", ge=1)
    rows: int | None = setting(
        None,
        "rows of one round; null: 800 for train, 1,000,000 for ingest, 30,000 for readback",
        unit="rows",
        ge=8,
    )
    ray: bool = setting(
        True, "train: measure the loop under Ray Train, too; without it no Ray is started"
    )
    seconds: int = setting(8, "serve: time of each load", unit="seconds", ge=2)
    fault_seconds: int = setting(
        60, "serve-faults: time of the overload, and of the killing", unit="seconds", ge=5
    )
    trials: int = setting(500, "sweep: trials that do nothing", ge=2)
    peers_python: str | None = setting(
        None,
        "serve: interpreter of an environment with LitServe, BentoML and infinity, e.g. "
        ".peers/bin/python; null: this one",
    )
    peer_rows: int = setting(
        2_000_000, "rows at which ingest is compared with its peers", unit="rows", ge=1000
    )


class BenchSettings(JobSettings):
    """The settings of a project, and of its benchmarks."""

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
        name: the module's name.
        measure: runs the benchmark and returns its ratios.
        summary: what is measured, shown by `--help`.
        result: keys of the ratios, shown by `--help`.
        sections: settings that it uses besides `bench`, `storage` and `run`.
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
