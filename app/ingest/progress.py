"""Progress of an ingest run: silent, or a bar on the terminal."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class IngestProgress:
    """Receives the progress of a run, and shows nothing; called from several threads."""

    def found(self, documents: int) -> None:
        """Report further documents to process."""

    def done(self, documents: int) -> None:
        """Report further documents as finished: written, unchanged or failed."""

    def stored(self, passages: int) -> None:
        """Report further passages as stored."""

    def note(self, message: str) -> None:
        """Show a message at once, such as that the cluster is unavailable."""


def new_bar(console: Console, unit: str) -> Progress:
    """Return a bar that counts `unit`; it shows nothing if the console is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


class ProgressBar(IngestProgress):
    """One bar on standard error; without a terminal only the notes. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = new_bar(console, "documents, {task.fields[passages]} passages")
        self._task = self._bar.add_task("Ingesting", total=None, passages=0)
        self._found = 0
        self._passages = 0
        self._last_note = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
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
