"""Fair shares of limited amounts (places, bytes); excess requests are rejected at once.

A caller may hold as much as it leaves free: half of the total when alone, less the more others hold. So no caller can
take everything, however much it sends, and a new caller always finds room.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable

from app import telemetry
from app.errors import Overloaded


class Hold:
    """A part of a limited amount; returned by the first `release`, from any thread."""

    def __init__(self, shares: Shares, owner: Hashable, amount: int) -> None:
        self._shares: Shares | None = shares
        self._owner = owner
        self._amount = amount
        self._lock = threading.Lock()

    def release(self) -> None:
        """Return the part; further calls do nothing."""
        with self._lock:
            shares, self._shares = self._shares, None
        if shares is not None:
            shares._give_back(self._owner, self._amount)


class Shares:
    """One limited amount of one process. Thread-safe."""

    def __init__(self, total: int, *, work: str, what: str, retry_after_s: float = 1.0) -> None:
        """Create with everything free.

        Args:
            what: its unit in words with the limiting setting, for errors.
        """
        self.total = total
        self._work = work
        self._what = what
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self._held: Counter[Hashable] = Counter()
        self._shown = telemetry.WRITE_BOUNDS_HELD.labels(work)

    @property
    def used(self) -> int:
        """Amount held now."""
        with self._lock:
            return self._held.total()

    def take(self, owner: Hashable, amount: int = 1) -> Hold:
        """Take `amount` without waiting.

        Raises:
            Overloaded: too little is left, or the owner would hold more than it leaves free.
        """
        with self._lock:
            free = self.total - self._held.total() - amount
            own = self._held[owner]
            if free < 0 or (own and own + amount > free):
                telemetry.ADMISSION_REFUSED.labels(self._work, "queue-full" if free < 0 else "share").inc()
                whose = "in all" if free < 0 else "by one caller"
                raise Overloaded(
                    f"the service is busy: too many {self._what} are under way {whose}; "
                    f"retry in {self._retry_after_s:g} s",
                    retry_after_s=self._retry_after_s,
                )
            self._held[owner] += amount
            self._shown.set(self._held.total())
        return Hold(self, owner, amount)

    def _give_back(self, owner: Hashable, amount: int) -> None:
        with self._lock:
            self._held[owner] -= amount
            if not self._held[owner]:
                del self._held[owner]
            self._shown.set(self._held.total())
