"""HTTP client of a model that runs elsewhere: an encoder or a cross-encoder behind its server.

One call is bounded in time, however slowly the server sends, and in size; a server that is unavailable is not called
for a moment (`app.breaker`). Errors say what happened; the caller makes them errors of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import orjson
from pydantic import SecretStr

from app.breaker import Breaker, BreakerOpen, Trial

_REST_S = 2.0
"""Seconds without calls to a server that was unreachable, or failed `_FAILURES` times in a row."""
_FAILURES = 3
_FAIR_S = 0.1
"""Seconds of silence below which the server is not to blame: the caller had no more time."""
_UNAVAILABLE = frozenset({502, 503, 504})


class ServerError(Exception):
    """The server gave no usable answer; the message continues a sentence that names the server."""


class ServerUnreachable(ServerError):
    """Nothing listens there, the connection broke, or neither was tried because of that a moment ago."""


class ServerSilent(ServerError):
    """The answer was not complete in time."""


class ServerBusy(ServerError):
    """Its queue is full (429); the next try may succeed after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("is busy: its queue is full")
        self.retry_after_s = retry_after_s


class ServerRefused(ServerError):
    """It answered with another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.status = status


class ModelServer:
    """Calls a server and reads its JSON. Thread-safe."""

    def __init__(
        self, url: str, key: SecretStr | None, *, name: str, label: str, connect_s: float, largest_answer: int
    ) -> None:
        """Create the client; nothing is sent yet.

        Args:
            url: base address; paths are appended to it.
            name: name of the server in messages.
            label: label of the breaker's metrics.
            connect_s: seconds for a connection, at most the call's own.
            largest_answer: bytes; a longer answer is not read to its end.
        """
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key.get_secret_value()}"
        self._client = httpx.Client(base_url=url.rstrip("/"), headers=headers)
        self._breaker = Breaker(name, failures=_FAILURES, rest_s=_REST_S, label=label)
        self._connect_s = connect_s
        self._largest = largest_answer

    @contextmanager
    def calling(self) -> Iterator[Trial]:
        """Let one or more calls of `send` pass and count their outcome.

        Raises:
            ServerUnreachable: the server was unavailable a moment ago and is not called.
        """
        try:
            with self._breaker.calling() as call:
                yield call
        except BreakerOpen as error:
            raise ServerUnreachable("was unreachable a moment ago: try again in a few seconds") from error

    def send(self, method: str, path: str, call: Trial, *, timeout_s: float, body: object = None) -> Any:
        """Send `body` as JSON and return the parsed answer, within `timeout_s` in all.

        Raises:
            ServerError: one of the classes above, or an answer that is too long or no JSON.
        """
        until = time.monotonic() + timeout_s
        content = None if body is None else orjson.dumps(body)
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, self._connect_s))
        try:
            with self._client.stream(method, path, content=content, timeout=timeout) as response:
                (call.failed if response.status_code in _UNAVAILABLE else call.ok)()
                if response.status_code == 429:
                    raise ServerBusy(_retry_after(response))
                if response.status_code != 200:
                    raise ServerRefused(response.status_code)
                received = self._read(response, until)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            call.gone()
            raise ServerUnreachable("can't be reached") from error
        except httpx.TimeoutException as error:
            if timeout_s >= _FAIR_S:
                call.failed()
            raise ServerSilent(f"did not answer within {timeout_s:.1f} s") from error
        except httpx.HTTPError as error:
            call.failed()
            raise ServerUnreachable("broke off the connection") from error
        try:
            return orjson.loads(received)
        except orjson.JSONDecodeError as error:
            raise ServerError("returned invalid JSON") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _read(self, response: httpx.Response, until: float) -> bytes:
        """Return the content. The client's own limit is for each read: a byte a second never exceeds it."""
        received = bytearray()
        for chunk in response.iter_bytes():
            received += chunk
            if len(received) > self._largest:
                raise ServerError(f"sent an answer of more than {self._largest // 1024**2} MiB")
            if time.monotonic() > until:
                raise httpx.ReadTimeout("the answer was not complete in time", request=response.request)
        return bytes(received)


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.1, float(response.headers.get("Retry-After", "1")))
    except ValueError:  # a date is allowed, too
        return 1.0
