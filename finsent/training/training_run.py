"""One rank's part in a training run: all but how a step is computed, which a front end does."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from finsent.errors import DivergenceError
from finsent.modeling.classifier import load_tokenizer
from finsent.training.batches import Indices, count_steps, epoch_batches
from finsent.training.callbacks import Callbacks
from finsent.training.checkpoint import LoopState, epoch_checkpoint_name, step_checkpoint_name
from finsent.training.distributed import DistributedContext
from finsent.training.ema import ExponentialMovingAverage
from finsent.training.epoch_meter import EpochMeter
from finsent.training.lora import merged_weights, trainable_weights
from finsent.training.loss import row_weights
from finsent.training.metrics import EpochLine, EpochMetrics, EpochTotals, StepLine
from finsent.training.model import build_model
from finsent.training.optim import build_optimizer, build_schedule
from finsent.training.progress import Progress
from finsent.training.step import build_scaler
from finsent.training.task import Task
from finsent.training.tokens import TokenizedRows
from finsent.training.training_state import (
    TrainingState,
    load_training_state,
    optimizer_tensors,
)
from finsent.training.validate import has_stalled, validate

_PROGRESS_SECONDS = 0.5  # between two progress messages
_MAX_KEYS = 8  # of rows that an error names


@dataclass(frozen=True)
class TrainingInputs:
    """Inputs of a rank's training, and where its results go."""

    task: Task
    train_rows: TokenizedRows  # all rows, on every rank: each takes its share of each batch
    validation_rows: TokenizedRows
    callbacks: Callbacks
    device: torch.device
    resume_from: Path | None = None  # a checkpoint's directory


