"""Runs parsers in processes of their own, so that a file can take no more than its memory, its time and its worker.

Workers are spawned (never forked: the caller has threads), live as long as the pool, and end with their parent however
that ends. Pebble keeps them: it stops the worker whose task ran out of time, and starts another in its place.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType

from pebble import ProcessExpired, ProcessPool

from app.errors import DocumentRejected
from app.ingest.parse.document import parse_file
from app.ingest.parse.files import check_name
from app.ingest.parse.limits import Limits, _IngestSettings, megabytes
from app.passage import ParsedDocument

_FILES_A_WORKER = 500
"""After so many files a worker is replaced: native libraries fragment their memory."""
_MEMORY_SIGNALS = frozenset({signal.SIGABRT, signal.SIGTRAP, signal.SIGILL, signal.SIGKILL})
"""How PDFium and the C++ runtime end when an allocation fails, and how the kernel ends who took too much."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A DocumentRejected on its way between processes (exceptions with keyword arguments don't pickle)."""

    detail: str
    reason: str


class ParserPool:
    """Parses files in worker processes. Use it as a context manager; `parse` may be called from any thread."""

    def __init__(self, settings: _IngestSettings, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one is needed")
        self._limits = Limits.of(settings)
        self._workers = workers
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ProcessPool | None = None

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def parse(self, path: Path) -> ParsedDocument:
        """The parsed document. Waits for a free worker; the time limit counts from when one has begun.

        Raises:
            DocumentRejected: whatever is wrong with the file, `reason` being one of docs/formats.md.
            RuntimeError: the pool is closed.
        """
        check_name(path)
        for attempt in range(2):
            pool = self._running()
            try:
                future = pool.schedule(_work, args=(path, self._limits), timeout=self._limits.timeout_s)
                outcome = future.result()
            except FutureTimeout as error:
                raise DocumentRejected(
                    f"parsing took longer than {self._limits.timeout_s:g} s: split the file, or raise "
                    f"BRAID_INGEST_PARSE_TIMEOUT_S",
                    reason="too-slow",
                ) from error
            except ProcessExpired as error:
                raise self._crashed(error.exitcode) from error
            except (BrokenProcessPool, RuntimeError):
                # an idle worker was killed from outside, which ends a pebble pool: the file is not to blame
                if attempt or self._closed:
                    raise
                self._discard(pool)
                continue
            if isinstance(outcome, _Refusal):
                raise DocumentRejected(outcome.detail, reason=outcome.reason)
            return outcome
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Stop the workers; whatever they are doing is abandoned."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()

    def _running(self) -> ProcessPool:
        with self._lock:
            if self._closed:
                raise RuntimeError("the parser pool is closed")
            if self._pool is None:
                self._pool = ProcessPool(
                    max_workers=self._workers,
                    max_tasks=_FILES_A_WORKER,
                    initializer=_start_worker,
                    initargs=(self._limits.memory_bytes,),
                    context=multiprocessing.get_context("spawn"),
                )
            return self._pool

    def _discard(self, pool: ProcessPool) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()

    def _crashed(self, code: int) -> DocumentRejected:
        if -code in _MEMORY_SIGNALS:
            return _out_of_memory(self._limits)
        what = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit status {code}"
        return DocumentRejected(f"the parser crashed on it ({what}): the file is damaged or hostile", reason="broken")


def _out_of_memory(limits: Limits) -> DocumentRejected:
    return DocumentRejected(
        f"parsing needs more memory than {megabytes(limits.memory_bytes)}: split the file, or raise "
        f"BRAID_INGEST_PARSE_MEMORY_BYTES",
        reason="out-of-memory",
    )


def _work(path: Path, limits: Limits) -> ParsedDocument | _Refusal:
    """One file, in the worker."""
    try:
        return parse_file(path, limits=limits)
    except DocumentRejected as error:
        return _Refusal(error.detail, error.reason)
    except MemoryError:
        refused = _out_of_memory(limits)
        return _Refusal(refused.detail, refused.reason)
    except RecursionError:
        return _Refusal("its parts are nested too deep to be read", "broken")


def _start_worker(memory_bytes: int) -> None:
    """Limits of a worker, set in the worker before it sees a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which stops its workers
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
