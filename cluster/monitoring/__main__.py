"""`python -m cluster.monitoring`: write all files that are made from the list of metrics."""

from __future__ import annotations

from cluster.monitoring.generated import PROJECT, generated_files
from finsent.files import write_text

if __name__ == "__main__":
    for name, text in generated_files().items():
        path = PROJECT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
