"""The exact work of ingest in pandas and in Polars, peers of `benchmarks.ingest`.

Each peer reads CSV files, normalizes, rejects, drops duplicates and conflicts, splits by a hash,
and writes zstd Parquet and the side tables in one process. It uses the vectorized functions of its
library. HTML entities and mojibake are repaired in Python, only in rows that need it, as in
finsent. The peers do less than finsent: they compute no SHA-256 of inputs and outputs, have keys of
64 bits, and write no manifest and no report.

`python -m benchmarks.peers.dataframes pandas|polars FOLDER OUT` prints counts, seconds and peak
memory.
"""

from __future__ import annotations

import html
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELS = ("negative", "neutral", "positive")
SPLIT_BOUNDS = (("train", 0.0, 0.8), ("validation", 0.8, 0.9), ("test", 0.9, 2.0))
UNCLEAN = r"[^ -~]|  |^ | $|&[#0-9A-Za-z]+;"  # texts that normalization changes
SPACES = r"[\s\x{85}\p{Z}]+"
INVISIBLE = r"[\p{Cc}\p{Cf}]+"
INVISIBLE_IN_PYTHON = r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]+"


def repair(text: str) -> str:
    """Return a text with HTML entities and mojibake repaired."""
    from ftfy import fix_encoding

    while (unescaped := html.unescape(text)) != text:
        text = unescaped
    return fix_encoding(text)


def with_pandas(folder: Path, out: Path) -> dict[str, int]:
    """Do the work in pandas, on Arrow's strings."""
    import pandas as pd

    parts = []
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, engine="pyarrow", dtype="string[pyarrow]", keep_default_na=False)
        parts.append(table.assign(source=path.name, row=range(2, len(table) + 2)))
    rows = pd.concat(parts, ignore_index=True).rename(columns={"Sentence": "raw_text"})
    text = rows["raw_text"].copy()
    is_unclean = text.str.contains(UNCLEAN, regex=True).to_numpy(bool)
    repaired = text[is_unclean].map(repair).astype("string[pyarrow]").str.normalize("NFC")
    repaired = repaired.str.replace(r"\s+", " ", regex=True)
    repaired = repaired.str.replace(INVISIBLE_IN_PYTHON, "", regex=True).str.strip()
    text.loc[is_unclean] = repaired
    rows["text"] = text
    rows["label"] = rows["Sentiment"].str.strip().str.lower().astype("category")
    is_valid = ((rows["text"] != "") & rows["label"].isin(LABELS)).to_numpy(bool)
    rejected, rows = rows[~is_valid], rows[is_valid]
    lowered = rows["text"].str.lower().to_numpy(dtype=object)
    rows = rows.assign(key=pd.util.hash_array(lowered, categorize=False))
    labels = rows["label"].cat.codes.groupby(rows["key"])
    is_conflict = labels.transform("max") != labels.transform("min")
    conflicts, rows = rows[is_conflict], rows[~is_conflict]
    unique_rows = rows.drop_duplicates("key").sort_values("key")
    fraction = unique_rows["key"].to_numpy() / 2.0**64
    for name, low, high in SPLIT_BOUNDS:
        unique_rows[(fraction >= low) & (fraction < high)].drop(columns="Sentiment").to_parquet(
            out / f"{name}.parquet", compression="zstd", index=False
        )
    rejected.to_parquet(out / "rejected.parquet", compression="zstd", index=False)
    conflicts.to_parquet(out / "conflicts.parquet", compression="zstd", index=False)
    return {
        "rejected": len(rejected),
        "conflicts": len(conflicts),
        "duplicates": len(rows) - len(unique_rows),
        "kept": len(unique_rows),
    }


def with_polars(folder: Path, out: Path) -> dict[str, int]:
    """Do the work in Polars."""
    import polars as pl

    rows = pl.concat(
        pl.read_csv(path, infer_schema=False)
        .fill_null("")
        .with_columns(source=pl.lit(path.name), row=pl.int_range(2, pl.len() + 2))
        for path in sorted(folder.glob("*.csv"))
    ).rename({"Sentence": "raw_text"})
    positions = rows["raw_text"].str.contains(UNCLEAN).arg_true()
    repaired = rows["raw_text"].gather(positions).map_elements(repair, return_dtype=pl.String)
    repaired = (
        repaired.str.normalize("NFC").str.replace_all(SPACES, " ").str.replace_all(INVISIBLE, "")
    )
    rows = rows.with_columns(
        text=rows["raw_text"].scatter(positions, repaired.str.strip_chars()),
        label=pl.col("Sentiment").str.strip_chars().str.to_lowercase(),
    )
    is_valid = (pl.col("text") != "") & pl.col("label").is_in(LABELS)
    rejected, rows = rows.filter(~is_valid), rows.filter(is_valid)
    rows = rows.with_columns(
        key=pl.col("text").str.to_lowercase().hash(seed=1),
        code=pl.col("label").replace_strict(
            {label: code for code, label in enumerate(LABELS)}, return_dtype=pl.Int8
        ),
    )
    codes = rows.group_by("key").agg(low=pl.col("code").min(), high=pl.col("code").max())
    conflict_keys = codes.filter(pl.col("low") != pl.col("high"))["key"].implode()
    conflicts = rows.filter(pl.col("key").is_in(conflict_keys))
    rows = rows.filter(~pl.col("key").is_in(conflict_keys))
    unique_rows = rows.unique("key", keep="first", maintain_order=True).sort("key")
    fraction = pl.col("key") / 2.0**64
    for name, low, high in SPLIT_BOUNDS:
        unique_rows.filter((fraction >= low) & (fraction < high)).drop(
            "Sentiment", "code"
        ).write_parquet(out / f"{name}.parquet", compression="zstd")
    rejected.write_parquet(out / "rejected.parquet", compression="zstd")
    conflicts.write_parquet(out / "conflicts.parquet", compression="zstd")
    return {
        "rejected": len(rejected),
        "conflicts": len(conflicts),
        "duplicates": len(rows) - len(unique_rows),
        "kept": len(unique_rows),
    }


PEERS: dict[str, Callable[[Path, Path], dict[str, int]]] = {
    "pandas": with_pandas,
    "polars": with_polars,
}


def main(arguments: list[str]) -> None:
    """Run a peer. The clock starts after the imports, as finsent's does after Ray's start."""
    name, folder, out = arguments
    __import__(name)
    __import__("ftfy")
    start = time.perf_counter()
    counts = PEERS[name](Path(folder), Path(out))
    result: dict[str, Any] = {
        "counts": counts,
        "seconds": time.perf_counter() - start,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
