"""The per-worker training loop: plain PyTorch DDP, the same under Ray, torchrun, or alone.

It knows nothing of Ray. Whoever starts it initializes the process group (or does not, for one
worker) and passes hooks that carry progress and checkpoints outside.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from finsent.errors import DivergenceError, InputError
from finsent.modeling.classifier import load_tokenizer, new_classifier
from finsent.modeling.compatibility import check_length
from finsent.training.batches import Indices, count_steps, epoch_batches
from finsent.training.checkpoint import Snapshot, epoch_name, load_state, moments, step_name
from finsent.training.config import TrainConfig
from finsent.training.determinism import deterministic
from finsent.training.ema import Average
from finsent.training.hooks import Hooks
from finsent.training.lora import add_adapters, merged, trained
from finsent.training.loss import row_weights
from finsent.training.meter import Meter, Sums
from finsent.training.optim import Thaw, build_optimizer, build_schedule
from finsent.training.progress import Progress
from finsent.training.step import Gradients, Stepper, new_scaler
from finsent.training.task import Task
from finsent.training.tokens import TokenRows
from finsent.training.validate import stalled, validate
from finsent.training.world import World

_INFORM_EVERY = 0.5  # seconds between two progress messages
_KEYS_SHOWN = 8


def train(
    task: Task,
    train_rows: TokenRows,
    validation_rows: TokenRows,
    hooks: Hooks,
    device: torch.device,
    resume: Path | None = None,
) -> None:
    """Fine-tune and report each epoch to the hooks.

    One step uses `batch_size` rows over all ranks, so the result does not depend on the number of
    workers (but for the order of floating-point sums and for dropout's random numbers).

    Args:
        train_rows: all rows, on every rank; each rank takes its share of each batch.
        resume: a checkpoint written by this loop; training goes on after its last step.

    Raises:
        InputError: the backbone does not suit the recipe, memory does not suffice for one row, or
            the loss is not a number or grows beyond `max_loss`.
    """
    with deterministic(task.config.deterministic):
        run = Run(task, train_rows, validation_rows, hooks, device, resume)
        wrapped = _wrap(run.model, run.config, run.world)
        stepper = Stepper(
            run.model,
            Gradients(wrapped, run.config, run.world, hooks.note, run.scaler),
            run.optimizer,
            run.schedule,
            Thaw(run.model, run.config, run.starts[-1] / run.config.epochs),
            run.scaler,
            run.config.max_grad_norm,
        )
        while not run.over:
            run.start_epoch()
            wrapped.train()
            while run.done < len(run.batches):
                run.before_step()
                stepper.step(run.rows, run.weights, run.batch, run.meter, run.number)
                run.after_step()
            run.end_epoch()


class Run:
    """One rank's part in a run: all but how a step is computed, which is the caller's.

    `start_epoch`, then `before_step` and `after_step` around each step, then `end_epoch`, until
    `over`.
    """

    def __init__(
        self,
        task: Task,
        train_rows: TokenRows,
        validation_rows: TokenRows,
        hooks: Hooks,
        device: torch.device,
        resume: Path | None,
    ) -> None:
        self.task, self.config, self.hooks = task, task.config, hooks
        self.rows, self.validation_rows = train_rows, validation_rows
        self.world = World.current(device)
        config = self.config
        self.model = new_model(task, device)
        self.tokenizer = load_tokenizer(task.backbone.source, task.backbone.revision)
        self.average = Average(self.model, config.ema_decay) if config.ema_decay else None
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = new_scaler(config, device)
        self.weights = row_weights(train_rows, config)
        self.saved = "none"  # the last good checkpoint
        state: dict[str, Any] = {"epoch": 0, "step": 0, "history": []}
        if resume:
            shown = self.average.model if self.average else None
            state = load_state(resume, self.model, self.optimizer, shown)
            self.saved = resume.name
        if self.scaler and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.done = int(state["epoch"]), int(state["step"])
        self.history: list[dict[str, Any]] = state["history"]
        self.before = Sums(**state.get("sums") or {})
        self.logged = Sums(**state.get("logged") or {})
        steps = count_steps(
            train_rows.lengths,
            config.batch_size,
            config.bucket_batches,
            config.seed,
            config.epochs,
            config.batch_tokens,
        )
        self.starts: list[int] = [0, *np.cumsum(steps).tolist()]
        self.schedule = build_schedule(
            self.optimizer, config, self.starts[-1], self.starts[self.epoch] + self.done
        )
        self.batches: list[Indices] = []
        hooks.started(self.number)

    @property
    def number(self) -> int:
        """The next step of the run, counted from 0."""
        return self.starts[self.epoch] + self.done

    @property
    def batch(self) -> Indices:
        """All ranks' rows of the next step."""
        return self.batches[self.done]

    @property
    def over(self) -> bool:
        """Whether there is no epoch left to train, or none that would help; asked between two."""
        if self.epoch >= self.config.epochs:
            return True
        if not stalled(self.history, self.config.patience):
            return False
        self.hooks.note(
            f"stopped after epoch {self.epoch}: macro-F1 has not risen for "
            f"{self.config.patience} epoch(s) (train.patience)"
        )
        return True

    def start_epoch(self) -> None:
        """Deal the rows; in a run that goes on, from the step after its checkpoint."""
        config, rows = self.config, self.rows
        self.batches = epoch_batches(
            rows.lengths,
            config.batch_size,
            config.bucket_batches,
            config.seed,
            self.epoch,
            config.batch_tokens,
        )
        self.meter = Meter(self.world, self.before)
        self._began, self._epoch_started = time.time(), time.perf_counter()
        self._started, self._informed = self._epoch_started - self.before.seconds, 0.0
        self._seen = self.epoch * len(rows) + sum(map(len, self.batches[: self.done]))
        self.model.train()

    def before_step(self) -> None:
        """A step begins."""
        # Anew for each step and rank: a run that goes on draws an undisturbed one's numbers.
        _seed_dropout(self.config.seed, self.epoch, self.done, self.world.rank)
        self.meter.begin(self.done)

    def after_step(self) -> None:
        """The weights have changed: average, show, log, check and save, where these are due."""
        if self.average:
            self.average.update(self.model, self.number)
        self._seen += len(self.batch)
        if time.monotonic() - self._informed > _INFORM_EVERY or self.done == len(self.batches) - 1:
            self._informed = time.monotonic()
            self._inform(self.meter.local(), self._seen, self.number + 1)
        self.done += 1
        self._look(time.perf_counter() - self._started)

    def end_epoch(self) -> None:
        """Validate, report and save."""
        total = self.meter.total(time.perf_counter() - self._started)
        metrics = {"learning_rate": float(self.schedule.get_last_lr()[0]), **total.throughput()}
        shown = self.average.model if self.average else self.model
        found = validate(shown, self.validation_rows, self.config, self.world)
        if not math.isfinite(found["validation_loss"]):  # the same sum on all ranks
            self._diverged(
                f"the validation loss is not a finite number after epoch {self.epoch + 1}"
            )
        found |= {"epoch": self.epoch + 1, **metrics}
        found |= {"began": self._began, "epoch_seconds": time.perf_counter() - self._epoch_started}
        self.epoch, self.done, self.history = self.epoch + 1, 0, [*self.history, found]
        self.before = self.logged = Sums()
        self.hooks.log({"kind": "epoch", "step": self.number, **found})
        snapshot = self._snapshot() if self.world.rank == 0 else None
        self.saved = epoch_name(self.epoch)
        self.hooks.epoch_done(found, snapshot.write if snapshot else None)

    def _look(self, seconds: float) -> None:
        """Log the loss, check it, and write a checkpoint, where one of these is due."""
        config, step = self.config, self.number  # steps made
        last = self.done == len(self.batches)
        every = config.checkpoint_every_steps
        save = bool(every) and step % (every or 1) == 0 and not last
        log = step % config.log_every_steps == 0 or last
        if not (save or log):
            return
        total = self.meter.total(seconds)
        recent = total - self.logged
        self._check(recent.mean_loss)
        if log:
            self.logged = total
            self.hooks.log(
                {
                    "kind": "step",
                    "step": step,
                    "epoch": self.epoch + 1,
                    "loss": recent.mean_loss,
                    "learning_rate": float(self.schedule.get_last_lr()[0]),
                    "rows_per_second": recent.rows / max(recent.seconds, 1e-9),
                    "padding_share": recent.padding_share,
                    "workers": self.world.size,
                }
            )
        if save:
            snapshot = self._snapshot(total).copied() if self.world.rank == 0 else None
            self.saved = step_name(step)
            self.hooks.step_done(self.saved, snapshot.write if snapshot else None)

    def _check(self, recent: float) -> None:
        bad, batches = self.meter.bad_step(), self.batches
        where = f"in epoch {self.epoch + 1}"
        if bad is not None:
            keys = self.rows.keys(batches[bad][:_KEYS_SHOWN])
            more = len(batches[bad]) - len(keys)
            problem = (
                f"the loss or its gradient is not a finite number {where}, step {bad + 1} (of the "
                f"run {self.starts[self.epoch] + bad + 1}), on rows {', '.join(keys)}"
                f"{f' and {more} more' if more else ''}"
            )
        elif recent > self.config.max_loss:
            problem = (
                f"the loss is {recent:.1f} {where}, above train.max_loss={self.config.max_loss:g}"
            )
        else:
            return
        self._diverged(problem)

    def _diverged(self, problem: str) -> NoReturn:
        raise DivergenceError(
            f"train.learning_rate={self.config.learning_rate}: {problem}; last good checkpoint: "
            f"{self.saved}; lower the rate under another run.name, or look at those rows"
        )

    def _inform(self, sums: Sums, seen: int, step: int) -> None:
        self.hooks.inform(
            Progress(
                rows=seen,
                total_rows=self.config.epochs * len(self.rows),
                epoch=self.epoch + 1,
                loss=sums.mean_loss,
                padding_share=sums.padding_share,
                step=step,
                total_steps=self.starts[-1],
            )
        )

    def _snapshot(self, sums: Sums | None = None) -> Snapshot:
        shown, weights = self.model.state_dict(), None
        if self.average:
            shown, weights = self.average.model.state_dict(), shown
        elif self.config.lora_rank is not None:
            shown, weights = merged(self.model), trained(self.model)
        return Snapshot(
            model=self.model,
            tokenizer=self.tokenizer,
            provenance={**self.task.provenance, "epoch": self.epoch},
            shown=shown,
            weights=weights,
            moments=moments(self.optimizer),
            state={
                "epoch": self.epoch,
                "step": self.done,
                "history": self.history,
                "sums": None if sums is None else asdict(sums),
                "logged": None if sums is None else asdict(self.logged),
                "scaler": self.scaler.state_dict() if self.scaler else None,
            },
        )


def new_model(task: Task, device: torch.device) -> PreTrainedModel:
    """The classifier that a task begins with, on its device.

    Raises:
        InputError: it does not suit the recipe.
    """
    config = task.config
    model = new_classifier(task.backbone, config.seed, config.dropout)
    if config.lora_rank is not None:
        add_adapters(model, config)
    torch.nn.Module.to(model, device)  # the subclass hides its signature
    check_length(model.config, task.max_length, task.backbone.name, "model.max_length")
    if config.batch_tokens is not None and config.batch_tokens < task.max_length:
        raise InputError(
            f"train.batch_tokens={config.batch_tokens}: a row may have model.max_length="
            f"{task.max_length} tokens; raise train.batch_tokens or lower model.max_length"
        )
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise InputError(
                f"train.gradient_checkpointing=true: {type(model).__name__} cannot; set it to false"
            )
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def _seed_dropout(*parts: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))


def _wrap(model: PreTrainedModel, config: TrainConfig, world: World) -> torch.nn.Module:
    wrapped: torch.nn.Module = model
    if world.size > 1:
        wrapped = DistributedDataParallel(
            model,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,  # an encoder's are constants
        )
    if config.compile:
        wrapped = cast(torch.nn.Module, torch.compile(wrapped, dynamic=True))
    return wrapped
