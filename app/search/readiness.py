"""Knows whether the cluster is this service's own: asked anew beside the searches, so that it costs them no time.

A search that finds the last check older than `max_age_s` starts one, runs, and waits for that check before its answer
leaves: an altered pipeline or template is never older than that when an answer built on it is given. One that finds it
half as old starts the next and does not wait: under load, no search does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from app.errors import StoreNotReady, StoreReadOnly
from app.tuning import SHIPPED, Tuning


@dataclass(frozen=True, slots=True)
class StoreState:
    """What one check found: `differences` in words (empty: ready), primary `shards` behind the alias, the tuning."""

    differences: tuple[str, ...]
    shards: int
    native_rrf_across_shards: bool
    tuning: Tuning = SHIPPED
    identity: str = ""
    """Of the indexes behind the alias: another one when an index took another's place."""
    read_only: str | None = None
    """Why nothing is written, and what to do about it: an older Braid made an index. None: writes are taken."""


class ReadinessGate:
    """Shares one check among all requests that come while it runs. Thread-safe."""

    def __init__(self, check: Callable[[], StoreState], executor: Executor, *, max_age_s: float = 0.5) -> None:
        self._check = check
        self._executor = executor
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._running: Future[StoreState] | None = None
        self._last: StoreState | None = None
        self._checked_at = float("-inf")
        self._good: StoreState | None = None
        self._good_at = float("-inf")

    def known_good(self, within_s: float) -> bool:
        """Whether the last check that came to a result found nothing, and began at most `within_s` seconds ago."""
        with self._lock:
            return self._good is not None and time.monotonic() - self._good_at <= within_s

    def begin(self) -> Future[StoreState]:
        """The check that the coming answer must wait for: the last one if it is recent, else a new or running one."""
        with self._lock:
            age = time.monotonic() - self._checked_at
            recent = self._last if age <= self._max_age_s else None
            if recent is None or age > self._max_age_s / 2:
                self._running = self._running or self._executor.submit(self._run)
            if recent is None:
                assert self._running is not None  # noqa: S101 - started above
                return self._running
            done: Future[StoreState] = Future()
            done.set_result(recent)
            return done

    def state(self, check: Future[StoreState], timeout_s: float) -> StoreState:
        """The state to plan with: the last good one at once, else what `check` finds.

        A cluster that could not be asked a moment ago is planned for as it was: whether it may be is settled by whoever
        waits for `check` in the end.

        Raises:
            StoreNotReady: the cluster differs from this service.
            StoreError: the cluster can't be asked.
        """
        with self._lock:
            last = self._last or self._good
        if last is None or last.differences:
            return require_ready(check.result(timeout_s))
        return last

    def _run(self) -> StoreState:
        started = time.monotonic()
        found: StoreState | None = None
        try:
            found = self._check()
            return found
        finally:
            with self._lock:
                self._last, self._checked_at, self._running = found, started, None
                if found is not None:
                    self._good, self._good_at = (None if found.differences else found), started


def require_ready(state: StoreState) -> StoreState:
    """Raise StoreNotReady, naming every difference, unless there is none."""
    if state.differences:
        shown = "; ".join(state.differences[:5])
        more = f"; and {len(state.differences) - 5} more" if len(state.differences) > 5 else ""
        raise StoreNotReady(
            f"the cluster differs from what this service needs: {shown}{more}. "
            "See `braid templates diff`; `braid templates apply` puts it right"
        )
    return state


def require_writable(state: StoreState) -> StoreState:
    """Raise StoreReadOnly where an index is only searched; StoreNotReady as `require_ready`."""
    require_ready(state)
    if state.read_only is not None:
        raise StoreReadOnly(state.read_only)
    return state
