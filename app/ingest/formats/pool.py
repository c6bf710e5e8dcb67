"""Pool of parser processes, which isolate the memory, time and crashes of files.

Processes live as long as the pool. A process that ended, or had to be killed, fails its current file and is replaced.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO

from app.config.retrieval import IngestSettings
from app.deadline import Deadline
from app.ingest.formats.bounded_file import check_name
from app.ingest.formats.document import parse_file
from app.ingest.formats.limits import Limits
from app.ingest.formats.worker import Parser, Worker, WorkerLost
from app.passage import ParsedDocument

_STARTS = 3
"""Processes that may be lost between two files (killed from outside) before parsing fails as a whole."""


class ParserPool:
    """Parses files in up to `workers` processes. Use it as a context manager; `parse` is thread-safe."""

    def __init__(self, ingest: IngestSettings, workers: int, *, parse: Parser = parse_file) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one is needed")
        self._limits = Limits.of(ingest)
        self._parse = parse
        self._changed = threading.Condition()
        self._room = workers
        self._closed = False
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def parse(self, path: Path, file: IO[bytes] | None = None, *, deadline: Deadline | None = None) -> ParsedDocument:
        """Parse a file. Waits for a free process; the time limit starts when a process has begun with the file.

        `deadline` is the caller's; a process that still works on the file then is killed.

        `file` is the content, `path` then only its name: an upload without a name on disk can't outlive a killed
        service.

        Raises:
            DocumentRejected: the file can't be parsed; `reason` is a code of docs/formats.md.
            DeadlineExceeded: no time is left.
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
        """Return the ids of the current processes."""
        with self._changed:
            return {worker.pid for worker in (*self._idle, *self._busy)}

    def close(self) -> None:
        """Kill the processes; their work is abandoned."""
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
        """Take an idle process or start one; an idle one may have died unnoticed, a `fresh` one has not."""
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
        """Return a process to the idle ones; if the pool was closed meanwhile, the file's outcome does not count."""
        alive = worker.alive()
        with self._changed:
            self._busy.discard(worker)
            if alive and not self._closed:
                self._idle.append(worker)
        if self._closed:
            worker.end()
            self._check_open()
