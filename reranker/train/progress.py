"""Progress display of a distillation: on a terminal a bar for the teacher and one for the steps, else only lines."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class ProgressDisplay:
    """Shows the progress of `distil` on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._label = ""

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def teacher(self, done: int, total: int) -> None:
        """Show the number of queries that the teacher has scored."""
        self._advance("teacher", done, total)

    def steps(self, step: int, steps: int, loss: float) -> None:
        """Show the step and the loss of the training."""
        self._advance("training", step, steps)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def _advance(self, label: str, done: int, total: int) -> None:
        if self._bar is None or self._label != label:
            self._close()
            self._label = label
            self._bar = tqdm(total=total, desc=label, file=sys.stderr, mininterval=1.0, disable=None, leave=False)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
