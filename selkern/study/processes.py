"""Cells in parallel processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import cast

import torch

from selkern import _command
from selkern.study.base import Cell, Study, Tick, finish
from selkern.study.folder import Folder

__all__ = ["cores", "run_cells"]

_TICK, _DONE, _FAILED = "tick", "done", "failed"


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_cells(
    study: Study,
    cells: Iterable[Cell],
    folder: Folder,
    *,
    processes: int,
    threads: int,
    tick: Tick,
) -> dict[Cell, str]:
    """Finish cells, so many at a time; returns those that failed, with what went wrong.

    Parameters
    ----------
    study : Study
        What to do.
    cells : iterable of Cell
        The cells that are not finished.
    folder : Folder
        Where finished parts are kept.
    processes : int
        How many cells at a time; with 1, in this very process.
    threads : int
        Threads of torch in each.
    tick : callable
        Called as steps are done.
    """
    waiting = deque(cells)
    if processes == 1:
        with _command.threads(threads), _command.current(study.device):
            return _run_here(study, waiting, folder, tick)
    pool = _Pool(study, folder, threads, waiting, tick)
    try:
        return pool.run(min(processes, len(waiting)))
    finally:
        pool.stop()


def _run_here(study: Study, cells: Iterable[Cell], folder: Folder, tick: Tick) -> dict[Cell, str]:
    failed = {}
    for cell in cells:
        try:
            finish(study, cell, folder, tick)
        except Exception as error:
            failed[cell] = _text(error)
    return failed


class _Worker:
    """A process, the connection to it and the cell that it works on."""

    def __init__(self, study: Study, folder: Folder, threads: int) -> None:
        # Forking would copy the locks of torch's threads as they happen to be.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, study, folder, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.cell: Cell | None = None


class _Pool:
    def __init__(
        self, study: Study, folder: Folder, threads: int, waiting: deque[Cell], tick: Tick
    ) -> None:
        self.make_worker = partial(_Worker, study, folder, threads)
        self.waiting = waiting
        self.tick = tick
        self.failed: dict[Cell, str] = {}
        self.workers: dict[Connection, _Worker] = {}

    def run(self, processes: int) -> dict[Cell, str]:
        for _ in range(processes):
            self._start(self.make_worker())
        while self.workers:
            for ready in wait(list(self.workers)):
                self._hear(self.workers[cast("Connection", ready)])
        return self.failed

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join()

    def _start(self, worker: _Worker) -> None:
        self.workers[worker.connection] = worker
        self._next(worker)

    def _next(self, worker: _Worker) -> None:
        if not self.waiting:
            del self.workers[worker.connection]
            worker.connection.close()
            worker.process.join()
            return
        worker.cell = self.waiting.popleft()
        # One that has died is heard of as the end of its connection.
        with suppress(OSError):
            worker.connection.send(worker.cell)

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if kind == _TICK:
            self.tick(content)
            return
        if kind == _FAILED:
            self._fail(worker, content)
        self._next(worker)

    def _bury(self, worker: _Worker) -> None:
        del self.workers[worker.connection]
        worker.process.join()
        self._fail(worker, f"its process ended with exit code {worker.process.exitcode}")
        if self.waiting:
            self._start(self.make_worker())

    def _fail(self, worker: _Worker, text: str) -> None:
        if worker.cell is not None:
            self.failed[worker.cell] = text


def _work(connection: Connection, study: Study, folder: Folder, threads: int) -> None:
    # Ctrl-C goes to every process of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    # Where the first process was killed, sending fails, and so this one ends with it.
    with suppress(EOFError, OSError), _command.current(study.device):
        while True:
            cell = connection.recv()
            try:
                finish(study, cell, folder, lambda steps: connection.send((_TICK, steps)))
            except BrokenPipeError:
                return
            except Exception as error:
                connection.send((_FAILED, _text(error)))
            else:
                connection.send((_DONE, None))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
