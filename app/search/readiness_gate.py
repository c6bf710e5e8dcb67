"""Readiness: whether the cluster belongs to this service, checked in parallel with searches so that it costs no time.

A search that finds the last check older than `max_age_s` starts one, runs, and waits for that check before it answers,
so that an answer never relies on an older check of pipelines and templates. A search that finds the check half as old
starts the next one and does not wait; under load no search waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace

from app.errors import StoreNotReady, StoreReadOnly, StoreUnavailable
from app.tuning import SHIPPED, Tuning


@dataclass(frozen=True, slots=True)
class StoreState:
    """Result of a check: `differences` in words (empty: ready), primary `shards` behind the alias, the tuning."""

    differences: tuple[str, ...]
    shards: int
    native_rrf_across_shards: bool
    tuning: Tuning = SHIPPED
    identity: str = ""
    """Identity of the indexes behind the alias; changes when an index is replaced."""
    read_only: str | None = None
    """Reason and remedy if an index of an older Braid is only searched, without heads."""
    other_languages: str | None = None
    """Reason and remedy if an index has text fields of other languages than the settings, and so is not written."""
    other_vectors: str | None = None
    """Reason and remedy if the encoder's vectors may not be those of the indexes, which are then not written."""
    text_fields: Mapping[str, str] = field(default_factory=dict)
    """Language -> field that queries in it ask, in all indexes; empty: all ask the main field alone."""
    warnings: tuple[str, ...] = ()
    """Reasons of worse answers that do not stop them, with the remedy."""
    lexical_factor: float = 1.0
    """Brings lexical scores to the scale with k1 + 1, as OpenSearch 2 has it (`store.score_check`)."""

    @property
    def closed(self) -> str | None:
        """Return why nothing is written, and the remedy; None: writes are accepted.

        Only an index of an older Braid (`read_only`) has no heads to check.
        """
        return self.read_only or self.other_vectors or self.other_languages


class ReadinessGate:
    """Shares one check among all requests that arrive while it runs. Thread-safe."""

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

    def is_known_good(self, within_s: float) -> bool:
        """Return whether the last completed check found no difference and began at most `within_s` seconds ago."""
        with self._lock:
            return self._good is not None and time.monotonic() - self._good_at <= within_s

    def begin(self) -> Future[StoreState]:
        """Return the check that the answer must wait for: the last one if it is recent, else a running or new one."""
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
        """Return the state for planning: the last good one at once, else the result of `check`.

        If the cluster recently did not answer, its last good state is used; whoever waits for `check` in the end
        decides whether that is acceptable.

        Raises:
            StoreNotReady: the cluster differs from this service.
            StoreError: the cluster does not answer, or not within `timeout_s`.
        """
        with self._lock:
            last = self._last or self._good
        if last is None or last.differences:
            return require_ready(wait_for(check, timeout_s))
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


def wait_for(check: Future[StoreState], timeout_s: float) -> StoreState:
    """Return the result of `check`. Raises StoreError if it has none within `timeout_s`."""
    try:
        return check.result(timeout_s)
    except TimeoutError as error:
        raise StoreUnavailable(f"OpenSearch did not answer within {timeout_s:.1f} s: check its load") from error


def require_ready(state: StoreState) -> StoreState:
    """Raise StoreNotReady with all differences, if there are any."""
    if state.differences:
        shown = "; ".join(state.differences[:5])
        more = f"; and {len(state.differences) - 5} more" if len(state.differences) > 5 else ""
        raise StoreNotReady(
            f"the cluster differs from what this service needs: {shown}{more}. "
            "See `braid templates diff`; `braid templates apply` fixes it"
        )
    return state


def require_writable(state: StoreState) -> StoreState:
    """Raise StoreReadOnly if an index is only searched; StoreNotReady as `require_ready`."""
    require_ready(state)
    if state.closed is not None:
        raise StoreReadOnly(state.closed)
    return state


def require_changeable(state: StoreState) -> StoreState:
    """Raise as `require_writable`, but not because of the encoder: changed readers and deletions embed nothing."""
    return require_writable(replace(state, other_vectors=None))
