"""Freshness: the state of each tenant's passages (`store.versions`), at most so old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from cachetools import LRUCache

from app.store.versions import TenantState

_TENANTS = 10_000


@dataclass(slots=True)
class _TenantEntry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: TenantState | None = None
    writes: int = -1
    asked_at: float = float("-inf")
    running: Future[TenantState] | None = None
    running_writes: int = -1


class Freshness:
    """Shares one query among all requests that arrive while it runs. Thread-safe."""

    def __init__(self, ask: Callable[[str], TenantState], executor: Executor, *, max_age_s: float = 0.5) -> None:
        """Create the checker; `ask` returns a tenant's state, and raises StoreError."""
        self._ask = ask
        self._executor = executor
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._tenants: LRUCache[str, _TenantEntry] = LRUCache(_TENANTS)

    def current(self, tenant: str, writes: int, timeout_s: float) -> TenantState:
        """Return the state, at most `max_age_s` old, and read after `writes` of the tenant's generation.

        A state half as old is refreshed in the background, so that under load no request waits for it.

        Raises:
            StoreError: the cluster does not answer.
            TimeoutError: the cluster did not answer in time.
        """
        with self._lock:
            seen = self._tenants.get(tenant)
            if seen is None:
                seen = self._tenants[tenant] = _TenantEntry()
        with seen.lock:
            age = time.monotonic() - seen.asked_at
            current = seen.writes >= writes and age <= self._max_age_s
            asking = seen.running is not None and seen.running_writes >= writes
            if not asking and (not current or age > self._max_age_s / 2):
                seen.running = self._executor.submit(self._run, tenant, seen, writes)
                seen.running_writes = writes
            if current and seen.value is not None:
                return seen.value
            running = seen.running
        assert running is not None  # noqa: S101 - started above
        return running.result(timeout_s)

    def _run(self, tenant: str, seen: _TenantEntry, writes: int) -> TenantState:
        started = time.monotonic()
        found: TenantState | None = None
        try:
            found = self._ask(tenant)
            return found
        finally:
            with seen.lock:
                if seen.running_writes == writes:  # otherwise a later query is running
                    seen.running = None
                if found is not None and started > seen.asked_at:
                    seen.value, seen.writes, seen.asked_at = found, writes, started
