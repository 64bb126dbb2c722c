"""The page, the tables and the command."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from finsent.errors import InputError
from tests.unit import sweeps
from tune.analysis import Analysis, analyze, duration, main, moment

pytestmark = pytest.mark.cost(4, "draws the pictures of a sweep")

PICTURES = {"best_so_far", "curves", "parallel", "importances", "slices", "contour", "savings"}


def page_of(result: Analysis) -> str:
    return Path(result["page"]).read_text(encoding="utf-8")


def words(page: str) -> str:
    """A page as read: without pictures and tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def drawn(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "sweep-pictures").glob("*.png")}


def test_a_sweep_of_many_trials(tmp_path: Path) -> None:
    repeats = [{"event": "repeat", "trial": 0, "time": 0.0}] * 3
    changes = {"trials": 600, "exhausted": True}
    result = analyze([sweeps.write(tmp_path, [*repeats, *sweeps.drawn(500)], **changes)])
    assert result["trials"] == 500
    assert next(iter(result["importances"])) == "train.learning_rate"
    assert 0.5 < (result["spent_share"] or 0) < 1
    assert json.loads(json.dumps(result)) == result
    assert drawn(tmp_path) == PICTURES
    with (tmp_path / "trials.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 500
    assert float(rows[0]["macro_f1"]) == result["best"]["value"]
    assert {row["status"] for row in rows} == {"finished", "stopped", "diverged", "failed"}
    assert (tmp_path / "importances.csv").read_text().startswith("parameter,objective,importance")
    page = page_of(result)
    assert "17 of 500 trials failed, all with: CUDA out of memory" in page
    assert "16 of 500 trials diverged, all with: the loss is not a finite number" in page
    assert "500 of 600 trials were trained: sweep.space has no further configuration. 3" in page
    page = re.sub(r"base64,[\w+/=]*", "", page)  # in which the letters of an address may be
    assert not re.findall(r"""(?:src|href|url\()\s*=?["'(]?(?!#|data:)[\w./]*//""", page)


def test_a_running_sweep_can_be_analyzed_repeatedly(tmp_path: Path) -> None:
    events = sweeps.drawn(30)
    sweeps.write(tmp_path, events[:60], finished=None)
    with (tmp_path / "trials.jsonl").open("a") as stream:
        stream.write('{"event": "ep')
    first_page = analyze([tmp_path])
    assert "The sweep has not ended" in page_of(first_page)
    sweeps.write(tmp_path, events, finished=None)
    assert analyze([tmp_path])["trials"] == 30 > first_page["trials"]


def test_one_trial(tmp_path: Path) -> None:
    result = analyze([sweeps.write(tmp_path, sweeps.drawn(1))])
    assert drawn(tmp_path) == {"best_so_far", "curves", "savings"}
    assert "too few for importances" in page_of(result)


def test_values_that_differ_by_magnitudes_and_no_epochs(tmp_path: Path) -> None:
    events = []
    for n in range(20):
        params = {
            "x": 10.0**n,
            "name": f"a very long name of a category, number {n}",
            "flag": n > 3,
        }
        value = 1e9 if n == 7 else n / 100
        events += [sweeps.start(n, n, params), sweeps.end(n, n + 1, 0, value, seconds=None)]
    space = {"x": {"kind": "loguniform", "low": 1.0, "high": 1e20}}
    analyze([sweeps.write(tmp_path, events, space=space, max_epochs=None)])
    assert drawn(tmp_path) == PICTURES - {"curves", "savings"}


def test_text_of_users_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> $x^2$"
    events = []
    for n in range(12):
        params = {"train.schedule": evil if n % 2 else "linear", f"key{evil}": n}
        status = {"status": "failed", "reason": evil} if n == 3 else {}
        events += [sweeps.start(n, n, params, evil), sweeps.end(n, n + 1, 1, n / 20, **status)]
    folder = sweeps.write(tmp_path / "a", events, name=evil, search=evil, scheduler=evil)
    seeds = [{"seed": 1, "failure": evil}]
    candidates = [{"trial": 1, "params": {"key": evil}, "seeds": seeds}]
    verification = sweeps.verification(candidates=candidates, test={evil: evil, "macro_f1": evil})
    (folder / "verification.json").write_text(json.dumps(verification))
    page = page_of(analyze([folder, folder]))
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script>") == 1


def test_the_page_shows_the_luck_of_a_verified_sweep(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path, sweeps.drawn(12))
    seeds = [{"seed": 1, "validation": 0.71}, {"seed": 2, "validation": 0.73}]
    verification = sweeps.verification(
        candidates=[{"trial": 3, "params": {}, "seeds": seeds, "mean": 0.72, "std": 0.01}],
        default={"seeds": seeds, "mean": 0.7111, "std": 0.01},
        chosen=3,
        verified=0.72,
        luck=0.06,
        test={"macro_f1": 0.7777},
    )
    (folder / "verification.json").write_text(json.dumps(verification))
    page = words(page_of(analyze([folder])))
    assert "+0.0600 of the best was luck" in page
    assert "0.7777 macro_f1 on test" in page
    assert "trial 3 (chosen)" in page and "default recipe" in page
    assert "Luck (+0.0600) was larger than the sweep&#39;s gain over the default recipe" in page


def test_several_objectives(tmp_path: Path) -> None:
    two = [{"name": "macro_f1", "mode": "max"}, {"name": "latency_ms", "mode": "min"}]
    events = sweeps.drawn(40, latency=True)
    page = page_of(analyze([sweeps.write(tmp_path, events, objectives=two)]))
    assert drawn(tmp_path) == PICTURES | {"pareto"}
    assert 'id="front"' in page


def test_several_sweeps(tmp_path: Path) -> None:
    a = sweeps.write(tmp_path / "a", sweeps.drawn(20), name="first")
    b = sweeps.write(tmp_path / "b", sweeps.drawn(30, 1), name="second", search="random")
    page = words(page_of(analyze([a, b], tmp_path / "out")))
    assert drawn(tmp_path / "out") == PICTURES | {"comparison"}
    assert "Sweep first" in page and "second random asha 30" in page
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        assert [row["sweep"] for row in csv.DictReader(stream)] == ["first", "second"]
    assert not (a / "sweep.html").exists()
    sweeps.write(b, sweeps.drawn(30, 1), metric="loss", mode="min", objectives=[])
    with pytest.raises(InputError, match="Name sweeps of one metric"):
        analyze([a, b])


def test_the_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps.write(tmp_path, sweeps.drawn(5))
    assert main([str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(tmp_path / "sweep.html")


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = [
        sweeps.start(0, 0.0, {}),
        sweeps.end(0, 1.0, 0, None, status="failed", reason="out of\nmemory"),
        sweeps.start(1, 1.0, {}),
    ]
    cases = {
        "nowhere": "is not a sweep's directory",
        "failed": "no trial has ended with a value of macro_f1 (1 failed, 1 running; most often: o",
        "empty": "none was started",
        "damaged": "line 1: damaged",
    }
    sweeps.write(tmp_path / "failed", failed, finished=None)
    sweeps.write(tmp_path / "empty", [])
    sweeps.write(tmp_path / "damaged", [{"event": "what"}])
    for name, words in cases.items():
        assert main([str(tmp_path / name)]) == 2
        output = capsys.readouterr()
        assert (
            output.err.startswith("error: ") and output.err.count("\n") == 1 and words in output.err
        )
        assert output.out == ""
    sweeps.write(tmp_path / "good", sweeps.drawn(3))
    assert main([str(tmp_path / "good"), "--out", str(tmp_path / "good" / "sweep.json")]) == 2
    assert "cannot write there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.42, "0.4 s"), (59.4, "59 s"), (200, "3 min 20 s"), (720, "12 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_moments() -> None:
    assert moment("2026-01-02T03:04:05.678+00:00") == "2026-01-02 03:04:05 UTC"
