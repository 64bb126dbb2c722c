"""Write the OpenAPI document of a service with default settings.

python -m serve_app.openapi docs/openapi.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from serve_app.config import LimitsConfig
from serve_app.openapi import describe

if __name__ == "__main__":
    text = json.dumps(describe(LimitsConfig()), indent=1, ensure_ascii=False) + "\n"
    Path(sys.argv[1]).write_text(text, encoding="utf-8")
