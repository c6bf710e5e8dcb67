"""How an ingest run tells how far it is: the protocol, one that is silent, and a bar on the terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class IngestProgress(Protocol):
    """Called from several threads."""

    def found(self, documents: int) -> None:
        """So many more documents are coming."""

    def done(self, documents: int) -> None:
        """So many more documents are dealt with: written, unchanged or failed."""

    def stored(self, passages: int) -> None:
        """So many more passages are in the store."""

    def note(self, message: str) -> None:
        """Something that a watcher should know now, such as a cluster that is away."""


class Silent:
    """Tells nobody."""

    def found(self, documents: int) -> None: ...
    def done(self, documents: int) -> None: ...
    def stored(self, passages: int) -> None: ...
    def note(self, message: str) -> None: ...


class ProgressBar:
    """One bar on standard error; nothing but the notes where that is not a terminal. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("documents, {task.fields[passages]} passages"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("Ingesting", total=None, passages=0)
        self._found = 0
        self._passages = 0
        self._last_note = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def found(self, documents: int) -> None:
        self._found += documents
        self._bar.update(self._task, total=self._found)

    def done(self, documents: int) -> None:
        self._bar.advance(self._task, documents)

    def stored(self, passages: int) -> None:
        self._passages += passages
        self._bar.update(self._task, passages=self._passages)

    def note(self, message: str) -> None:
        if message != self._last_note:
            self._last_note = message
            self._console.print(message, style="yellow", markup=False)
