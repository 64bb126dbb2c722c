"""Records of sweeps that ended, run, were killed or are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finsent.errors import InputError
from tests.unit import sweeps
from tune.records import read_sweep


def test_a_complete_sweep_is_read(tmp_path: Path) -> None:
    events = [
        sweeps.start(0, 100.0, {"train.dropout": 0.1}, "known"),
        sweeps.epoch(0, 110.0, 1, 0.5),
        sweeps.epoch(0, 120.0, 2, 0.6),
        sweeps.end(0, 121.0, 2, 0.6, status="stopped", reason="asha", checkpoint="c/1"),
    ]
    sweep = read_sweep(sweeps.write(tmp_path, events))
    (trial,) = sweep.trials
    assert (trial.number, trial.status, trial.reason, trial.source) == (
        0,
        "stopped",
        "asha",
        "known",
    )
    assert [(e.epoch, e.metrics["macro_f1"], e.seconds) for e in trial.epochs] == [
        (1, 0.5, 10.0),
        (2, 0.6, 10.0),
    ]
    assert (trial.values, trial.started, trial.ended) == ({"macro_f1": 0.6}, 100.0, 121.0)
    assert (trial.params, trial.checkpoint) == ({"train.dropout": 0.1}, "c/1")
    assert sweep.finished and sweep.verification is None


@pytest.mark.parametrize("torn", [b'{"event": "epo', b'{"event": "start", "trial": 9', b"\xff\xfe"])
def test_an_incomplete_last_line_is_ignored(tmp_path: Path, torn: bytes) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})], finished=None)
    with (tmp_path / "trials.jsonl").open("ab") as stream:
        stream.write(torn)
    (trial,) = read_sweep(tmp_path).trials
    assert (trial.number, trial.status) == (0, "running")


def test_an_incomplete_line_in_the_middle_is_damage(tmp_path: Path) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})])
    with (tmp_path / "trials.jsonl").open("a") as stream:
        stream.write('{"event": "epo\n{"event": "end"}\n')
    with pytest.raises(InputError, match=r"trials\.jsonl, line 2: damaged"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    "event",
    [
        [],
        {"event": "end"},
        {**sweeps.end(0, 1.0, 1, 0.5), "status": "great"},
        {**sweeps.start(0, 1.0, {}), "event": "begin"},
        sweeps.epoch(7, 1.0, 1, 0.5),  # never started
    ],
)
def test_an_invalid_event_is_damage(tmp_path: Path, event: object) -> None:
    sweeps.write(tmp_path, [sweeps.start(0, 1.0, {}), event])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"line 2: damaged"):
        read_sweep(tmp_path)


def test_a_resumed_trial_has_each_epoch_once(tmp_path: Path) -> None:
    events = [
        sweeps.start(0, 1.0, {"a": 1}),
        sweeps.epoch(0, 2.0, 1, 0.5),
        sweeps.epoch(0, 3.0, 2, 0.1),
        sweeps.end(0, 4.0, 2, None, status="interrupted", reason="SIGTERM"),
        sweeps.start(0, 50.0, {"a": 1}, "resumed"),
        sweeps.epoch(0, 51.0, 2, 0.6),
    ]
    (trial,) = read_sweep(sweeps.write(tmp_path, events, finished=None)).trials
    assert (trial.status, trial.reason, trial.started, trial.ended) == ("running", None, 1.0, None)
    assert [(e.epoch, e.metrics["macro_f1"]) for e in trial.epochs] == [(1, 0.5), (2, 0.6)]
    assert trial.source == "search"


def test_open_trials_of_an_ended_sweep_are_interrupted(tmp_path: Path) -> None:
    (trial,) = read_sweep(sweeps.write(tmp_path, [sweeps.start(0, 1.0, {})])).trials
    assert trial.status == "interrupted"


def test_values_that_are_not_finite_are_ignored(tmp_path: Path) -> None:
    events = [
        sweeps.start(0, 1.0, {}),
        sweeps.epoch(0, 2.0, 1, float("nan")),
        sweeps.end(0, 3.0, 1, float("inf")),
    ]
    (trial,) = read_sweep(sweeps.write(tmp_path, events)).trials
    assert trial.epochs[0].metrics == {} and trial.values == {}


def test_a_directory_without_a_valid_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a sweep's directory"):
        read_sweep(tmp_path)
    for text in ("{", "[]", '{"metric": "a"}', '{"metric": "a", "mode": "up"}'):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(InputError, match=r"sweep\.json: "):
            read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps(sweeps.settings()))
    assert read_sweep(tmp_path).trials == []