class TrainingRun:
    """One rank's part in a run.

    A front end calls `before_step`, computes the step of `batch`, and calls `after_step`, until
    that returns True.

    Raises:
        InputError: the backbone does not suit the recipe, or the checkpoint is damaged.
    """

    def __init__(self, inputs: TrainingInputs) -> None:
        self.task, self.config, self.callbacks = inputs.task, inputs.task.config, inputs.callbacks
        self.rows, self.validation_rows = inputs.train_rows, inputs.validation_rows
        self.context = DistributedContext.current(inputs.device)
        config, backbone = self.config, self.task.backbone
        self.model = build_model(self.task, inputs.device)
        self.tokenizer = load_tokenizer(backbone.source, backbone.revision)
        self.average = (
            ExponentialMovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        )
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = build_scaler(config, inputs.device)
        self.row_weights = row_weights(self.rows, config)
        self._last_checkpoint = "none"
        self._restore(inputs.resume_from)
        steps = count_steps(
            self.rows.lengths,
            config.batch_size,
            config.bucket_batches,
            config.seed,
            config.epochs,
            config.batch_tokens,
        )
        self._epoch_starts: list[int] = [0, *np.cumsum(steps).tolist()]
        self.schedule = build_schedule(self.optimizer, config, self.total_steps, self.step)
        self.batches: list[Indices] = []  # of the epoch
        self.callbacks.on_start(self.step)

    def _restore(self, resume_from: Path | None) -> None:
        state = LoopState()
        if resume_from:
            average = self.average.model if self.average else None
            state = load_training_state(resume_from, self.model, self.optimizer, average)
            self._last_checkpoint = resume_from.name
        if self.scaler and state.scaler:
            self.scaler.load_state_dict(dict(state.scaler))
        self.epoch, self.epoch_step = state.epoch, state.step
        self.history = [*state.history]
        self._resumed_totals = state.sums or EpochTotals()
        self._logged_totals = state.logged or EpochTotals()

    @property
    def step(self) -> int:
        """The next step of the run, counted from 0: the number of steps made."""
        return self._epoch_starts[self.epoch] + self.epoch_step

    @property
    def total_steps(self) -> int:
        """Steps of the run, where it does not stop early."""
        return self._epoch_starts[-1]

    @property
    def batch(self) -> Indices:
        """All ranks' rows of the next step."""
        return self.batches[self.epoch_step]

    def has_ended(self) -> bool:
        """Return whether no epoch is left, or further epochs would not help (`train.patience`).

        For use between two epochs.
        """
        if self.epoch >= self.config.epochs:
            return True
        if not has_stalled(self.history, self.config.patience):
            return False
        self.callbacks.on_note(
            f"stopped after epoch {self.epoch}: macro-F1 has not risen for "
            f"{self.config.patience} epoch(s) (train.patience)"
        )
        return True

    def start_epoch(self) -> None:
        """Make the epoch's batches; a resumed run starts at the step after its checkpoint."""
        config, rows = self.config, self.rows
        self.batches = epoch_batches(
            rows.lengths,
            config.batch_size,
            config.bucket_batches,
            config.seed,
            self.epoch,
            config.batch_tokens,
        )
        self.meter = EpochMeter(self.context, self._resumed_totals)
        self._began, self._epoch_started = time.time(), time.perf_counter()
        self._steps_started = self._epoch_started - self._resumed_totals.seconds
        self._progress_time = 0.0
        done_rows = sum(map(len, self.batches[: self.epoch_step]))
        self._rows_seen = self.epoch * len(rows) + done_rows
        self.model.train()

    def before_step(self) -> None:
        """Prepare the next step."""
        # Seeded for each step and rank: a resumed run draws the numbers of an uninterrupted one.
        _seed_dropout(self.config.seed, self.epoch, self.epoch_step, self.context.rank)
        self.meter.begin_step(self.epoch_step)

    def after_step(self) -> bool:
        """Average, show, log, check and save what is due; return whether the run has ended.

        Raises:
            DivergenceError: the loss is not a finite number, or above `train.max_loss`.
        """
        if self.average:
            self.average.update(self.model, self.step)
        self._rows_seen += len(self.batch)
        self._show_progress()
        self.epoch_step += 1
        self._log_and_save(time.perf_counter() - self._steps_started)
        if self.epoch_step < len(self.batches):
            return False
        self._end_epoch()
        if self.has_ended():
            return True
        self.start_epoch()
        return False

    def _show_progress(self) -> None:
        is_last = self.epoch_step == len(self.batches) - 1
        if time.monotonic() - self._progress_time <= _PROGRESS_SECONDS and not is_last:
            return
        self._progress_time = time.monotonic()
        totals = self.meter.local()
        self.callbacks.on_progress(
            Progress(
                rows=self._rows_seen,
                total_rows=self.config.epochs * len(self.rows),
                epoch=self.epoch + 1,
                loss=totals.mean_loss,
                padding_share=totals.padding_share,
                step=self.step + 1,
                total_steps=self.total_steps,
            )
        )

    def _end_epoch(self) -> None:
        """Validate, log and save."""
        totals = self.meter.total(time.perf_counter() - self._steps_started)
        model = self.average.model if self.average else self.model
        validation = validate(model, self.validation_rows, self.config, self.context)
        if not math.isfinite(validation.loss):  # the same sum on all ranks
            self._raise_divergence(
                f"the validation loss is not a finite number after epoch {self.epoch + 1}"
            )
        metrics = EpochMetrics(
            macro_f1=validation.macro_f1,
            accuracy=validation.accuracy,
            validation_loss=validation.loss,
            validation_rows=validation.rows,
            validation_confusion=validation.confusion,
            epoch=self.epoch + 1,
            learning_rate=self._learning_rate,
            train_loss=totals.mean_loss,
            train_rows=totals.rows,
            rows_per_second=totals.rows_per_second,
            tokens_per_second=totals.tokens_per_second,
            padding_share=totals.padding_share,
            began=self._began,
            epoch_seconds=time.perf_counter() - self._epoch_started,
        )
        self.epoch, self.epoch_step = self.epoch + 1, 0
        self.history = [*self.history, metrics]
        self._resumed_totals = self._logged_totals = EpochTotals()
        self.callbacks.on_metrics(EpochLine.of(metrics, self.step))
        state = self._state() if self.context.rank == 0 else None
        self._last_checkpoint = epoch_checkpoint_name(self.epoch)
        self.callbacks.on_epoch_end(metrics, state.write if state else None)

    @property
    def _learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def _log_and_save(self, seconds: float) -> None:
        """Log the loss, check it, and write a checkpoint, where one of these is due."""
        config, step = self.config, self.step
        is_epoch_end = self.epoch_step == len(self.batches)
        every = config.checkpoint_every_steps
        saves = every is not None and step % every == 0 and not is_epoch_end
        logs = step % config.log_every_steps == 0 or is_epoch_end
        if not (saves or logs):
            return
        totals = self.meter.total(seconds)
        recent = totals - self._logged_totals
        self._check_loss(recent.mean_loss)
        if logs:
            self._logged_totals = totals
            self.callbacks.on_metrics(
                StepLine(
                    step=step,
                    epoch=self.epoch + 1,
                    loss=recent.mean_loss,
                    learning_rate=self._learning_rate,
                    rows_per_second=recent.rows_per_second,
                    padding_share=recent.padding_share,
                    workers=self.context.world_size,
                )
            )
        if saves:
            state = self._state(totals).copied() if self.context.rank == 0 else None
            self._last_checkpoint = step_checkpoint_name(step)
            self.callbacks.on_checkpoint(self._last_checkpoint, state.write if state else None)

    def _check_loss(self, loss: float) -> None:
        bad_step = self.meter.bad_step()
        epoch = f"in epoch {self.epoch + 1}"
        if bad_step is not None:
            batch = self.batches[bad_step]
            keys = self.rows.keys(batch[:_MAX_KEYS])
            more = len(batch) - len(keys)
            run_step = self._epoch_starts[self.epoch] + bad_step + 1
            self._raise_divergence(
                f"the loss or its gradient is not a finite number {epoch}, step {bad_step + 1} "
                f"(of the run {run_step}), on rows {', '.join(keys)}"
                f"{f' and {more} more' if more else ''}"
            )
        if loss > self.config.max_loss:
            self._raise_divergence(
                f"the loss is {loss:.1f} {epoch}, above train.max_loss={self.config.max_loss:g}"
            )

    def _raise_divergence(self, problem: str) -> NoReturn:
        raise DivergenceError(
            f"train.learning_rate={self.config.learning_rate}: {problem}; last good checkpoint: "
            f"{self._last_checkpoint}. Lower the rate under another run.name, or check those rows."
        )

    def _state(self, totals: EpochTotals | None = None) -> TrainingState:
        """Return the training's state.

        Args:
            totals: of the epoch so far; None: at the end of an epoch.
        """
        published_weights, step_weights = self.model.state_dict(), None
        if self.average:
            published_weights, step_weights = self.average.model.state_dict(), published_weights
        elif self.config.lora_rank is not None:
            published_weights = merged_weights(self.model)
            step_weights = trainable_weights(self.model)
        return TrainingState(
            model=self.model,
            tokenizer=self.tokenizer,
            provenance=self.task.provenance.replaced(epoch=self.epoch),
            published_weights=published_weights,
            step_weights=step_weights,
            optimizer_tensors=optimizer_tensors(self.optimizer),
            loop=LoopState(
                epoch=self.epoch,
                step=self.epoch_step,
                history=self.history,
                sums=totals,
                logged=None if totals is None else self._logged_totals,
                scaler=self.scaler.state_dict() if self.scaler else None,
            ),
        )


def _seed_dropout(*parts: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))
