"""Bounded work: so many requests at once, so many that wait, in order; the others are told at once to come back.

A request that would wait for more than half of its time is refused when it comes, not when its time is over: it could
hardly be answered, and whoever comes after it would wait for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app import telemetry
from app.config import Settings
from app.deadline import Deadline
from app.errors import Overloaded

WAITING = 0.5
"""The share of a request's time that it may spend waiting."""
_ROOM = 1.5
"""Times the mean that must be left for the work itself when a turn comes: what is begun and not ended helps nobody."""
_WEIGHT = 0.1
"""Of the newest time in the mean."""
_LEAST_RETRY_S, _LONGEST_RETRY_S = 0.1, 60.0


@dataclass(slots=True, eq=False)
class _Ticket:
    """A place in the queue."""

    turn: threading.Event = field(default_factory=threading.Event)


def concurrency_of(settings: Settings) -> int:
    """Requests that one process works on at once."""
    return settings.concurrency or max(4, 2 * (os.cpu_count() or 1))


class Admission:
    """One bound for one kind of work in one process. Thread-safe."""

    def __init__(self, concurrency: int, queue: int, *, work: str = "search") -> None:
        """Nothing is under way yet.

        Args:
            concurrency: requests that are worked on at once, 1 or more.
            queue: requests that may wait; 0: none.
            work: label of the metrics.
        """
        self.concurrency = concurrency
        self.queue = queue
        self._lock = threading.Lock()
        self._in_flight = 0
        self._waiting: deque[_Ticket] = deque()
        self._mean_s = 0.0
        self._work = work
        self._shown = telemetry.ADMISSION_IN_FLIGHT.labels(work), telemetry.ADMISSION_WAITING.labels(work)
        self._waited = telemetry.ADMISSION_WAIT.labels(work)

    @classmethod
    def of(cls, settings: Settings) -> Admission:
        """As set: `concurrency` (None: 2 for each core, at least 4) and `queue`."""
        return cls(concurrency_of(settings), settings.queue)

    @property
    def expected_wait_s(self) -> float:
        """Seconds that a request which came now would wait, by what requests have lately taken."""
        with self._lock:
            return self._expected_s()

    @contextmanager
    def enter(self, deadline: Deadline) -> Iterator[None]:
        """Hold a slot for as long as the block takes; wait for one in the order of coming.

        Args:
            deadline: of the request, begun when it came: waiting counts.

        Raises:
            Overloaded: the queue is full, or waiting would take more than half of what is left.
            DeadlineExceeded: nothing is left at all.
        """
        leave = self.take(deadline)
        try:
            yield
        finally:
            leave()

    def take(self, deadline: Deadline) -> Callable[[], None]:
        """As `enter`, for work that ends elsewhere: what is returned gives the slot back, and is called once."""
        began = time.monotonic()
        self._take(deadline)
        started = time.monotonic()
        self._waited.observe(started - began)
        return lambda: self._leave(time.monotonic() - started)

    def _take(self, deadline: Deadline) -> None:
        left = deadline.remaining_s("waiting")
        with self._lock:
            if self._in_flight < self.concurrency and not self._waiting:
                self._in_flight += 1
                self._show()
                return
            expected = self._expected_s()
            if len(self._waiting) >= self.queue:
                raise self._refused("queue-full", f"{len(self._waiting)} requests wait already")
            if expected > left * WAITING or expected + _ROOM * self._mean_s > left:
                raise self._refused("too-late", f"about {expected:.1f} s of waiting would leave too little time")
            ticket = _Ticket()
            self._waiting.append(ticket)
            self._show()
        if ticket.turn.wait(left * WAITING):
            if self._fits(deadline):
                return
            self._pass_on()
            with self._lock:
                raise self._refused("too-late", "it waited until too little time was left")
        with self._lock:
            if ticket.turn.is_set():  # at the last moment
                return
            self._waiting.remove(ticket)
            self._show()
            raise self._refused("too-late", "half of its time went by without a free slot")

    def _fits(self, deadline: Deadline) -> bool:
        """Whether what is left after waiting is likely to be enough."""
        with self._lock:
            return deadline.at - time.monotonic() > _ROOM * self._mean_s

    def _leave(self, seconds: float) -> None:
        with self._lock:
            self._mean_s += (_WEIGHT if self._mean_s else 1.0) * (seconds - self._mean_s)
        self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().turn.set()  # the slot goes from hand to hand
            else:
                self._in_flight -= 1
            self._show()

    def _expected_s(self) -> float:
        if self._in_flight < self.concurrency:
            return 0.0
        return (len(self._waiting) + 1) * self._mean_s / self.concurrency

    def _refused(self, reason: str, why: str) -> Overloaded:
        telemetry.ADMISSION_REFUSED.labels(self._work, reason).inc()
        wait = min(_LONGEST_RETRY_S, max(_LEAST_RETRY_S, self._expected_s()))
        return Overloaded(f"the service is busy: {why}; come back in {wait:.1f} s", retry_after_s=wait)

    def _show(self) -> None:
        in_flight, waiting = self._shown
        in_flight.set(self._in_flight)
        waiting.set(len(self._waiting))
