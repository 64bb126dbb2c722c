"""The engine chooses the same backend on a quiet and on a busy machine, and stores no noise."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.extras import is_installed
from finsent.inference.backends import Backend
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.inference.export_record import read_exports
from finsent.inference.selection import rate_monitor
from finsent.inference.selection.benchmark import (
    LENGTHS,
    PREFERENCE,
    ROUNDS,
    SLICE_SECONDS,
    Decision,
    Rounds,
    benchmark_rows,
    decide,
    measure_rates,
)
from finsent.inference.selection.cache import cache_file
from finsent.inference.selection.candidates import load_export
from finsent.inference.selection.select import (
    Selection,
    measure_in_process,
    measure_in_subprocess,
    select_backend,
)
from tests.unit.models import TEXTS, saved_model

pytestmark = pytest.mark.cost(2, "loads and measures backends")

CONFIG = EngineConfig(threads=1)
NOW = 1.8e9  # Unix time
DAY = 24 * 3600.0
USUAL = {"openvino-int8": 740.0, "onnxruntime-int8": 590.0, "onnxruntime-fp32": 330.0}  # rows/s
OTHER = {"openvino-int8": 330.0, "onnxruntime-int8": 400.0, "onnxruntime-fp32": 700.0}

Load = Callable[[int], float]  # by the number of the slice: its time is multiplied by that


@pytest.fixture(scope="module")
def model_dir(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = saved_model(tiny, tmp_path_factory.mktemp("choice") / "model")
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    # A tiny model with random weights loses more in int8 than a trained one.
    config = ExportConfig(max_f1_loss=1, min_same_labels=0, max_score_change=1)
    export_model(folder, rows, config, CONFIG.exact(), {})
    return folder


@pytest.fixture(scope="module")
def backends(model_dir: Path) -> dict[str, Backend]:
    return {
        export.name: load_export(model_dir / str(export.file), export.backend, export.precision, 1)
        for export in read_exports(model_dir)
    }


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


class FakeClock:
    """A clock by which backends have given speeds, and other load slows some slices.

    `measure_rates` reads it at the beginning and at the end of each slice. Its first slice of each
    backend finds the number of micro-batches of a slice: one, by this clock.
    """

    def __init__(self, backends: dict[str, Backend], speeds: dict[str, float], load: Load) -> None:
        self._seconds = [
            benchmark_rows(backend) * backend.streams / speeds[name]
            for name, backend in backends.items()
        ]
        self._load, self._now, self._reads = load, 0.0, 0

    def __call__(self) -> float:
        number, is_end = divmod(self._reads, 2)
        self._reads += 1
        if is_end:
            turn, count = number % len(self._seconds), len(self._seconds)
            own = SLICE_SECONDS if number < count else self._seconds[turn]
            self._now += own * self._load(number - count if number >= count else 0)
        return self._now


def quiet(_: int) -> float:
    return 1.0


def bursts(seed: int, share: float = 0.05, factor: float = 5) -> Load:
    draw = random.Random(seed)
    return lambda _: factor if draw.random() < share else draw.uniform(1, 1.05)


def block(start: int) -> Load:
    """Load that lasts longer than a whole measurement of one backend by itself would."""
    return lambda slice_number: 5.0 if start <= slice_number < start + ROUNDS else 1.0


def chosen(backends: dict[str, Backend], clock: FakeClock) -> Decision:
    return decide(measure_rates(backends, clock), backends.keys())


def compared(rounds: Rounds) -> Decision:
    return decide(rounds, rounds.keys())


BUSY: dict[str, Load] = {
    "steady": lambda _: 4.0,
    "growing": lambda number: 1 + 0.1 * number,
    "falling": lambda number: 5 - 0.1 * number,
    **{f"bursts {seed}": bursts(seed) for seed in range(3)},
    **{f"block {start}": block(start) for start in range(0, 3 * ROUNDS, 7)},
}


@pytest.mark.parametrize("speeds", [USUAL, OTHER], ids=["usual", "other"])
@pytest.mark.parametrize("load", BUSY.values(), ids=BUSY.keys())
def test_busy_machine_makes_the_choice_of_a_quiet_one(
    backends: dict[str, Backend], speeds: dict[str, float], load: Load
) -> None:
    speeds = {name: speeds[name] for name in backends}
    expected = chosen(backends, FakeClock(backends, speeds, quiet))
    assert expected.best == max(speeds, key=speeds.__getitem__)
    assert expected.rates == pytest.approx(speeds)
    choice = chosen(backends, FakeClock(backends, speeds, load))
    assert (choice.best, choice.is_clear) == (expected.best, True)


@pytest.mark.parametrize("seed", range(5))
def test_heavy_bursts_lead_to_the_usual_choice(backends: dict[str, Backend], seed: int) -> None:
    clock = FakeClock(backends, USUAL, bursts(seed, share=0.5))
    choice = chosen(backends, clock)
    assert choice.best == next(name for name in PREFERENCE if name in backends)


def test_only_backends_that_no_other_clearly_beats_are_a_fallback() -> None:
    slow = [100.0] * ROUNDS
    rounds = {
        "onnxruntime-fp32": [300.0, 410] * (ROUNDS // 2),
        "onnxruntime-int8": [310.0, 400] * (ROUNDS // 2),
        "openvino-int8": slow,
    }
    choice = compared(rounds)
    assert (choice.best, choice.is_clear) == ("onnxruntime-int8", False)
    assert compared({**rounds, "onnxruntime-fp32": slow}).is_clear
    assert not compared({"a": slow, "b": slow}).is_clear


@pytest.mark.parametrize(("dissent", "is_clear"), [(0, True), (1, True), (2, False)])
def test_all_rounds_but_one_must_agree(dissent: int, is_clear: bool) -> None:
    fast = [500.0] * (ROUNDS - dissent) + [50.0] * dissent
    choice = compared({"openvino-int8": [100.0] * ROUNDS, "onnxruntime-int8": fast})
    assert choice.is_clear == is_clear
    assert choice.best == ("onnxruntime-int8" if is_clear else "openvino-int8")


def test_backends_take_turns(backends: dict[str, Backend]) -> None:
    rounds = measure_rates(backends)  # with a real clock
    assert rounds.keys() == backends.keys()
    assert {len(rates) for rates in rounds.values()} == {ROUNDS}
    assert all(rate > 0 for rates in rounds.values() for rate in rates)


# --- what is stored -------------------------------------------------------------------------------


class Machine:
    """Measures with a fake clock, and counts how often."""

    def __init__(self, model_dir: Path, backends: dict[str, Backend]) -> None:
        self._model_dir, self._backends = model_dir, backends
        self.speeds = {name: USUAL[name] for name in backends}
        self.load: Load = quiet
        self.count = 0

    def measure(self, _model_dir: Path, _config: EngineConfig) -> Rounds:
        self.count += 1
        return measure_rates(self._backends, FakeClock(self._backends, self.speeds, self.load))

    def start(self, now: float = NOW) -> Selection:
        return select_backend(self._model_dir, CONFIG, self.measure, lambda: now)


def test_measurement_that_times_out_leads_to_the_usual_choice(
    model_dir: Path, backends: dict[str, Backend]
) -> None:
    choice = select_backend(model_dir, CONFIG, partial(measure_in_subprocess, timeout=0.001))
    assert choice.backend.name == next(name for name in PREFERENCE if name in backends)
    assert (choice.rates, choice.monitor) == ({}, None)
    assert not stored_file(model_dir).exists()


def test_all_candidates_are_loaded_and_measured(
    model_dir: Path, backends: dict[str, Backend]
) -> None:
    rounds = measure_in_process(model_dir, CONFIG, FakeClock(backends, USUAL, quiet))
    assert compared(rounds).rates == pytest.approx({name: USUAL[name] for name in backends})


@pytest.fixture
def machine(model_dir: Path, backends: dict[str, Backend]) -> Machine:
    return Machine(model_dir, backends)


def stored_file(model_dir: Path) -> Path:
    return cache_file(model_dir, CONFIG, 1)


def test_clear_choice_is_stored_for_a_week(machine: Machine) -> None:
    first_engine = machine.start()
    assert first_engine.backend.name == max(machine.speeds, key=machine.speeds.__getitem__)
    machine.speeds = {name: OTHER[name] for name in machine.speeds}
    again = machine.start(NOW + 6.9 * DAY)
    assert (again.backend.name, again.rates) == (first_engine.backend.name, first_engine.rates)
    assert machine.count == 1
    assert machine.start(NOW + 7.1 * DAY).backend.name == "onnxruntime-fp32"
    assert machine.count == 2
    assert machine.start(NOW - DAY).backend.name == "onnxruntime-fp32"  # the clock was wrong
    assert machine.count == 3


def test_noise_is_not_stored_and_said_in_a_line(
    machine: Machine, model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = len(machine.speeds)
    # Each round slows another backend, far more than their speeds differ.
    machine.load = lambda number: 9.0 if number % count == number // count % count else 1.0
    with caplog.at_level("INFO"):
        engine = machine.start()
    assert engine.backend.name == next(name for name in PREFERENCE if name in machine.speeds)
    assert engine.monitor is None
    assert not stored_file(model_dir).exists()
    [line] = [record.message for record in caplog.records if record.name.startswith("finsent")]
    assert "other load hides the differences; the next start measures again" in line
    machine.load = quiet
    assert machine.start().backend.name == engine.backend.name
    assert machine.count == 2
    assert stored_file(model_dir).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"onnxruntime-fp32": 1.0, "onnxruntime-int8": 2.0, "openvino-int8": 3.0}',  # of 0.1.0
        b'{"best": "openvino-int8", "rates": {}, "measured": 1.8e9}',
        b'{"best": "x", "rates": {"onnxruntime-fp32": 1, "onnxruntime-int8": 1, '
        b'"openvino-int8": 1}, "measured": 1.8e9}',
        b'{"best": "openvino-int8", "rates": {"onnxruntime-fp32": -1, "onnxruntime-int8": 1, '
        b'"openvino-int8": NaN}, "measured": 1.8e9}',
    ],
)
def test_cache_that_cannot_be_used_is_replaced_silently(
    machine: Machine, model_dir: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = stored_file(model_dir)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    machine.start()
    assert machine.count == 1
    assert json.loads(file.read_text())["rates"].keys() == machine.speeds.keys()
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_cache_that_is_a_directory_is_ignored(machine: Machine, model_dir: Path) -> None:
    stored_file(model_dir).mkdir(parents=True)
    assert machine.start().backend.name in machine.speeds


# --- the rate in use ------------------------------------------------------------------------------


def use(choice: Selection, share: float, windows: float = 1) -> None:
    """Pretend to compute rows at a share of the stored rate."""
    assert choice.monitor is not None
    rows = benchmark_rows(choice.backend)
    seconds = rows / (share * choice.rates[choice.backend.name])
    for _ in range(int(windows * rate_monitor.WINDOW_ROWS / rows) + 1):
        choice.monitor.record(rows, 30, seconds)  # 30: the mean of LENGTHS


def test_rate_far_below_the_stored_one_is_measured_anew_at_the_next_start(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    choice = machine.start()
    with caplog.at_level("INFO"):
        use(choice, 0.2, windows=2 * rate_monitor.SLOW_WINDOWS)
    assert machine.count == 1  # not beside requests
    assert caplog.text.count("the next start measures again") == 1
    machine.start()
    assert machine.count == 2
    machine.start()
    assert machine.count == 2


@pytest.mark.parametrize(
    "shares",
    [
        [1.0] * 10,
        [0.3] * 10,  # other load
        [0.1] * (rate_monitor.SLOW_WINDOWS - 1),  # too few rows
        [0.1, 0.1, 0.1, 0.1, 0.9] * 3,  # load that comes and goes
    ],
)
def test_other_load_does_not_make_it_measure_again(machine: Machine, shares: list[float]) -> None:
    choice = machine.start()
    for share in shares:
        use(choice, share)
    machine.start()
    assert machine.count == 1


def test_rows_unlike_the_measured_ones_do_not_count(machine: Machine) -> None:
    choice = machine.start()
    assert choice.monitor is not None
    for rows, length in [(64, LENGTHS[-1] + 1), (64, LENGTHS[0] - 1), (0, 30)]:
        for _ in range(rate_monitor.SLOW_WINDOWS * rate_monitor.WINDOW_ROWS):
            choice.monitor.record(rows, length, 100.0)
    machine.start()
    assert machine.count == 1


@pytest.mark.parametrize(("rate", "is_kept"), [(1e12, False), (1.0, True)])
def test_engine_reports_its_rate(model_dir: Path, rate: float, is_kept: bool) -> None:
    file = stored_file(model_dir)
    file.parent.mkdir(parents=True)
    rates = dict.fromkeys((export.name for export in read_exports(model_dir)), rate)
    choice = {"best": "onnxruntime-fp32", "rates": rates, "measured": time.time()}
    file.write_text(json.dumps(choice))
    engine = Engine(model_dir, CONFIG)
    assert engine.backend.name == "onnxruntime-fp32"
    rows = [[5] * 16] * 16
    for _ in range(2 * rate_monitor.SLOW_WINDOWS * rate_monitor.WINDOW_ROWS // 16 + 1):
        engine.compute(rows)
    assert file.exists() == is_kept


def test_openvino_is_measured_where_it_is_installed(backends: dict[str, Backend]) -> None:
    assert ("openvino-int8" in backends) == is_installed("openvino")
