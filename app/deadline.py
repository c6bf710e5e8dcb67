"""A request's time budget."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from app.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment (monotonic seconds) at which a request must have ended, and the budget it was given (ms)."""

    at: float
    budget_ms: int

    @classmethod
    def after(cls, budget_ms: int, since: float | None = None) -> Self:
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
            raise self.exceeded(stage)
        return left

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """The error that says that nothing is left for `stage`."""
        return DeadlineExceeded(
            f"timeout_ms={self.budget_ms} was spent before the stage {stage!r}; ask again with a larger timeout_ms"
        )


@dataclass(frozen=True, slots=True)
class WriteDeadline(Deadline):
    """The deadline of a write, which a setting gives. It holds in all processes of the machine, as its clock does."""

    setting: str = "BRAID_WRITE_TIMEOUT_S"

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """As `Deadline.exceeded`; a write that has begun may be carried out although nobody waits for it."""
        return DeadlineExceeded(
            f"{self.setting}={self.budget_ms / 1000:g} was spent before the stage {stage!r} had ended; "
            "it may have been carried out: send it again"
        )
