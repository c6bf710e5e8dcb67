"""A parser that does what its file says: all ways in which a parser can fail its process. It runs in real ones."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

from app.errors import DocumentRejected
from app.ingest.formats import Limits, parse_file
from app.passage import ParsedDocument, SourceType

SECRET = "the content of the document"


class Unpicklable(Exception):
    """Can be pickled, but not unpickled; says the content."""

    def __init__(self, one: str, two: object) -> None:
        super().__init__(one)
        self.held = lambda: two


class Mute(BaseException):
    """Breaks whoever asks it for words, and is no Exception."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__

    def __reduce__(self) -> str:
        raise RuntimeError("no pickle")


def fail(error: BaseException) -> NoReturn:
    raise error


def recurse() -> None:
    recurse()


def hold_the_interpreter() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    re.match("(a*)*b", "a" * 80)


def allocate_much() -> None:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def allocate_little() -> None:
    held = []
    while True:
        held.append(bytes(500))


def return_rubbish() -> ParsedDocument:
    return cast(ParsedDocument, lambda: None)


Act = Callable[[], object]

RAISES: dict[str, Act] = {
    "ValueError": lambda: fail(ValueError(SECRET)),
    "Unpicklable": lambda: fail(Unpicklable(SECRET, object())),
    "Mute": lambda: fail(Mute()),
    "OSError": lambda: fail(OSError(5, SECRET)),
    "EOFError": lambda: fail(EOFError()),
    "StopIteration": lambda: fail(StopIteration()),
    "SystemExit": lambda: fail(SystemExit(0)),
    "KeyboardInterrupt": lambda: fail(KeyboardInterrupt()),
    "GeneratorExit": lambda: fail(GeneratorExit()),
    "ExceptionGroup": lambda: fail(ExceptionGroup("many", [ValueError(SECRET)])),
}
"""Named after the exception."""
ENDS: dict[str, Act] = {
    "exit 0": lambda: os._exit(0),
    "exit 7": lambda: os._exit(7),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "all descriptors closed": lambda: os.closerange(0, 1000),
}
TAKES_ALL: dict[str, Act] = {
    "allocates much": allocate_much,
    "allocates little": allocate_little,
    "MemoryError": lambda: fail(MemoryError()),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
}
HANGS: dict[str, Act] = {
    "holds the interpreter": hold_the_interpreter,
    "sleeps": lambda: time.sleep(3600),
    "is stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
OTHERS: dict[str, Act] = {
    "rejects": lambda: fail(DocumentRejected("it is not to my taste", reason="empty")),
    "recurses": recurse,
    "rubbish": return_rubbish,
}
ACTS = RAISES | ENDS | TAKES_ALL | HANGS | OTHERS


def timed(path: Path, limits: Limits, handle: int | None = None) -> ParsedDocument:
    """A document whose title says how many seconds of processor time the file's own took."""
    begun = time.process_time()
    with contextlib.suppress(DocumentRejected):
        parse_file(path, limits, handle)
    return ParsedDocument(repr(time.process_time() - begun), (), SourceType.TEXT)


def misbehave(path: Path, limits: Limits, handle: int | None = None) -> ParsedDocument:
    """Do what the file says, or parse it where it says none of it."""
    said = (
        os.pread(handle, 100, 0).decode(errors="replace") if handle is not None else path.read_text("utf-8", "replace")
    )
    act = ACTS.get(said)
    if act is None:
        return parse_file(path, limits, handle)
    made = act()
    return cast(ParsedDocument, made) if made is not None else parse_file(path, limits, handle)
