"""Synthetic sweeps with known results, in the files of a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from finsent.config import check
from finsent.modeling.backbone import Backbone, resolve_backbone
from ray_jobs._settings import JobSettings

Event = dict[str, Any]

SPACE: dict[str, Any] = {
    "train.learning_rate": {"kind": "loguniform", "low": 1e-5, "high": 1e-3},
    "train.dropout": {"kind": "uniform", "low": 0.0, "high": 0.5},
    "train.batch_size": {"kind": "choice", "choices": [16, 32, 64]},
    "train.schedule": {"kind": "choice", "choices": ["linear", "cosine", "constant"]},
    "train.warmup_steps": {"kind": "int", "low": 0, "high": 200},
    "train.lora_rank": {"kind": "int", "low": 2, "high": 64},  # of some trials only
}


def settings(**changes: Any) -> dict[str, Any]:
    record = {
        "name": "synthetic",
        "metric": "macro_f1",
        "mode": "max",
        "objectives": [{"name": "macro_f1", "mode": "max"}],
        "space": SPACE,
        "scheduler": "asha",
        "search": "tpe",
        "max_epochs": 8,
        "created": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T01:00:00+00:00",
        "storage": None,
        "study_name": "synthetic",
    }
    return record | changes


def start(trial: int, time: float, params: dict[str, Any], source: str = "search") -> Event:
    return {"event": "start", "trial": trial, "time": time, "params": params, "source": source}


def epoch(trial: int, time: float, number: int, value: float, seconds: float = 10.0) -> Event:
    metrics = {"macro_f1": value, "loss": 1 - value}
    return {
        "event": "epoch",
        "trial": trial,
        "time": time,
        "epoch": number,
        "metrics": metrics,
        "seconds": seconds,
    }


def end(trial: int, time: float, epochs: int, value: float | None, **changes: Any) -> Event:
    event = {
        "event": "end",
        "trial": trial,
        "time": time,
        "status": "finished",
        "reason": None,
        "epochs": epochs,
        "seconds": 10.0 * epochs,
        "checkpoint": None,
        "values": {} if value is None else {"macro_f1": value},
    }
    return event | changes


TINY_SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-2]},
    "train.batch_size": {"choice": [16, 32]},
}


def tiny_settings(**sweep: Any) -> JobSettings:
    """JobSettings of a sweep over `TINY_SPACE` with the tiny backbone."""
    values = {"sweep": {"space": TINY_SPACE, **sweep}, "model": {"backbone": "tiny"}}
    return check(JobSettings, values)


def tiny_backbone(folder: Path) -> Backbone:
    return resolve_backbone(tiny_settings().model, folder / "backbones")


def verification(**changes: Any) -> dict[str, Any]:
    """`verification.json` of a sweep whose settings without any change won."""
    record = {
        "candidates": [],
        "default": {"seeds": []},
        "chosen": "default",
        "verified": 0.7,
        "params": {},
        "model_dir": "model",
        "seed": 1,
    }
    return record | changes


def write(folder: Path, events: list[Event], **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(settings(**changes)), encoding="utf-8")
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "trials.jsonl").write_text(lines, encoding="utf-8")
    return folder


def drawn(trials: int, seed: int = 0, latency: bool = False) -> list[Event]:
    """Trials, two at a time, whose value depends on the learning rate only (best at 1e-4).

    Those below 0.55 after two epochs are stopped, every fifteenth fails, each second one of these
    by diverging; half have a LoRA rank.
    """
    random = np.random.default_rng(seed)
    events: list[Event] = []
    clocks = [0.0, 3.0]
    for number in range(trials):
        rate = float(10 ** random.uniform(-5, -3))
        params: dict[str, Any] = {
            "train.learning_rate": rate,
            "train.dropout": float(random.uniform(0, 0.5)),
            "train.batch_size": int(random.choice([16, 32, 64])),
            "train.schedule": str(random.choice(["linear", "cosine", "constant"])),
            "train.warmup_steps": int(random.integers(0, 201)),
        }
        if random.random() < 0.5:
            params["train.lora_rank"] = int(random.integers(2, 65))
        final = 0.8 - 0.35 * (math.log10(rate) + 4) ** 2 + float(random.normal(0, 0.01))
        lane = int(np.argmin(clocks))
        events.append(start(number, clocks[lane], params, "known" if number == 0 else "search"))
        values: list[float] = []
        status, reason = "finished", None
        for at in range(1, 9):
            clocks[lane] += 10
            values.append(final * (1 - 0.5 * math.exp(-at / 1.5)))
            events.append(epoch(number, clocks[lane], at, values[-1]))
            if at == 2 and number % 15 == 14:
                status, reason = "failed", "CUDA out of memory: 2.1 GiB wanted"
                if number % 30 == 29:
                    status, reason = "diverged", "the loss is not a finite number in epoch 3"
                break
            if at == 2 and values[-1] < 0.55:
                status, reason = "stopped", "asha: rung 2"
                break
        ended = end(number, clocks[lane], len(values), max(values), status=status, reason=reason)
        if status in ("failed", "diverged"):
            ended["values"] = {}
        elif latency:
            ended["values"]["latency_ms"] = 2.0 + params.get("train.lora_rank", 64) * (0.2 + final)
        events.append(ended)
    return sorted(events, key=lambda event: event["time"])
