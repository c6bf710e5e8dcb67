"""One caller computes what many ask for at once; the others wait for it, each no longer than it can afford.

Within a process by an event, between processes by a lock in Redis that expires by itself: a process that dies while it
computes holds nobody up for longer than the lease. Who waited in vain computes for itself.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from app.cache.connection import RedisConnection
from app.cache.entries import Json

_LEASE_MS = 15_000
_POLL_S = 0.01
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


@dataclass(slots=True)
class _Flight:
    done: threading.Event = field(default_factory=threading.Event)
    value: Json | None = None


class Ticket:
    """The duty to tell how a computation ended: `finish`, exactly once or more, on whatever way it is left."""

    def __init__(self, end: Callable[[Json | None], None] | None = None) -> None:
        self._end = end

    def finish(self, value: Json | None) -> None:
        """Those who wait get `value`; None lets them compute for themselves. Further calls do nothing."""
        end, self._end = self._end, None
        if end is not None:
            end(value)


class SingleFlight:
    """The computations under way. Thread-safe."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    def join(self, key: str, find: Callable[[], Json | None], wait_s: float) -> tuple[Json | None, Ticket]:
        """What somebody else computes under `key`, or the ticket to compute it.

        Args:
            key: of the computation.
            find: looks whether another process has stored it meanwhile.
            wait_s: how long to wait for others.

        Returns:
            The value, if it came in time; else None, and the caller computes, and finishes the ticket in any case.
        """
        until = time.monotonic() + wait_s
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                mine = self._flights[key] = _Flight()
        if flight is not None:
            flight.done.wait(wait_s)
            return flight.value, Ticket()
        token = secrets.token_hex(8)
        while not self._acquire(key, token):
            if (found := find()) is not None:
                self._land(key, mine, found)
                return found, Ticket()
            if time.monotonic() + _POLL_S >= until:
                break
            time.sleep(_POLL_S)
        else:
            # it may have been stored between the caller's look and the lock
            if (found := find()) is not None:
                self._release(key, token)
                self._land(key, mine, found)
                return found, Ticket()

        def end(value: Json | None) -> None:
            self._release(key, token)
            self._land(key, mine, value)

        return None, Ticket(end)

    def _land(self, key: str, flight: _Flight, value: Json | None) -> None:
        flight.value = value
        with self._lock:
            self._flights.pop(key, None)
        flight.done.set()

    def _acquire(self, key: str, token: str) -> bool:
        """True, too, where Redis is away: then there is nobody to wait for."""

        def question(client: redis.Redis) -> bool:
            return bool(client.set(f"{key}:lock", token, nx=True, px=_LEASE_MS))

        return self._connection.ask(question, True)

    def _release(self, key: str, token: str) -> None:
        def question(client: redis.Redis) -> Any:
            return client.eval(_RELEASE, 1, f"{key}:lock", token)

        self._connection.ask(question, None)
