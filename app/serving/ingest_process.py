"""Client of the ingest process: starts it at the first write, sends it tasks, and replaces it when it dies."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from app import telemetry
from app.config import Settings
from app.errors import BraidError, IngestInterrupted
from app.serving.ingest_worker import DONE, FAILED, PROGRESS
from app.serving.tasks import IngestOutcome, IngestTask

_log = logging.getLogger("braid.ingest")

WORKER = "app.serving.ingest_worker"
"""The program; tests replace it by one with misbehaving parsers."""
FROZEN_S = 60.0
"""Seconds without a sign of life after which a process is replaced."""
_INTERRUPTED = "the ingest process ended while working on the document (see the service's log): send it again"
_MALLOC = {"MALLOC_ARENA_MAX": "2"}
"""Limits the heaps of threads, which keep much unused memory."""

Progress = Callable[[int], None]


@dataclass(slots=True)
class _PendingTask:
    future: Future[IngestOutcome]
    progress: Progress | None
    embedded: int = 0


class IngestProcess:
    """One process, started on demand. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The current process; None before the first task."""
        child = self._child
        return child.pid if child is not None else None

    def submit(self, task: IngestTask, progress: Progress | None = None) -> Future[IngestOutcome]:
        """Submit a task.

        Args:
            task: the task; it ends by its deadline, or slightly later.

        Returns:
            The outcome, or the BraidError of the failure: IngestInterrupted if the process died.
        """
        with self._lock:
            if self._closed:
                raise IngestInterrupted("the service is stopping: send it again")
            if self._child is None or self._child.ended:
                self._child = _Child(self._settings)
            child = self._child
        return child.ask(task, progress)

    def close(self) -> None:
        """End the process; its work is abandoned."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.close()


class _Child:
    """One life of the process. A keeper thread starts it and receives its messages.

    The kernel ends a child with the *thread* that started it, so that thread must not belong to a request.
    """

    def __init__(self, settings: Settings) -> None:
        self._ours, self._theirs = Pipe()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._asked: dict[int, _PendingTask] = {}
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._error: BraidError | None = None
        self.ended = False
        self._closed = False
        self._ours.send(settings)
        self._keeper = threading.Thread(target=self._keep, name="ingest-keeper", daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def ask(self, task: IngestTask, progress: Progress | None) -> Future[IngestOutcome]:
        future: Future[IngestOutcome] = Future()
        with self._lock:
            if self.ended:
                future.set_exception(self._error or IngestInterrupted(_INTERRUPTED))
                return future
            number = next(self._numbers)
            self._asked[number] = _PendingTask(future, progress)
        try:
            with self._sending:
                self._ours.send((number, task))
        except OSError:  # it died just now: its keeper informs all waiting callers
            _log.info("the ingest process ended before it had the document")
        return future

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._keeper.join(5)

    def _keep(self) -> None:
        try:
            self._process = _start(self._theirs)
            self._theirs.close()
            while not self._closed:
                if not self._ours.poll(FROZEN_S):
                    _log.error("the ingest process %d gives no sign of life and is replaced", self._process.pid)
                    break
                self._take(*self._ours.recv())
        except (EOFError, OSError) as error:
            _log.info("the ingest process ended (%s)", type(error).__name__)
        finally:
            self._end()

    def _take(self, number: int, kind: str, value: object) -> None:
        if kind == FAILED and number == 0 and isinstance(value, BraidError):  # it failed to start
            self._error = value
            return
        with self._lock:
            asked = self._asked.get(number) if kind == PROGRESS else self._asked.pop(number, None)
        if asked is None:
            return
        if kind == PROGRESS and isinstance(value, int):
            telemetry.INGEST_PASSAGES.inc(value - asked.embedded)
            asked.embedded = value
            if asked.progress is not None:
                asked.progress(value)
        elif kind == DONE and isinstance(value, IngestOutcome):
            asked.future.set_result(value)
        elif kind == FAILED and isinstance(value, BraidError):
            asked.future.set_exception(value)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self.ended = True
            asked, self._asked = list(self._asked.values()), {}
        for item in asked:
            item.future.set_exception(self._error or IngestInterrupted(_INTERRUPTED))
        with self._sending:
            self._ours.close()


def _start(theirs: Connection) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", WORKER, str(theirs.fileno())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env={**os.environ, **_MALLOC}
    )
