"""Clients of a service under faults: patient ones, and a flood of them."""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from finsent.memory import memory_usage

_FLOOD_CONNECTIONS = 256
_FLOOD = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local i, threads = 0, {}
local headers = {["Content-Type"] = "application/json"}
codes = ""
local counts = {}
function setup(thread) threads[#threads + 1] = thread end
function request()
  i = i %% #bodies + 1
  return wrk.format("POST", "/predict", headers, bodies[i])
end
function response(status)
  counts[status] = (counts[status] or 0) + 1
  local parts = {}
  for code, n in pairs(counts) do parts[#parts + 1] = '"' .. code .. '": ' .. n end
  codes = "{" .. table.concat(parts, ", ") .. "}"
end
function done(summary, latency)
  io.write(string.format('{"requests": %%d, "micros": %%d, "errors": %%d, "codes": %%s}\\n',
    summary.requests, summary.duration, summary.errors.connect + summary.errors.read +
    summary.errors.write + summary.errors.timeout, threads[1]:get("codes")))
end
"""


@dataclass
class Probes:
    """What clients saw that each wait for an answer before they ask again."""

    codes: Counter[str] = field(default_factory=Counter)  # status, or the kind of failure
    good: list[float] = field(default_factory=list)  # seconds of the 200s
    versions: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def p99(self) -> float:
        """Seconds."""
        ordered = sorted(self.good)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.nan

    def failed(self) -> int:
        """All but the 200s."""
        return sum(n for code, n in self.codes.items() if code != "200")


@contextmanager
def probing(address: str, texts: list[str], clients: int, pause: float = 0.0) -> Iterator[Probes]:
    """Ask single texts while the block runs.

    Args:
        pause: seconds between an answer and the next request.
    """
    found, end = Probes(), threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=address, timeout=30) as client:
            turn = number
            while not end.is_set():
                turn += clients
                _probe(client, texts[turn % len(texts)], found)
                end.wait(pause)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        end.set()
        for thread in threads:
            thread.join()


def _probe(client: httpx.Client, text: str, found: Probes) -> None:
    started = time.perf_counter()
    try:
        response = client.post("/predict", json={"text": text})
    except httpx.HTTPError as error:
        with found.lock:
            found.codes[type(error).__name__] += 1
        return
    with found.lock:
        found.codes[str(response.status_code)] += 1
        if response.status_code == 200:
            found.good.append(time.perf_counter() - started)
            found.versions.add(response.json()["model_version"])


def flood(address: str, bodies: Path, seconds: int, pid: int, work: Path) -> tuple[Any, int]:
    """Send lists with wrk.

    Args:
        bodies: one JSON body per line.
        pid: the replica whose memory is watched.

    Returns:
        Counts of requests, errors and codes, and the replica's peak memory in bytes.
    """
    script = work / "flood.lua"
    script.write_text(_FLOOD % bodies)
    process = subprocess.Popen(
        [
            "wrk",
            "-t1",
            f"-c{_FLOOD_CONNECTIONS}",
            f"-d{seconds}s",
            "--timeout",
            "30s",
            "-s",
            str(script),
            address,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_usage([pid]).rss)
        time.sleep(0.5)
    assert process.stdout is not None
    return json.loads(process.stdout.read().splitlines()[-1]), peak


def seconds_to_calm(address: str, texts: list[str], seconds: float) -> float:
    """Return the seconds until five answers in a row come within `seconds`; at most 60."""
    started, quick, turn = time.perf_counter(), 0, 0
    with httpx.Client(base_url=address, timeout=30) as client:
        while quick < 5 and time.perf_counter() - started < 60:
            asked, turn = time.perf_counter(), turn + 1
            response = client.post("/predict", json={"text": texts[turn % len(texts)]})
            good = response.status_code == 200 and time.perf_counter() - asked <= seconds
            quick = quick + 1 if good else 0
    return time.perf_counter() - started
