"""How a training ends that its user has to mend: at once, and with one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import UserCallback

from finsent.disk import DiskError, translate_disk_errors
from finsent.errors import InputError


@contextmanager
def reporting(board: Any, run_dir: Path, *, first: bool) -> Iterator[None]:
    """Tell the board what a worker's user has to mend.

    Args:
        board: handle of a `finsent.training.progress.ProgressBoard`.
        first: whether this is the first rank.

    Raises:
        DiskError: this rank cannot write. Other errors for the user end the block.
    """
    try:
        with translate_disk_errors(run_dir, "storage.root"):
            yield
    except DiskError as error:
        ray.get(board.fail.remote(error))
        raise  # the other ranks have not met it, and wait for this one
    except InputError as error:
        # It would come again, and all ranks have met it: no reason to start the workers anew.
        if first:
            ray.get(board.fail.remote(error))


class EndOnFailure(UserCallback):
    """Ends a run of Ray Train when the board says why, instead of starting its workers anew."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_exception(self, *_: Any, **__: Any) -> None:
        """See `ray.train.UserCallback`; what it raises ends the run at once.

        Raises:
            UserError: what the board says.
        """
        failure = ray.get(self._board.failure.remote())
        if failure is not None:
            raise failure
