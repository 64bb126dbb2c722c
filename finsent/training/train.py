"""Training on one rank, by the front end that `train.trainer` names.

Whichever computes the steps, rows, batches, optimizer, schedule, validation, checkpoints and
metrics are those of `finsent.training.training_run.TrainingRun`, so the same seed and recipe give
the same model.
"""

from __future__ import annotations

from collections.abc import Callable

from finsent.adapters.torch_training import deterministic_algorithms
from finsent.training.frontends.check import check_trainer
from finsent.training.training_run import TrainingInputs, TrainingRun


def train(inputs: TrainingInputs) -> None:
    """Fine-tune, and report to the callbacks. The caller initializes the process group, if any.

    A step uses `batch_size` rows over all ranks, so the result does not depend on the number of
    workers, except for the order of floating-point sums and dropout's random numbers.

    Raises:
        InputError: the front end's package is missing, the backbone does not suit the recipe,
            one row does not fit in memory, or the loss diverges.
    """
    config = inputs.task.config
    check_trainer(config)
    compute_steps = _front_end(config.trainer)
    with deterministic_algorithms(enabled=config.deterministic):
        run = TrainingRun(inputs)
        if not run.has_ended():
            run.start_epoch()
            compute_steps(run)


def _front_end(trainer: str) -> Callable[[TrainingRun], None]:
    """Return what computes the steps of a run. Libraries are optional, so each import waits."""
    if trainer == "transformers":
        from finsent.training.frontends import hugging_face  # extra transformers

        return hugging_face.compute_steps
    if trainer == "lightning":
        from finsent.training.frontends import lightning  # extra lightning

        return lightning.compute_steps
    from finsent.training.frontends import native  # as the others

    return native.compute_steps
