"""A training without a model, for tests of sweeps: it writes files, resumes, and holds a group."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsent.files import sha256_file, write_json
from ray_jobs._settings import JobSettings

if TYPE_CHECKING:
    from finsent.training.metrics import EpochMetrics

EPOCH_SECONDS = 0.05  # ten epochs between two polls of a trial
START_SECONDS = 60  # for the other trials of a population


class Training:
    """Replaces `tune.training.Training`, under the class name that `tune.orphaned_groups` expects.

    The best learning rate is 1e-3. A batch of 3 rows kills the process, once, after an epoch.

    Args:
        environment: unused.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        pass

    def run(
        self,
        settings: JobSettings,
        params: Mapping[str, Any],
        version_dir: Path,
        datasets: dict[str, Any],
        folder: Path,
        modes: Mapping[str, str],
    ) -> tuple[dict[str, float], Path]:
        """Train as `tune.training.Training.run` does."""
        from ray.util import placement_group

        from finsent.training.checkpoint import epoch_checkpoint_name, latest_valid
        from finsent.training.checkpoint_writer import CheckpointWriter
        from finsent.training.metrics import EpochLine
        from finsent.training.metrics_log import MetricsLog
        from tune.training import trial_version

        self.group = placement_group([{"CPU": 0.01}])  # as Ray Train's controller does
        version = trial_version(settings, params, version_dir, folder).version
        folder.mkdir(parents=True, exist_ok=True)
        task = {
            "version": version,
            "max_length": settings.model.max_length,
            "datasets": sorted(datasets),
        }
        write_json(folder / "task.json", task)
        saved = latest_valid(folder)
        history = saved.history if saved else []
        metrics_log = MetricsLog(folder)
        with CheckpointWriter(folder, settings.train.keep_every_epochs) as writer:
            metrics_log.start(len(history))
            _wait_for_others(settings, folder)
            for epoch in range(len(history) + 1, settings.train.epochs + 1):
                time.sleep(EPOCH_SECONDS)  # a training that takes time
                rate = settings.train.learning_rate or 1e-3
                level = 0.8 - 0.1 * (math.log10(rate) + 3) ** 2
                score = level * (1 - 0.5 * math.exp(-epoch / 1.5))
                history = [*history, _metrics(epoch, score)]
                writer.write(epoch_checkpoint_name(epoch), _saver(history))
                metrics_log.append(EpochLine.of(history[-1], epoch))
                if settings.train.batch_size == 3 and saved is None:
                    os._exit(1)
        best = max(metrics.macro_f1 for metrics in history)
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "model.safetensors").write_text(str(best))
        return {name: best if name == "macro_f1" else 5.0 for name in modes}, folder / "model"


def _wait_for_others(settings: JobSettings, folder: Path) -> None:
    """Wait for the other trials of a population, which exchanges between running trials only."""
    if settings.sweep.scheduler != "pbt":
        return
    deadline = time.monotonic() + START_SECONDS
    while len([*folder.parent.glob("*/metrics.jsonl")]) < settings.sweep.trials:
        assert time.monotonic() < deadline, "the other trials have not started"
        time.sleep(EPOCH_SECONDS)


def _metrics(epoch: int, macro_f1: float) -> EpochMetrics:
    from finsent.training.metrics import EpochMetrics

    return EpochMetrics(
        macro_f1=macro_f1,
        accuracy=macro_f1,
        validation_loss=1 - macro_f1,
        validation_rows=0,
        validation_confusion=[],
        epoch=epoch,
        learning_rate=0.0,
        train_loss=1 - macro_f1,
        train_rows=0,
        rows_per_second=0.0,
        tokens_per_second=0.0,
        padding_share=0.0,
        began=time.time(),
        epoch_seconds=EPOCH_SECONDS,
    )


def _saver(history: list[EpochMetrics]) -> Callable[[Path], None]:
    """Return a writer of checkpoints without weights, which needs no import of PyTorch."""
    from finsent.training.checkpoint import LoopState, state_digest

    def save(out: Path) -> None:
        names = ("model/config.json", "model/model.safetensors", "optimizer.safetensors")
        (out / "model").mkdir()
        for name in names:
            (out / name).write_text("{}")
        files = {name: {"bytes": 2, "sha256": sha256_file(out / name)} for name in names}
        loop = LoopState(epoch=len(history), history=history).model_dump(mode="json")
        state = {**loop, "optimizer_tensors": 0, "files": files}
        write_json(out / "state.json", {**state, "digest": state_digest(state)})

    return save
