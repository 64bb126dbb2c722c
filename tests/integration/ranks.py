"""Processes of a process group for tests, forked from a process that has imported PyTorch.

Each run has new processes with the environment of torchrun. They start in a fraction of the seconds
that an import of PyTorch and transformers takes.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined] # torch has no list of names

_PRELOADED = [
    "finsent.training.standalone",
    "finsent.training.frontends.hugging_face",
    "finsent.training.frontends.lightning",
    "matplotlib.backends.backend_agg",
    "tests.integration.two_ranks",
]


class Ranks:
    """Processes that each call a function. They are killed at the end of the block.

    Args:
        size: of the process group, which the function initializes; 1: there is none.
        function: of a module that the processes can import, and so are its arguments.
    """

    def __init__(self, size: int, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)  # of the first call in this process
        # As torchrun's agent does: the port is bound before the processes start.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_call,
                args=(sender, rank, size, self._store.port, function, arguments),
                daemon=True,
            )
            process.start()
            sender.close()
            self._pipes.append(receiver)
            self._processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether all processes run."""
        return all(process.is_alive() for process in self._processes)

    def kill(self) -> None:
        """Kill the processes, as a lost machine does."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(30)

    def results(self, timeout: float = 120) -> list[Any]:
        """Wait for the results of the function, by rank."""
        deadline, results = time.monotonic() + timeout, []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(deadline - time.monotonic()), f"rank {rank}: nothing in {timeout} s"
            result, problem = pipe.recv()
            assert problem is None, f"rank {rank}: {problem}"
            results.append(result)
        return results


def run_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in several processes; return its results by rank."""
    with Ranks(size, function, *arguments) as ranks:
        return ranks.results()


def _call(
    sender: Connection,
    rank: int,
    size: int,
    port: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # Lightning sets the number of threads by it
    if size > 1:
        numbers = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "GROUP_RANK": 0,
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
            "MASTER_PORT": port,
        }
        os.environ |= {name: str(value) for name, value in numbers.items()}
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
    try:
        sender.send((function(*arguments), None))
    except BaseException:
        sender.send((None, traceback.format_exc()))
