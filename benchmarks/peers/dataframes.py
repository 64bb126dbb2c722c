"""The exact part of ingest in pandas and in Polars, one process each, to be measured against.

Read CSV files, normalize, reject, drop duplicates and conflicts, split by a hash, write zstd
Parquet and the side tables. Each uses its library's own vectorized means; what none has (HTML
entities, mojibake) goes through Python for the rows that need it, as in finsent. They do less than
finsent: no SHA-256 of inputs and outputs, 64-bit keys, no manifest, no report. Run as a module:
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
SHARES = (("train", 0.0, 0.8), ("validation", 0.8, 0.9), ("test", 0.9, 2.0))
ODD = r"[^ -~]|  |^ | $|&[#0-9A-Za-z]+;"  # texts that are not as they should be
SPACES = r"[\s\x{85}\p{Z}]+"
UNSEEN = r"[\p{Cc}\p{Cf}]+"
UNSEEN_IN_PYTHON = r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]+"


def repair(text: str) -> str:
    """HTML entities and mojibake."""
    from ftfy import fix_encoding

    while (plain := html.unescape(text)) != text:
        text = plain
    return fix_encoding(text)


def with_pandas(folder: Path, out: Path) -> dict[str, int]:
    """The work in pandas, on Arrow's strings."""
    import pandas as pd

    parts = []
    for path in sorted(folder.glob("*.csv")):
        part = pd.read_csv(path, engine="pyarrow", dtype="string[pyarrow]", keep_default_na=False)
        parts.append(part.assign(source=path.name, row=range(2, len(part) + 2)))
    rows = pd.concat(parts, ignore_index=True).rename(columns={"Sentence": "raw_text"})
    text = rows["raw_text"].copy()
    odd = text.str.contains(ODD, regex=True).to_numpy(bool)
    mended = text[odd].map(repair).astype("string[pyarrow]").str.normalize("NFC")
    mended = mended.str.replace(r"\s+", " ", regex=True)
    mended = mended.str.replace(UNSEEN_IN_PYTHON, "", regex=True).str.strip()
    text.loc[odd] = mended
    rows["text"] = text
    rows["label"] = rows["Sentiment"].str.strip().str.lower().astype("category")
    good = ((rows["text"] != "") & rows["label"].isin(LABELS)).to_numpy(bool)
    rejected, rows = rows[~good], rows[good]
    lowered = rows["text"].str.lower().to_numpy(dtype=object)
    rows = rows.assign(key=pd.util.hash_array(lowered, categorize=False))
    labels = rows["label"].cat.codes.groupby(rows["key"])
    different = labels.transform("max") != labels.transform("min")
    conflicts, rows = rows[different], rows[~different]
    kept = rows.drop_duplicates("key").sort_values("key")
    place = kept["key"].to_numpy() / 2.0**64
    for name, low, high in SHARES:
        kept[(place >= low) & (place < high)].drop(columns="Sentiment").to_parquet(
            out / f"{name}.parquet", compression="zstd", index=False
        )
    rejected.to_parquet(out / "rejected.parquet", compression="zstd", index=False)
    conflicts.to_parquet(out / "conflicts.parquet", compression="zstd", index=False)
    return {
        "rejected": len(rejected),
        "conflicts": len(conflicts),
        "duplicates": len(rows) - len(kept),
        "kept": len(kept),
    }


def with_polars(folder: Path, out: Path) -> dict[str, int]:
    """The work in Polars."""
    import polars as pl

    rows = pl.concat(
        pl.read_csv(path, infer_schema=False)
        .fill_null("")
        .with_columns(source=pl.lit(path.name), row=pl.int_range(2, pl.len() + 2))
        for path in sorted(folder.glob("*.csv"))
    ).rename({"Sentence": "raw_text"})
    places = rows["raw_text"].str.contains(ODD).arg_true()
    mended = rows["raw_text"].gather(places).map_elements(repair, return_dtype=pl.String)
    mended = mended.str.normalize("NFC").str.replace_all(SPACES, " ").str.replace_all(UNSEEN, "")
    rows = rows.with_columns(
        text=rows["raw_text"].scatter(places, mended.str.strip_chars()),
        label=pl.col("Sentiment").str.strip_chars().str.to_lowercase(),
    )
    good = (pl.col("text") != "") & pl.col("label").is_in(LABELS)
    rejected, rows = rows.filter(~good), rows.filter(good)
    rows = rows.with_columns(
        key=pl.col("text").str.to_lowercase().hash(seed=1),
        code=pl.col("label").replace_strict(
            {label: code for code, label in enumerate(LABELS)}, return_dtype=pl.Int8
        ),
    )
    codes = rows.group_by("key").agg(low=pl.col("code").min(), high=pl.col("code").max())
    different = codes.filter(pl.col("low") != pl.col("high"))["key"].implode()
    conflicts = rows.filter(pl.col("key").is_in(different))
    rows = rows.filter(~pl.col("key").is_in(different))
    kept = rows.unique("key", keep="first", maintain_order=True).sort("key")
    place = pl.col("key") / 2.0**64
    for name, low, high in SHARES:
        kept.filter((place >= low) & (place < high)).drop("Sentiment", "code").write_parquet(
            out / f"{name}.parquet", compression="zstd"
        )
    rejected.write_parquet(out / "rejected.parquet", compression="zstd")
    conflicts.write_parquet(out / "conflicts.parquet", compression="zstd")
    return {
        "rejected": len(rejected),
        "conflicts": len(conflicts),
        "duplicates": len(rows) - len(kept),
        "kept": len(kept),
    }


PEERS: dict[str, Callable[[Path, Path], dict[str, int]]] = {
    "pandas": with_pandas,
    "polars": with_polars,
}


def main(arguments: list[str]) -> None:
    """Run one peer; imports are not counted, as Ray's start is not."""
    name, folder, out = arguments
    __import__(name)
    __import__("ftfy")
    started = time.perf_counter()
    counts = PEERS[name](Path(folder), Path(out))
    result: dict[str, Any] = {
        "counts": counts,
        "seconds": time.perf_counter() - started,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
