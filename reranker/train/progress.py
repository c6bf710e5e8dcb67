"""Progress of a distillation on a terminal: a bar for the teacher, one for the steps; in a file only the lines."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Shown:
    """What `distil` is told, shown on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._label = ""

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def say(self, line: str) -> None:
        """A line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def teacher(self, done: int, total: int) -> None:
        """Queries that the teacher has scored."""
        self._to("teacher", done, total)

    def steps(self, step: int, steps: int, loss: float) -> None:
        """Steps of the training."""
        self._to("training", step, steps)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def _to(self, label: str, done: int, total: int) -> None:
        if self._bar is None or self._label != label:
            self._close()
            self._label = label
            self._bar = tqdm(total=total, desc=label, file=sys.stderr, mininterval=1.0, disable=None, leave=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
