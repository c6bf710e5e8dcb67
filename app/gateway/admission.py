"""Admission control: limits the running and waiting requests of one process.

Requests run in order of arrival. A request is rejected (429) on arrival if the queue is full or if its expected wait
exceeds half of its remaining time: it would only delay requests that can still finish.
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
from app.config.service import LimitSettings
from app.deadline import Deadline
from app.errors import Overloaded

WAITING = 0.5
"""Maximum share of a request's time for waiting."""
_WORK_MARGIN = 1.5
"""Time that must remain for the work when a slot becomes free, as a multiple of the mean:
unfinished work helps nobody."""
_WEIGHT = 0.1
"""Weight of the newest time in the mean."""
_LEAST_RETRY_S, _LONGEST_RETRY_S = 0.1, 60.0


@dataclass(slots=True, eq=False)
class _Ticket:
    """A place in the queue."""

    turn: threading.Event = field(default_factory=threading.Event)


def concurrency_of(limits: LimitSettings) -> int:
    """Return the number of requests that one process runs concurrently."""
    return limits.concurrency or max(4, 2 * (os.cpu_count() or 1))


class Admission:
    """One limit for one kind of work in one process. Thread-safe."""

    def __init__(self, concurrency: int, queue: int, *, work: str = "search") -> None:
        """Create an idle admission control.

        Args:
            concurrency: number of concurrent requests, 1 or more.
            queue: maximum number of waiting requests; 0: none.
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
    def of(cls, limits: LimitSettings) -> Admission:
        """Create from the settings `concurrency` (None: 2 per core, at least 4) and `queue`."""
        return cls(concurrency_of(limits), limits.queue)

    @property
    def is_busy(self) -> bool:
        """Return whether all slots are taken."""
        return self._in_flight >= self.concurrency

    @property
    def expected_wait_s(self) -> float:
        """Expected waiting seconds of a new request, from recent times."""
        with self._lock:
            return self._expected_s()

    @contextmanager
    def enter(self, deadline: Deadline) -> Iterator[None]:
        """Hold a slot for the duration of the block; wait for one in order of arrival.

        Args:
            deadline: deadline of the request from its arrival: waiting counts.

        Raises:
            Overloaded: the queue is full, or waiting would take more than half of the remaining time.
            DeadlineExceeded: no time is left.
        """
        leave = self.take(deadline)
        try:
            yield
        finally:
            leave()

    def take(self, deadline: Deadline) -> Callable[[], None]:
        """Take a slot like `enter`, for work that ends elsewhere; call the result once to release the slot."""
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
                raise self._refused("queue-full", f"{len(self._waiting)} requests are already waiting")
            if expected > left * WAITING or expected + _WORK_MARGIN * self._mean_s > left:
                raise self._refused("too-late", f"about {expected:.1f} s of waiting would leave too little time")
            ticket = _Ticket()
            self._waiting.append(ticket)
            self._show()
        if ticket.turn.wait(left * WAITING):
            if self._fits(deadline):
                return
            self._hand_over()
            with self._lock:
                raise self._refused("too-late", "it waited until too little time was left")
        with self._lock:
            if ticket.turn.is_set():  # at the last moment
                return
            self._waiting.remove(ticket)
            self._show()
            raise self._refused("too-late", "half of its time went by without a free slot")

    def _fits(self, deadline: Deadline) -> bool:
        """Return whether the time after waiting probably suffices."""
        with self._lock:
            return deadline.at - time.monotonic() > _WORK_MARGIN * self._mean_s

    def _leave(self, seconds: float) -> None:
        with self._lock:
            self._mean_s += (_WEIGHT if self._mean_s else 1.0) * (seconds - self._mean_s)
        self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().turn.set()  # the slot passes directly to the next request
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
