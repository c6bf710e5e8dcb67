"""One parser process: what runs in it, and the handle by which its parent gives it files, one at a time.

The process is spawned (never forked: its parent has threads), has a bounded address space and is ended by the kernel
when its parent ends. Whatever becomes of it while it has a file is that file's `DocumentRejected`.
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
from app.ingest.parse.limits import Limits
from app.passage import ParsedDocument

Parser = Callable[[Path, Limits, int | None], ParsedDocument]
"""`app.ingest.parse.document.parse_file`, or a test's stand-in: a function at the top of a module."""

_START_S = 60.0
"""A process that has not begun by then is replaced. Starting one takes 0.2 s on an idle machine."""
_FAREWELL_S = 2.0
"""A dying process closes its files before its exit status can be had."""
_FILES_A_PROCESS = 500
"""After so many files a process is replaced: native libraries fragment their memory."""
_MEMORY_SIGNALS = frozenset({signal.SIGABRT, signal.SIGTRAP, signal.SIGILL, signal.SIGKILL})
"""How PDFium and the C++ runtime end when an allocation fails, and how the kernel ends who took too much."""
_children = threading.Lock()
"""multiprocessing's list of children is not made for several threads."""


class WorkerLost(Exception):
    """The process ended, or did not start, before it had begun with the file, which is not to blame."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A DocumentRejected on its way between processes: texts only, because not every exception can be pickled."""

    detail: str
    reason: str


class Worker:
    """A parser process. Used by one thread at a time, but for `end`."""

    def __init__(self, parse: Parser, limits: Limits) -> None:
        """Start the process. Raises OSError where the system has none to give."""
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
        """The parsed document. The time limit counts from when the process has begun with it.

        `file`: a descriptor of the content; without one the process opens `path`. `deadline`: it is ended then.

        Raises:
            DeadlineExceeded: nothing is left.
            DocumentRejected: also where the process was ended for the file, or ended of itself.
            WorkerLost: give the file to another process.
        """
        size = 0
        with contextlib.suppress(OSError):  # the parser says what is wrong with it
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
            raise WorkerLost(_how(self.end())) from error
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
        """Whether the process is still there: it ends of itself now and then, or may be ended from outside."""
        return not wait([self._process.sentinel], 0)

    def end(self) -> int:
        """End the process now, whatever it is doing, from any thread. Returns its exit status."""
        with _children:
            self._process.kill()
        wait([self._process.sentinel])
        with _children:
            self._process.join()
            return self._process.exitcode or 0

    def _ended(self) -> int:
        """The exit status of a process that closed its connection; one that lingers after that is ended."""
        until = time.monotonic() + _FAREWELL_S
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
            f"the parser crashed on it ({_how(code)}): the file is damaged or hostile", reason="broken"
        )


def _how(code: int) -> str:
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit status {code}"


def _serve(connection: Connection, parse: Parser, limits: Limits) -> None:
    """The process: files come, outcomes go, until the parent is gone or a file may have left something behind."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its parsers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the ingest process ignores it, and that is inherited
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()  # a hostile file can have a library remark on it a million times
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
    os._exit(0)  # no farewell: what a broken parser left behind could hang it


def _outcome(parse: Callable[[], ParsedDocument], limits: Limits, size: int) -> tuple[bytes, bool]:
    """The pickled outcome of a file of `size` bytes, and whether the process is as good as before."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    _bound_memory(min(limits.memory_bytes, _address_space() + limits.growth(size)), hard)
    refused = limits.out_of_memory(size)  # made while there is memory to make it
    refusal = _Refusal(refused.detail, refused.reason)
    try:
        return pickle.dumps(parse(), protocol=pickle.HIGHEST_PROTOCOL), True
    except DocumentRejected as error:
        return pickle.dumps(_Refusal(error.detail, error.reason)), True
    except MemoryError:
        pass
    except RecursionError:
        refusal = _Refusal("its parts are nested too deep to be read", "broken")
    except BaseException as error:  # noqa: BLE001 - SystemExit and whatever else a library raises cost one file, too
        refusal = _Refusal(
            f"the parser failed on it ({type(error).__name__}): the file is damaged, or its parser has a defect",
            "parser-failed",
        )
    finally:
        _bound_memory(hard, hard)
    return pickle.dumps(refusal), False


def _bound_memory(soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _address_space() -> int:
    """Bytes of this process's address space, as the kernel counts them for RLIMIT_AS."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends.

    A thread that waits for it would never run beside a regular expression that holds the interpreter, and
    PR_SET_PDEATHSIG speaks of the thread that started us, which may end long before the parent. So the pipe whose
    other end only the parent holds reports by SIGKILL that it was closed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("a parser process is started by multiprocessing alone")
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([pipe], 0):  # it was closed before we listened
        os._exit(1)
