"""Knows what searches of each tenant see now (`store.versions`), from a question that is not too old."""

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
class _Seen:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: TenantState | None = None
    writes: int = -1
    asked_at: float = float("-inf")
    running: Future[TenantState] | None = None
    running_writes: int = -1


class Freshness:
    """Shares one question among all requests that come while it is asked. Thread-safe."""

    def __init__(self, ask: Callable[[str], TenantState], executor: Executor, *, max_age_s: float = 0.5) -> None:
        """`ask` gives a tenant's state; raises StoreError."""
        self._ask = ask
        self._executor = executor
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._tenants: LRUCache[str, _Seen] = LRUCache(_TENANTS)

    def current(self, tenant: str, writes: int, timeout_s: float) -> TenantState:
        """The state, asked `max_age_s` ago or later, and after `writes` of the tenant's generation.

        One that is half as old is asked anew beside the request, so that under load no request waits for it.

        Raises:
            StoreError: the cluster can't say.
            TimeoutError: it did not say in time.
        """
        with self._lock:
            seen = self._tenants.get(tenant)
            if seen is None:
                seen = self._tenants[tenant] = _Seen()
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

    def _run(self, tenant: str, seen: _Seen, writes: int) -> TenantState:
        started = time.monotonic()
        found: TenantState | None = None
        try:
            found = self._ask(tenant)
            return found
        finally:
            with seen.lock:
                if seen.running_writes == writes:  # else a later question is under way
                    seen.running = None
                if found is not None and started > seen.asked_at:
                    seen.value, seen.writes, seen.asked_at = found, writes, started
