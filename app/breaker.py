"""Circuit breakers: a part that is away is left alone for a moment, so that no request waits for it in vain.

The states, the counting and the listeners are pybreaker's. Its own `call` holds a lock for as long as the call takes,
which would make all requests of a process wait for each other; here the call runs outside, and only its outcome is
told.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pybreaker

from app import telemetry

_JITTER = 0.25
"""A rest is longer or shorter by up to so much of it, so that workers do not come back all at once."""
_VALUES = {pybreaker.STATE_CLOSED: 0.0, pybreaker.STATE_HALF_OPEN: 0.5, pybreaker.STATE_OPEN: 1.0}


class BreakerOpen(Exception):
    """The part was away a moment ago and is not asked; `retry_after_s` until it is tried again."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name} was away a moment ago; it is tried again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class _Failed(Exception):
    """Tells pybreaker that a call failed."""


class Trial:
    """One call that was let through. Say how it went: `ok`, or `failed`; a call that says nothing counts for nothing.

    Only failures that say the part is away count: no connection, silence for a fair time, a gateway's error. An answer
    that refuses the request is an answer.
    """

    __slots__ = ("_outcome", "_settle", "certain")

    def __init__(self, settle: Callable[[bool], None] | None = None) -> None:
        self._outcome: bool | None = None
        self._settle = settle
        self.certain = False

    def ok(self) -> None:
        """The part answered. Others may call it from now on, even if this call goes on for long."""
        self._outcome = True
        if self._settle is not None:
            self._settle(True)
            self._settle = None

    def failed(self) -> None:
        """The part is away."""
        self._outcome = False

    def gone(self) -> None:
        """Nobody is there at all: no need to look twice."""
        self._outcome = False
        self.certain = True

    @property
    def outcome(self) -> bool | None:
        """True: answered, False: away, None: nothing was learned."""
        return self._outcome


class Breaker:
    """Opens after `failures` on end, and lets one call through when it has rested. Thread-safe; microseconds a call."""

    def __init__(self, name: str, *, failures: int, rest_s: float, label: str | None = None) -> None:
        """Closed at first.

        Args:
            name: for messages.
            failures: so many on end open it.
            rest_s: seconds for which it stays open, give or take a quarter.
            label: of the metrics; `name` if None.
        """
        self.name = name
        self._rest_s = rest_s
        self._until = 0.0
        self._lock = threading.Lock()
        self._trying = False
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=rest_s,
            name=name,
            listeners=[_Metrics(label or name)],
            throw_new_error_on_trip=False,
        )

    @property
    def closed(self) -> bool:
        """Whether calls go through."""
        return self._breaker.current_state == pybreaker.STATE_CLOSED

    @property
    def rested(self) -> bool:
        """Whether the next call would be let through, as any or as a trial."""
        return self.closed or (not self._trying and time.monotonic() >= self._until)

    @contextmanager
    def calling(self) -> Iterator[Trial]:
        """Let a call through, and count how it went.

        Raises:
            BreakerOpen: the part was away a moment ago, or another call is finding out whether it still is.
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
        """Leave the part alone at once, however few failures there were."""
        with self._lock:
            self._rest()
            self._breaker.open()

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
            self._breaker.half_open()
            return True

    def _settle(self, outcome: bool | None) -> None:
        """What the trial found; None: nothing, so that the next call is one."""
        with self._lock:
            self._trying = False
            if outcome is not None and self._breaker.current_state == pybreaker.STATE_HALF_OPEN:
                self._tell(outcome)

    def _count(self, outcome: bool | None) -> None:
        if outcome is False or (outcome and self._breaker.fail_counter):
            with self._lock:
                if self.closed:  # what began before it opened tells nothing new
                    self._tell(outcome)

    def _tell(self, outcome: bool) -> None:
        if outcome:
            self._breaker.call(_nothing)
            return
        try:
            self._breaker.call(_fail)
        except _Failed:
            if not self.closed:
                self._rest()

    def _rest(self) -> None:
        self._until = time.monotonic() + self._rest_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311


class _Metrics(pybreaker.CircuitBreakerListener):
    """Shows the state, and counts the openings."""

    def __init__(self, label: str) -> None:
        self._state = telemetry.BREAKER_STATE.labels(label)
        self._opened = telemetry.BREAKER_OPENED.labels(label)
        self._state.set(0)

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._state.set(_VALUES[new_state.name])
        if new_state.name == pybreaker.STATE_OPEN:
            self._opened.inc()


def _nothing() -> None:
    return


def _fail() -> None:
    raise _Failed
