"""Time budget of a request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from app.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment (monotonic seconds) at which a request must end, and its budget (ms)."""

    at: float
    budget_ms: int

    @classmethod
    def after(cls, budget_ms: int, since: float | None = None) -> Self:
        """Create a deadline `budget_ms` after `since` (of `time.monotonic`), or after now."""
        return cls((time.monotonic() if since is None else since) + budget_ms / 1000, budget_ms)

    def part(self, share: float) -> Deadline:
        """Return an earlier deadline that leaves the share `1 - share` of the remaining time for later work."""
        now = time.monotonic()
        return Deadline(now + max(0.0, self.at - now) * share, self.budget_ms)

    def remaining_s(self, stage: str) -> float:
        """Return the seconds left, always above 0.

        Raises:
            DeadlineExceeded: no time is left for `stage`.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise self.exceeded(stage)
        return left

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """Return the error for no time left for `stage`."""
        return DeadlineExceeded(
            f"timeout_ms={self.budget_ms} was spent before the stage {stage!r}: retry with a larger timeout_ms"
        )


@dataclass(frozen=True, slots=True)
class WriteDeadline(Deadline):
    """The deadline of a write, given by a setting. Valid in all processes of the machine, since its clock is."""

    setting: str = "BRAID_WRITE_TIMEOUT_S"

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """Return the error as `Deadline.exceeded`; a write that has begun may be completed although nobody waits for
        it.
        """
        return DeadlineExceeded(
            f"{self.setting}={self.budget_ms / 1000:g} was spent before the stage {stage!r} had ended; "
            "it may have been completed: send it again"
        )
