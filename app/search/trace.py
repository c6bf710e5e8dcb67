"""Record of one search: the times of its stages, and their degradations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from app import telemetry
from app.degradation import Degradation, Reason


class Trace:
    """Timings (ms) and degradations of one search. Thread-safe, because legs and heads are read in parallel."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._timings: dict[str, float] = {}
        self._degraded: list[Degradation] = []

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by stage; only stages that ran."""
        with self._lock:
            return dict(self._timings)

    @property
    def degraded(self) -> tuple[Degradation, ...]:
        """Degradations in the order of the stages."""
        with self._lock:
            return tuple(self._degraded)

    def degrade(self, stage: str, reason: Reason, detail: str) -> None:
        """Record that a stage was skipped or incomplete."""
        self.state(Degradation(stage, reason.with_detail(detail)))

    def state(self, item: Degradation) -> None:
        """Record a degradation that was known before the stages began."""
        with self._lock:
            self._degraded.append(item)

    def rewind(self, degraded: Sequence[Degradation]) -> None:
        """Restore an earlier value of `degraded`; timings stay."""
        with self._lock:
            self._degraded[:] = degraded

    @contextmanager
    def timed(self, name: str, observe: Callable[[float], None] | None = None) -> Iterator[None]:
        """Add the time of the block to a stage, and to a histogram (seconds)."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            with self._lock:  # passages may be fetched more than once
                self._timings[name] = round(self._timings.get(name, 0.0) + spent * 1000, 3)
            if observe is not None:
                observe(spent)

    def took(self, milliseconds: int, *, after_others: bool) -> None:
        """Add OpenSearch's own time of a request: legs run in parallel, later requests after them."""
        with self._lock:
            before = self._timings.get("opensearch_took_ms", 0.0)
            spent = before + milliseconds if after_others else max(before, float(milliseconds))
            self._timings["opensearch_took_ms"] = spent

    def finish(self) -> None:
        """Record the time of the whole search."""
        with self._lock:
            self._timings["total_ms"] = round((time.perf_counter() - self._started) * 1000, 3)


@contextmanager
def count_stage(stage: str) -> Iterator[None]:
    """Count a stage that ran, and whether it failed."""
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        telemetry.STAGE_REQUESTS.labels(stage, outcome).inc()
