"""Circuit breakers: an unavailable part is not called for a moment, so that requests do not wait for it in vain.

Closed: calls pass, consecutive failures are counted. Open: no call passes until the rest is over. Half-open: one call,
the trial, decides (Nygard, Release It!, 2007). No lock is held during a call.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app import telemetry

_JITTER = 0.25
"""Random variation of a rest, as a share of it, so that workers do not return all at once."""
_CLOSED, _HALF_OPEN, _OPEN = 0.0, 0.5, 1.0
"""The states as values of the metric."""


class BreakerOpen(Exception):
    """The part was unavailable a moment ago and is not called; the next try is in `retry_after_s` seconds."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name} was unavailable a moment ago; the next try is in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class Trial:
    """One call that passed. Report its outcome with `ok` or `failed`; a call without a report does not count.

    Only failures that show the part is unavailable count: no connection, silence for a fair time, a gateway's error. An
    answer that rejects the request is an answer.
    """

    __slots__ = ("_outcome", "_settle", "certain")

    def __init__(self, settle: Callable[[bool], None] | None = None) -> None:
        self._outcome: bool | None = None
        self._settle = settle
        self.certain = False

    def ok(self) -> None:
        """Report that the part answered. Others may call it from now on, even if this call continues for long."""
        self._outcome = True
        if self._settle is not None:
            self._settle(True)
            self._settle = None

    def failed(self) -> None:
        """Report that the part is unavailable."""
        self._outcome = False

    def gone(self) -> None:
        """Report that nothing listens there: the breaker opens at once."""
        self._outcome = False
        self.certain = True

    @property
    def outcome(self) -> bool | None:
        """True: answered; False: unavailable; None: unknown."""
        return self._outcome


class Breaker:
    """Opens after `failures` in a row, and lets one call pass after its rest. Thread-safe; costs
    microseconds per call.
    """

    def __init__(self, name: str, *, failures: int, rest_s: float, label: str | None = None) -> None:
        """Create a closed breaker.

        Args:
            name: name in messages.
            failures: number of consecutive failures that open it.
            rest_s: seconds for which it stays open, plus or minus a quarter.
            label: label of the metrics; None: `name`.
        """
        self.name = name
        self._rest_s = rest_s
        self._until = 0.0
        self._lock = threading.Lock()
        self._trying = False
        self._failures = failures
        self._failed = 0
        self._state = _CLOSED
        self._shown = telemetry.BREAKER_STATE.labels(label or name)
        self._opened = telemetry.BREAKER_OPENED.labels(label or name)
        self._shown.set(_CLOSED)

    @property
    def closed(self) -> bool:
        """Return whether calls pass."""
        return self._state == _CLOSED

    @property
    def rested(self) -> bool:
        """Return whether the next call would pass, normally or as a trial."""
        return self.closed or (not self._trying and time.monotonic() >= self._until)

    @contextmanager
    def calling(self) -> Iterator[Trial]:
        """Let a call pass and count its outcome.

        Raises:
            BreakerOpen: the part was unavailable a moment ago, or another call is the trial.
        """
        trial = self._begin_trial()
        call = Trial(self._settle if trial else None)
        try:
            yield call
        finally:
            if trial and call.outcome is not True:
                self._settle(call.outcome)
            elif not trial:
                self._count(call.outcome)
            if call.certain:
                self.open()

    def open(self) -> None:
        """Open the breaker at once, however few failures there were."""
        with self._lock:
            self._move(_OPEN)

    def _begin_trial(self) -> bool:
        if self.closed:
            return False
        with self._lock:
            if self.closed:
                return False
            left = self._until - time.monotonic()
            if self._trying or left > 0:
                raise BreakerOpen(self.name, max(left, 0.1))
            self._trying = True
            self._move(_HALF_OPEN)
            return True

    def _settle(self, outcome: bool | None) -> None:
        """Apply the trial's outcome; None: unknown, so that the next call is a trial."""
        with self._lock:
            self._trying = False
            if outcome is not None and self._state == _HALF_OPEN:
                self._move(_CLOSED if outcome else _OPEN)

    def _count(self, outcome: bool | None) -> None:
        if outcome is False or (outcome and self._failed):
            with self._lock:
                if not self.closed:  # calls that began before it opened carry no news
                    return
                self._failed = 0 if outcome else self._failed + 1
                if self._failed >= self._failures:
                    self._move(_OPEN)

    def _move(self, state: float) -> None:
        """Enter a state; the caller holds the lock."""
        if state == _OPEN:
            self._until = time.monotonic() + self._rest_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
            self._opened.inc()
        self._failed = 0
        self._state = state
        self._shown.set(state)
