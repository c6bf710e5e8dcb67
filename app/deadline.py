"""A request's time budget."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment (monotonic seconds) at which a request must have ended, and the budget it was given (ms)."""

    at: float
    budget_ms: int

    @classmethod
    def after(cls, budget_ms: int, since: float | None = None) -> Deadline:
        """So long after `since` (of `time.monotonic`), or after now."""
        return cls((time.monotonic() if since is None else since) + budget_ms / 1000, budget_ms)

    def part(self, share: float) -> Deadline:
        """The earlier moment that leaves what comes afterwards `1 - share` of the time from now on."""
        now = time.monotonic()
        return Deadline(now + max(0.0, self.at - now) * share, self.budget_ms)

    def remaining_s(self, stage: str) -> float:
        """Seconds left, never 0 or less.

        Raises:
            DeadlineExceeded: nothing is left for `stage`.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"timeout_ms={self.budget_ms} was spent before the stage {stage!r}; ask again with a larger timeout_ms"
            )
        return left
