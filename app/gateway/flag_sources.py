"""Where flags come from while the service runs: a file that is watched, or a flagd server (`flag_server`).

Whatever comes is checked by `flag_file.parse` before it counts. What is broken is refused as a whole: the flags stay
as they were, and a warning stays until something usable comes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from app import telemetry
from app.errors import InvalidInput
from app.gateway.flag_file import FlagSet, parse, read, read_usable, shipped

Apply = Callable[[FlagSet, Mapping[str, Any]], None]
"""Takes flags, and the attributes that the source adds to every caller's."""

_log = logging.getLogger("braid.flags")
_POLL_S = 1.0
_END_S = 5.0


class Source:
    """The flags that ship with Braid: they never change. Base of those that do."""

    name = "shipped with Braid"

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._warning: str | None = None
        self._seen: tuple[bytes, Mapping[str, Any]] | None = None
        self._usable = True
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Apply the first flags, and watch for others from now on. Raises ConfigurationError."""
        self._apply(shipped(), {})

    def warning(self) -> str | None:
        """What is wrong with the source, for ``/readyz``: without paths, addresses or what the flags say."""
        return self._warning

    def close(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _start(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="braid-flags", daemon=True)
        self._thread.start()

    def _offer(self, content: bytes, attributes: Mapping[str, Any], refusal: str, *, shared: bool) -> bool:
        """Apply `content` if it is usable, else warn of `refusal`; does nothing when it is what was offered before."""
        if (content, attributes) == self._seen:
            return self._usable
        self._seen = (content, attributes)
        try:
            self._apply(parse(content, shared=shared), attributes)
        except InvalidInput as error:
            self._usable = False
            self._warn("refused", refusal, error.detail)
            return False
        self._usable = True
        telemetry.FLAG_SETS.labels("applied").inc()
        if self._warning is not None:
            _log.info("feature flags: %s: usable again", self.name)
        self._warning = None
        return True

    def _warn(self, outcome: Literal["refused", "unreachable"], warning: str, detail: str) -> None:
        telemetry.FLAG_SETS.labels(outcome).inc()
        if outcome == "refused" or warning != self._warning:
            _log.warning("feature flags: %s: %s; the flags stay as they were", self.name, detail)
        self._warning = warning


_REFUSED = (
    "the file of feature flags can't be used: the flags stay as they were (`braid flags validate` says what is wrong)"
)


class FileSource(Source):
    """A flagd file. It is small, so it is simply read again: times of files tell too little (a copy keeps an old one,
    two writes may share one)."""

    def __init__(self, path: Path, apply: Apply) -> None:
        super().__init__(apply)
        self.name = f"the file {path}"
        self._path = path

    def open(self) -> None:
        content, flags = read_usable(self._path)
        self._apply(flags, {})
        self._seen = (content, {})
        self._start(self._watch)

    def look(self) -> None:
        """Read the file, and apply it if it is another than before."""
        try:
            content = read(self._path)
        except InvalidInput as error:
            if self._seen is not None:  # named once, not each second
                self._seen = None
                self._warn("refused", _REFUSED, error.detail)
            return
        self._offer(content, {}, _REFUSED, shared=False)

    def _watch(self) -> None:
        while not self._stopped.wait(_POLL_S):
            self.look()
