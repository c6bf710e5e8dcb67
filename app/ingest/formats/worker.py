"""Parser process: its main loop, and the handle with which its parent passes it files, one at a time.

The process is spawned (never forked, because its parent has threads), has a limited address space, and is killed by the
kernel when its parent ends. If it dies while it has a file, that file gets a `DocumentRejected`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path

from app.deadline import Deadline
from app.errors import DocumentRejected
from app.ingest.formats.limits import Limits
from app.passage import ParsedDocument

Parser = Callable[[Path, Limits, int | None], ParsedDocument]
"""`app.ingest.formats.document.parse_file`, or a test's replacement: a module-level function."""

_START_S = 60.0
"""Seconds until a process that has not started is replaced. A start takes 0.2 s on an idle machine."""
_EXIT_WAIT_S = 2.0
"""Seconds to wait for the exit status: a dying process closes its files first."""
_FILES_A_PROCESS = 500
"""Number of files after which a process is replaced, because native libraries fragment its memory."""
_MEMORY_SIGNALS = frozenset({signal.SIGABRT, signal.SIGTRAP, signal.SIGILL, signal.SIGKILL})
"""Signals of PDFium and the C++ runtime after a failed allocation, and of the kernel's OOM killer."""
_children = threading.Lock()
"""Lock for multiprocessing's list of children, which is not thread-safe."""


class WorkerLost(Exception):
    """The process ended, or did not start, before it began with the file; the file is not the cause."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A DocumentRejected in transit between processes: texts only, because not every exception can be pickled."""

    detail: str
    reason: str


class Worker:
    """A parser process. For one thread at a time, except `end`."""

    def __init__(self, parse: Parser, limits: Limits) -> None:
        """Start the process. Raises OSError if the system can't."""
        context = multiprocessing.get_context("spawn")
        self._limits = limits
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, parse, limits), name="braid-parser", daemon=True)
        with theirs, _children:
            self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def parse(self, path: Path, file: int | None = None, deadline: Deadline | None = None) -> ParsedDocument:
        """Parse a file. The time limit starts when the process has begun with it.

        `file` is a descriptor of the content; without one the process opens `path`. The process is killed at
        `deadline`.

        Raises:
            DeadlineExceeded: no time is left.
            DocumentRejected: also if the process was killed for the file, or ended by itself.
            WorkerLost: the file must go to another process.
        """
        size = 0
        with contextlib.suppress(OSError):  # the parser reports the error
            size = os.stat(path if file is None else file).st_size
        try:
            self._connection.send((path, size, file is not None))
            if file is not None:
                send_handle(self._connection, file, self.pid)
            if not self._connection.poll(_START_S):
                self.end()
                raise WorkerLost(f"it did not start within {_START_S:g} s")
            self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerLost(_describe_exit(self.end())) from error
        limit = self._limits.timeout_s
        if not self._connection.poll(
            limit if deadline is None else min(limit, max(0.0, deadline.at - time.monotonic()))
        ):
            self.end()
            if deadline is not None:
                deadline.remaining_s("parsing")
            raise DocumentRejected(
                f"parsing took longer than {self._limits.timeout_s:g} s: split the file, or raise "
                f"BRAID_INGEST_PARSE_TIMEOUT_S",
                reason="too-slow",
            )
        try:
            outcome = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._crashed(self._ended(), size) from error
        if isinstance(outcome, _Refusal):
            raise DocumentRejected(outcome.detail, reason=outcome.reason)
        parsed: ParsedDocument = outcome
        return parsed

    def alive(self) -> bool:
        """Return whether the process is alive: it may end by itself or be killed from outside."""
        return not wait([self._process.sentinel], 0)

    def end(self) -> int:
        """Kill the process, from any thread. Returns its exit status."""
        with _children:
            self._process.kill()
        wait([self._process.sentinel])
        with _children:
            self._process.join()
            return self._process.exitcode or 0

    def _ended(self) -> int:
        """Return the exit status of a process that closed its connection; kill it if it lingers."""
        until = time.monotonic() + _EXIT_WAIT_S
        while time.monotonic() < until:
            with _children:
                code = self._process.exitcode
            if code is not None:
                return code
            time.sleep(0.005)
        self.end()
        return 0

    def _crashed(self, code: int, size: int) -> DocumentRejected:
        if -code in _MEMORY_SIGNALS:
            return self._limits.out_of_memory(size)
        return DocumentRejected(
            f"the parser crashed on it ({_describe_exit(code)}): the file is damaged or hostile", reason="broken"
        )


def _describe_exit(code: int) -> str:
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit status {code}"


def _serve(connection: Connection, parse: Parser, limits: Limits) -> None:
    """Run the process: receive files, send outcomes, until the parent is gone or a file may have
    left something behind.
    """
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its parsers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the ingest process ignores it, and the disposition is inherited
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()  # a hostile file can make a library log a million messages
    at_start = _address_space()
    for _ in range(_FILES_A_PROCESS):
        path, size, sent = connection.recv()
        file = recv_handle(connection) if sent else None
        connection.send_bytes(b"begun")
        try:
            outcome, clean = _outcome(partial(parse, path, limits, file), limits, size)
        finally:
            if file is not None:
                os.close(file)
        connection.send_bytes(outcome)
        del outcome
        if not clean or _address_space() > at_start + limits.growth(0):
            break
    os._exit(0)  # exit at once: leftovers of a broken parser could hang a regular exit


def _outcome(parse: Callable[[], ParsedDocument], limits: Limits, size: int) -> tuple[bytes, bool]:
    """Return the pickled outcome of a file of `size` bytes, and whether the process is still in a clean state."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    _bound_memory(min(limits.memory_bytes, _address_space() + limits.growth(size)), hard)
    refused = limits.out_of_memory(size)  # created while there is memory for it
    refusal = _Refusal(refused.detail, refused.reason)
    try:
        return pickle.dumps(parse(), protocol=pickle.HIGHEST_PROTOCOL), True
    except DocumentRejected as error:
        return pickle.dumps(_Refusal(error.detail, error.reason)), True
    except MemoryError:
        pass
    except RecursionError:
        refusal = _Refusal("its parts are nested too deeply", "broken")
    except BaseException as error:  # noqa: BLE001 - SystemExit and any other error of a library costs only this file
        refusal = _Refusal(
            f"the parser failed on it ({type(error).__name__}): the file is damaged, or its parser has a bug",
            "parser-failed",
        )
    finally:
        _bound_memory(hard, hard)
    return pickle.dumps(refusal), False


def _bound_memory(soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Return the bytes of this process's address space, as the kernel counts them for RLIMIT_AS."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends.

    A watching thread would never run beside a regular expression that holds the interpreter lock, and PR_SET_PDEATHSIG
    refers to the thread that started us, which may end long before the parent. So a pipe whose other end only the
    parent holds sends SIGKILL when it is closed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("a parser process must be started by multiprocessing")
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([pipe], 0):  # it was closed before the signal was set up
        os._exit(1)
