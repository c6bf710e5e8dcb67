"""Parses files in processes of their own, so that a file can take no more than its memory, its time and its process.

Processes live as long as the pool. One that ended, or had to be ended, costs the file that it had, and is replaced.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import IO

from app.deadline import Deadline
from app.ingest.parse.document import parse_file
from app.ingest.parse.files import check_name
from app.ingest.parse.limits import Limits, _IngestSettings
from app.ingest.parse.worker import Parser, Worker, WorkerLost
from app.passage import ParsedDocument

_STARTS = 3
"""Processes that may be lost between two files (ended from outside) before the installation is to blame."""


class ParserPool:
    """Parses files in up to `workers` processes. Use it as a context manager; `parse` may be called from any thread."""

    def __init__(self, settings: _IngestSettings, workers: int, *, parse: Parser = parse_file) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one is needed")
        self._limits = Limits.of(settings)
        self._parse = parse
        self._changed = threading.Condition()
        self._room = workers
        self._closed = False
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def parse(self, path: Path, file: IO[bytes] | None = None, *, deadline: Deadline | None = None) -> ParsedDocument:
        """The parsed document. Waits for a free process; the time limit counts from when one has begun.

        `deadline`: of whoever waits for it; a process is ended that works on the file then.

        `file`: the content, where `path` only names it: an upload needs no name on disk, which would outlive a
        killed service.

        Raises:
            DocumentRejected: whatever is wrong with the file, `reason` being one of docs/formats.md.
            DeadlineExceeded: nothing is left.
            RuntimeError: the pool is closed, or no parser process can be started.
        """
        check_name(path)
        if file is not None:
            file.flush()
        self._enter(deadline)
        try:
            return self._parsed(path, None if file is None else file.fileno(), deadline)
        finally:
            self._leave()

    def processes(self) -> set[int]:
        """The ids of the processes that there are now."""
        with self._changed:
            return {worker.pid for worker in (*self._idle, *self._busy)}

    def close(self) -> None:
        """End the processes; whatever they are doing is abandoned."""
        with self._changed:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
            self._changed.notify_all()
        for worker in workers:
            worker.end()

    def _enter(self, deadline: Deadline | None) -> None:
        left = deadline.remaining_s("parsing") if deadline is not None else None
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._room, left) and deadline is not None:
                raise deadline.exceeded("parsing")
            self._check_open()
            self._room -= 1

    def _leave(self) -> None:
        with self._changed:
            self._room += 1
            self._changed.notify()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the parser pool is closed")

    def _parsed(self, path: Path, file: int | None, deadline: Deadline | None) -> ParsedDocument:
        lost: WorkerLost | None = None
        for _ in range(_STARTS):
            worker = self._take(fresh=lost is not None)
            try:
                return worker.parse(path, file, deadline)
            except WorkerLost as error:
                lost = error
            finally:
                self._put(worker)
        raise RuntimeError(f"no parser process can be started: {lost}") from lost

    def _take(self, *, fresh: bool) -> Worker:
        """An idle process or a new one; one that was idle may have ended without a sign yet, a `fresh` one has not."""
        with self._changed:
            worker = None
            while self._idle and not fresh and worker is None:
                worker = self._idle.pop()
                if not worker.alive():
                    worker.end()
                    worker = None
            if worker is not None:
                self._busy.add(worker)
                return worker
        worker = Worker(self._parse, self._limits)
        with self._changed:
            self._busy.add(worker)
        return worker

    def _put(self, worker: Worker) -> None:
        """Back to the idle ones; where the pool was closed meanwhile, what came of the file is no verdict on it."""
        alive = worker.alive()
        with self._changed:
            self._busy.discard(worker)
            if alive and not self._closed:
                self._idle.append(worker)
        if self._closed:
            worker.end()
            self._check_open()
