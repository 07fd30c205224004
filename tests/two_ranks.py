"""Processes joined by gloo, started once and shared by every test that needs as many ranks."""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

SECONDS = 180


def _serve(rank: int, ranks: int, port: int, requests: Any, answers: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
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


class Ranks:
    """`run` calls a function of a test module on every rank and returns what each returned."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._processes: list[Any] = []

    def _start(self) -> None:
        from torch import multiprocessing

        context = multiprocessing.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._requests = [context.Queue() for _ in range(self._ranks)]
        self._answers = context.Queue()
        self._processes = [
            context.Process(target=_serve, args=(rank, self._ranks, port, self._requests[rank], self._answers), daemon=True)
            for rank in range(self._ranks)
        ]
        for process in self._processes:
            process.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        if not all(process.is_alive() for process in self._processes) or not self._processes:
            self._start()
        for requests in self._requests:
            requests.put((function, arguments))
        results: list[Any] = [None] * self._ranks
        for _ in range(self._ranks):
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
