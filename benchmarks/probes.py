"""Clients of a service under faults: a few that wait for answers, and a flood."""

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

FLOOD_CONNECTIONS = 256
MAX_RECOVERY_SECONDS = 60
_FLOOD_SCRIPT = """
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
    """Answers to clients that each wait for an answer before their next request."""

    codes: Counter[str] = field(default_factory=Counter)  # HTTP status, or class of the error
    seconds: list[float] = field(default_factory=list)  # of the requests with status 200
    versions: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def p99(self) -> float:
        """Return the 99th percentile of the seconds of the requests with status 200."""
        ordered = sorted(self.seconds)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.nan

    def failed(self) -> int:
        """Return the number of requests without status 200."""
        return sum(count for code, count in self.codes.items() if code != "200")


@contextmanager
def probing(address: str, texts: list[str], clients: int, pause: float = 0.0) -> Iterator[Probes]:
    """Send single texts while the block runs.

    Args:
        address: of the service.
        texts: what the clients send.
        clients: number of clients.
        pause: seconds between an answer and the next request.
    """
    probes, end = Probes(), threading.Event()

    def run_client(number: int) -> None:
        with httpx.Client(base_url=address, timeout=30) as client:
            position = number
            while not end.is_set():
                position += clients
                _send(client, texts[position % len(texts)], probes)
                end.wait(pause)

    threads = [threading.Thread(target=run_client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield probes
    finally:
        end.set()
        for thread in threads:
            thread.join()


def _send(client: httpx.Client, text: str, probes: Probes) -> None:
    start = time.perf_counter()
    try:
        response = client.post("/predict", json={"text": text})
    except httpx.HTTPError as error:
        with probes.lock:
            probes.codes[type(error).__name__] += 1
        return
    with probes.lock:
        probes.codes[str(response.status_code)] += 1
        if response.status_code == 200:
            probes.seconds.append(time.perf_counter() - start)
            probes.versions.add(response.json()["model_version"])


def flood(address: str, bodies: Path, seconds: int, pid: int, work: Path) -> tuple[Any, int]:
    """Load a service with lists by wrk.

    Args:
        address: of the service.
        bodies: one JSON body per line.
        seconds: duration.
        pid: process of the replica whose memory is measured.
        work: gets the script of wrk.

    Returns:
        counts of requests, errors and codes, and the replica's peak memory in bytes.
    """
    script = work / "flood.lua"
    script.write_text(_FLOOD_SCRIPT % bodies)
    options = ["-t1", f"-c{FLOOD_CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s"]
    process = subprocess.Popen(
        ["wrk", *options, "-s", str(script), address],
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_usage([pid]).rss)
        time.sleep(0.5)
    assert process.stdout is not None
    return json.loads(process.stdout.read().splitlines()[-1]), peak


def recovery_seconds(address: str, texts: list[str], limit: float) -> float:
    """Return the seconds until five answers in a row come within a limit, at most 60.

    Args:
        address: of the service.
        texts: what is sent, one text per request.
        limit: seconds of a request.
    """
    start, fast_answers, position = time.perf_counter(), 0, 0
    with httpx.Client(base_url=address, timeout=30) as client:
        while fast_answers < 5 and time.perf_counter() - start < MAX_RECOVERY_SECONDS:
            request_start, position = time.perf_counter(), position + 1
            response = client.post("/predict", json={"text": texts[position % len(texts)]})
            is_fast = time.perf_counter() - request_start <= limit
            fast_answers = fast_answers + 1 if response.status_code == 200 and is_fast else 0
    return time.perf_counter() - start
