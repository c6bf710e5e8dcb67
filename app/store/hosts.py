"""Addresses of one cluster: choice of a host, and avoidance of unavailable ones."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, SerializationError
from opensearchpy.serializer import JSONSerializer

from app.breaker import Breaker, BreakerOpen, Trial

_FAILURES, _REST_S = 3, 2.0
_PROBE_S = 1.0


class _Json(JSONSerializer):
    """orjson in place of json: a page of 100 hits is read in a third of the time."""

    def loads(self, s: str) -> Any:
        try:
            return orjson.loads(s)
        except ValueError as error:
            raise SerializationError("not JSON", error) from error


class Host:
    """One address: its connections and its breaker."""

    def __init__(self, url: str, number: int, **options: Any) -> None:
        """Create the connections; nothing is sent yet.

        Args:
            number: index of the address, for metrics and messages, which must not contain addresses.

        Raises:
            ImproperlyConfigured: the address is invalid.
        """
        self.number = number + 1
        self.breaker = Breaker("OpenSearch", failures=_FAILURES, rest_s=_REST_S, label=f"opensearch-{self.number}")
        self._client = OpenSearch(url, max_retries=0, serializer=_Json(), **options)
        self.transport = self._client.transport
        self._probing = threading.Lock()
        self._slow = False

    @property
    def doubtful(self) -> bool:
        """Return whether it is avoided only because another host was faster: it is better than none."""
        return self._slow and not self.breaker.closed

    def doubt(self) -> None:
        """Record that it was silent while another host answered the same request: avoid it while there are others."""
        self._slow = True
        self.breaker.open()

    def silent(self) -> None:
        """Record that it was silent again although it was called in doubt."""
        self._slow = False

    @contextmanager
    def calling(self) -> Iterator[Trial]:
        """Call it, bypassing its breaker if it is only in doubt. Raises BreakerOpen."""
        if self.doubtful:
            yield Trial()
            return
        with self.breaker.calling() as call:
            yield call

    def probe(self) -> None:
        """Check in the background whether the host is available again."""
        if self._probing.acquire(blocking=False):
            threading.Thread(target=self._probe, name="braid-probe", daemon=True).start()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _probe(self) -> None:
        try:
            with contextlib.suppress(BreakerOpen), self.breaker.calling() as call:
                try:
                    self.transport.perform_request("GET", "/", timeout=_PROBE_S)
                    call.ok()
                except OpenSearchException:
                    call.failed()
        finally:
            self._probing.release()


class Hosts:
    """All addresses of one cluster. Thread-safe."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def some_away(self) -> bool:
        """Return whether any host is being avoided."""
        return len(self._hosts) > 1 and not all(host.breaker.closed for host in self._hosts)

    def others(self, host: Host) -> bool:
        """Return whether another host could be called."""
        return any(other is not host and other.breaker.closed for other in self._hosts)

    def choose(self, tried: Sequence[Host]) -> Host:
        """Return an available host, preferably an untried one; else one that is in doubt or has rested.

        If there is none either, the caller gets the breaker's error.
        """
        there = [host for host in self._hosts if host.breaker.closed]
        there = there or [host for host in self._hosts if host.doubtful]
        if there:
            for host in self._hosts:
                if not host.breaker.closed and host.breaker.rested:
                    host.probe()  # no request should wait for it
        else:
            there = [host for host in self._hosts if host.breaker.rested] or list(self._hosts)
        fresh = [host for host in there if host not in tried] or there
        return fresh[0] if len(fresh) == 1 else random.choice(fresh)  # noqa: S311

    def close(self) -> None:
        """Close all connections."""
        for host in self._hosts:
            host.close()
