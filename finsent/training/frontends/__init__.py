"""Who computes the steps: this project's own loop, or one that a team already has.

Whichever it is, rows, batches, optimizer, schedule, validation, checkpoints and what is reported
are `finsent.training.loop.Run`'s, so the same seed and recipe give the same model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from finsent.training.config import TrainConfig
from finsent.training.frontends.check import check

if TYPE_CHECKING:  # they take seconds to import, which checking a recipe can do without
    import torch

    from finsent.training.hooks import Hooks
    from finsent.training.task import Task
    from finsent.training.tokens import TokenRows

    Train = Callable[[Task, TokenRows, TokenRows, Hooks, torch.device, Path | None], None]


def trainer_of(config: TrainConfig) -> Train:
    """The function that trains, as `finsent.training.loop.train` does.

    Raises:
        InputError: its package is not installed, or it cannot do what the recipe asks for.
    """
    check(config)
    if config.trainer == "native":
        from finsent.training.loop import train

        return train
    if config.trainer == "transformers":
        from finsent.training.frontends.hugging_face import train as with_transformers

        return with_transformers
    from finsent.training.frontends.lightning import train as with_lightning

    return with_lightning
