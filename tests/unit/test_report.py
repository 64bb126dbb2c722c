"""The report of a dataset version: its numbers, its warnings, and the escaping of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finsent.data.ingest.noise import NOISE_SCHEMA
from finsent.data.ingest.side_tables import SIDE_SCHEMAS
from finsent.data.rows.split import SPLITS
from finsent.data.versions.manifest import Manifest
from finsent.data.versions.pictures import PICTURES, source_mixes
from finsent.data.versions.report import write_report
from finsent.data.versions.warnings import version_warnings
from finsent.labels import LABELS
from tests.unit.datasets import input_content, manifest_content, split_content

pytestmark = pytest.mark.cost(1.5, "draws the pictures of a report")

EVIL = '<script>alert("x")</script> & "quoted" {{ 7 * 7 }}'
NOISE = {
    "rows": 50,
    "issues": 1,
    "out_of_fold_accuracy": 0.8,
    "out_of_fold_macro_f1": 0.7,
    "method": "m",
}


def manifest_json(**changed: Any) -> dict[str, Any]:
    labels = {"negative": 100, "neutral": 300, "positive": 200}
    split = split_content(600, labels=labels, sources={"a.csv": labels}, label_deviation=0.001)
    fates = {"kept": 1800, "rejected": 2, "duplicates": 180, "conflicts": 18, "excluded": 0}
    reasons = {"unknown_label": {"rows": 2, "first": f"record 7, {EVIL!r}"}}
    details = {
        "repaired": {"mojibake": 0, "entities": 3},
        "damaged": 0,
        "conflict_texts": 9,
        "conflict_decisions": {"dropped": 9},
        "excluded_reasons": {},
        "near_groups": 4,
        "near_rows": 9,
        "near_label_conflicts": 0,
    }
    lengths = {
        "unit": "words",
        "p50": 20,
        "p95": 41,
        "max": 90,
        "mean": 21.2,
        "histogram": {"20": 1799, "90": 1},
    }
    content = manifest_content(
        inputs=[input_content("a.csv", **{"rows": 2000, "rejected_reasons": reasons, **fates})],
        counts={"rows_in": 2000, **fates},
        details=details,
        noise_ceiling={"rows_in": 0.9955, "kept": 1.0},
        lengths=lengths,
        splits=dict.fromkeys(SPLITS, split),
    )
    return {**content, **changed}


def manifest(**changed: Any) -> Manifest:
    return Manifest.model_validate(manifest_json(**changed))


@pytest.fixture
def version(tmp_path: Path) -> Path:
    rows = 30
    table = pa.table(
        {
            "key": [f"{i:032x}" for i in range(rows)],
            "text": [f"{EVIL} number {i}" for i in range(rows)],
            "label": [LABELS[i % 3] for i in range(rows)],
            "source": ["a.csv"] * rows,
            "row": list(range(rows)),
        }
    )
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        pq.write_table(table, tmp_path / split / "part-00000.parquet")
    for name, schema in SIDE_SCHEMAS.items():
        pq.write_table(schema.empty_table(), tmp_path / f"{name}.parquet")
    return tmp_path


def page(version: Path, **changed: Any) -> str:
    write_report(version, manifest(**changed))
    return (version / "report.html").read_text(encoding="utf-8")


def test_texts_are_escaped_and_nothing_is_fetched(version: Path) -> None:
    text = page(version)
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp;" in text
    assert "{{ 7 * 7 }}" in text  # shown, not computed
    assert "http://" not in text and "https://" not in text
    assert text.count("data:image/png;base64,") == len(PICTURES)


def test_numbers_come_from_the_manifest(version: Path) -> None:
    text = page(version)
    for figure in (
        "2,000",
        "1,800",
        "90.0%",
        "unknown_label",
        "99.55 %",
        "median 20",
        "at most 41",
    ):
        assert figure in text
    assert "Kept rows that are near-duplicates of others: 9. Their groups: 4" in text


def test_twenty_samples_of_each_label_at_most(version: Path) -> None:
    text = page(version)
    assert "20 negative texts" in text
    assert text.count("number 0<") == 1 + 2  # once for each split


def test_pictures_are_pictures(version: Path) -> None:
    page(version)
    files = {path.stem: path.read_bytes() for path in (version / "pictures").iterdir()}
    assert files.keys() == PICTURES.keys()
    assert all(data.startswith(b"\x89PNG") and len(data) > 3000 for data in files.values())


def test_the_page_states_skipped_searches(version: Path) -> None:
    details = {
        **manifest_json()["details"],
        "near_groups": None,
        "near_rows": None,
        "near_label_conflicts": None,
    }
    assert "Near-duplicates were not searched" in page(version, details=details)
    assert "Labels were not inspected" in page(version)
    nothing = {"rows": 5, "issues": None, "reason": "there is only one label", "method": "m"}
    assert "there is only one label" in page(version, label_noise=nothing)


def test_suspects_are_shown(version: Path) -> None:
    row = dict.fromkeys(NOISE_SCHEMA.names, "positive") | {
        "text": "Sales fell",
        "label_confidence": 0.1,
        "suggested_confidence": 0.8,
        "margin": 0.7,
    }
    pq.write_table(
        pa.Table.from_pylist([row], schema=NOISE_SCHEMA), version / "label_noise.parquet"
    )
    text = page(version, label_noise=NOISE)
    assert "Sales fell" in text
    assert "0.10 → 0.80" in text


def test_only_what_is_shown_is_read(version: Path) -> None:
    """The row groups behind the first may be damaged: nobody looks at them."""
    path = version / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table] * 40), path, row_group_size=len(table) * 2)
    with pq.ParquetFile(path) as file:
        start = file.metadata.row_group(12).column(0).dictionary_page_offset
        end = file.metadata.row_group(19).column(0).data_page_offset
    raw = bytearray(path.read_bytes())
    raw[start:end] = bytes(end - start)
    path.write_bytes(raw)
    with pytest.raises(OSError):  # it is damaged indeed
        pq.read_table(path)
    assert "20 negative texts" in page(version)


def test_many_sources_become_others() -> None:
    counts = {"negative": 1, "neutral": 1, "positive": 1}
    names = [f"source-{i}" for i in range(40)]
    sources = {
        name: {label: n * (i + 1) for label, n in counts.items()} for i, name in enumerate(names)
    }
    inputs = [input_content(name) for name in names]
    splits = {name: split_content(sources={}) for name in SPLITS}
    splits["train"] = split_content(sources=sources)
    mixes = source_mixes(manifest(inputs=inputs, splits=splits))
    assert len(mixes) == 12
    assert next(iter(mixes)) == "source-39"
    assert sum(mixes["29 others"].values()) == 3 * sum(range(1, 30))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"noise_ceiling": {"rows_in": 0.9, "kept": 0.95}}, ["95.0%", "data.conflicts=keep"]),
        ({"label_noise": {**NOISE, "rows": 100, "issues": 30}}, ["30 of 100 labels"]),
    ],
)
def test_warnings_name_number_and_remedy(changed: dict[str, Any], words: list[str]) -> None:
    [warning] = version_warnings(manifest(**changed))
    assert all(word in warning for word in words)


def test_a_good_version_gives_no_warning() -> None:
    assert list(version_warnings(manifest())) == []


def test_small_and_skewed_splits_give_warnings() -> None:
    content = json.loads(json.dumps(manifest_json()))
    content["splits"]["test"]["labels"]["negative"] = 20
    content["splits"]["validation"]["label_deviation"] = 0.05
    first, second = version_warnings(Manifest.model_validate(content))
    assert "20 negative rows" in first and "0.050" in first
    assert "validation" in second and "5.0 points" in second
