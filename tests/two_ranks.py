"""Two processes joined by gloo, started once and shared by every test that needs two ranks."""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

RANKS = 2
SECONDS = 180


def _serve(rank: int, port: int, requests: Any, answers: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    import torch

    from llmctl.train.distributed import join_process_group

    torch.set_num_threads(1)
    join_process_group()
    while (request := requests.get()) is not None:
        function, arguments = request
        try:
            answers.put((rank, True, function(*arguments)))
        except BaseException:
            answers.put((rank, False, traceback.format_exc()))
            return


class TwoRanks:
    """`run` calls a function of a test module on both ranks and returns what each returned."""

    def __init__(self) -> None:
        self._processes: list[Any] = []

    def _start(self) -> None:
        from torch import multiprocessing

        context = multiprocessing.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._requests = [context.Queue() for _ in range(RANKS)]
        self._answers = context.Queue()
        self._processes = [
            context.Process(target=_serve, args=(rank, port, self._requests[rank], self._answers), daemon=True)
            for rank in range(RANKS)
        ]
        for process in self._processes:
            process.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        if not all(process.is_alive() for process in self._processes) or not self._processes:
            self._start()
        for requests in self._requests:
            requests.put((function, arguments))
        results: list[Any] = [None] * RANKS
        for _ in range(RANKS):
            rank, well, value = self._answers.get(timeout=SECONDS)
            if not well:
                self.stop()
                raise AssertionError(f"rank {rank}:\n{value}")
            results[rank] = value
        return results

    def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(Exception):
                process.kill()
                process.join()
        self._processes = []
