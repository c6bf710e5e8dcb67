"""Arrival time of requests from the proxy in front, and an early rejection of those that waited too long.

The time until a request gets a thread counts as its own. Only a proxy knows when that time began: the header
``X-Request-Start``, which is trusted only from the addresses in ``BRAID_TRUSTED_PROXIES``.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from app import telemetry
from app.config.service import ServerSettings
from app.errors import ConfigurationError, Overloaded
from app.imitation import EVERY_API, error_fields
from reranker.runtime.loopback import is_loopback

ARRIVED = "braid.arrived"
"""Key in the WSGI environment: the request's arrival as `time.monotonic`. Absent: unknown."""
LONGEST_WAIT_S = 10.0
"""Maximum trusted wait: clocks differ, and a wrong one alone must not reject a request."""
BACKLOG_S = 0.25
"""Seconds that a search may wait for a thread while all slots are taken. Otherwise the backlog would grow."""
_START = re.compile(r"(?:t=)?(\d{9,11}(?:\.\d{1,6})?)", re.ASCII)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def trusted_proxies(server: ServerSettings) -> tuple[Network, ...]:
    """Parse the addresses of the proxies whose X-Request-Start is trusted.

    Raises:
        ConfigurationError: an entry is neither an address nor a network.
    """
    found: list[Network] = []
    for part in filter(None, map(str.strip, (server.trusted_proxies or "").split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise ConfigurationError(
                f"BRAID_TRUSTED_PROXIES: {part!r} is neither an address nor a network: write 10.0.0.7 or 10.0.0.0/24"
            ) from error
    return tuple(found)


def exposure_warning(server: ServerSettings) -> str | None:
    """Return a warning if slow clients reach the service directly, else None."""
    if is_loopback(server.host) or trusted_proxies(server):
        return None
    return (
        f"BRAID_HOST={server.host!r} is reachable from other machines, and BRAID_TRUSTED_PROXIES names no "
        "proxy, so that slow clients can hold threads: put nginx in front (docker/nginx/nginx.conf, docs/limits.md)"
    )


def waited_s(proxies: Iterable[Network], peer: str, start: str, now: float) -> float | None:
    """Return the seconds since the proxy received the request, 0 to `LONGEST_WAIT_S`; None without a trusted header.

    Args:
        start: the header X-Request-Start: seconds since 1970, as nginx's ``t=${msec}``.
        now: current time of the same clock.
    """
    found = _START.fullmatch(start)
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:  # a local socket
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not any(address in network for network in proxies):
        return None
    return min(max(now - float(found[1]), 0.0), LONGEST_WAIT_S)


class Arrivals:
    """WSGI middleware: records the arrival of requests, and rejects a search that waited too long.

    It is outside the application, so that a rejection costs a hundredth of a search.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        proxies: Iterable[Network],
        shed: Iterable[tuple[str, str]],
        busy: Callable[[], bool],
    ) -> None:
        """Wrap `application`; `busy` returns whether all slots are taken.

        `shed` has method and path of the endpoints whose late requests are rejected.
        """
        self._application = application
        self._proxies = tuple(proxies)
        self._shed = frozenset(shed)
        self._busy = busy

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start = environ.get("HTTP_X_REQUEST_START", "")
        waited = waited_s(self._proxies, environ.get("REMOTE_ADDR", ""), start, time.time())
        if waited is not None:
            environ[ARRIVED] = time.monotonic() - waited
            shed = (environ["REQUEST_METHOD"], environ["PATH_INFO"]) in self._shed
            # with a free slot the machine was just stalled, and nobody waits behind this request
            if shed and waited > BACKLOG_S and self._busy():
                return _refuse(start_response)
        found: Iterable[bytes] = self._application(environ, start_response)
        return found


def _refuse(start_response: Callable[..., Any]) -> list[bytes]:
    telemetry.ADMISSION_REFUSED.labels("search", "backlog").inc()
    error = Overloaded("the service is busy: retry in 1 s", retry_after_s=1)
    problem = {"type": f"urn:braid:problem:{error.kind}", "title": error.title, "status": 429, "detail": error.detail}
    body = orjson.dumps(problem | error_fields(EVERY_API, 429, error.kind, error.detail))
    headers = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body))), ("Retry-After", "1")]
    start_response("429 Too Many Requests", [*headers, ("Cache-Control", "no-store")])
    return [body]
