"""The connection to OpenSearch: one object, thread-safe, kept-alive; every failure becomes one of our errors."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import stamina
import urllib3
from opensearchpy.exceptions import (
    ConnectionError as ClientConnectionError,
)
from opensearchpy.exceptions import (
    ConnectionTimeout,
    ImproperlyConfigured,
    SerializationError,
    TransportError,
)
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from app import telemetry
from app.addresses import masked
from app.breaker import BreakerOpen, Trial
from app.config import Settings
from app.deadline import Deadline
from app.errors import ConfigurationError, StoreError, StoreUnavailable
from app.store.hosts import Host, Hosts
from app.store.reasons import safe_reason

# every failure becomes an exception of ours: the library's own lines, with a traceback for each retry, say it twice
logging.getLogger("opensearch").setLevel(logging.CRITICAL)
# what is sent again is counted (store_retries_total), and not worth a line each
logging.getLogger("stamina").setLevel(logging.ERROR)

READ_ALIAS = "braid-passages"
WRITE_ALIAS = "braid-passages-write"
HEADS_INDEX = "braid-heads"

_AWAY = frozenset({429, 502, 503, 504})
_GATEWAY = frozenset({502, 504})
_ELSEWHERE = frozenset({502, 503})
_READING = {"_search": "hits", "_count": "count", "_mget": "docs"}
"""Calls that change nothing although they are POSTs, and a field that their answers always have."""
_ATTEMPTS = 3
_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.1
"""Before a request is sent again; as much jitter comes on top."""
_FIRST_SHARE, _FIRST_S = 0.35, 1.5
"""Of the time that is left, and at most, what one of several hosts gets before another is asked."""
_FAIR_S = 0.7
"""Silence for less says nothing about the cluster: the caller had no more time. It must stay below what a search with
a budget of one second has for its legs, or nobody would ever find out that a cluster hangs, and above what is left of
it after waiting for a turn: a service with too much to do must not take the cluster for dead."""
_CONNECT_S = 2.0
_SILENT = "OpenSearch did not answer within {:.1f} s; is it overloaded?"
_RESTING = "OpenSearch was away a moment ago; it is tried again in {:.1f} s"
_NOT_A_CLUSTER = "address {} of BRAID_OPENSEARCH_URL answered with something that no cluster says: is it a cluster's?"


class StoreRequestError(StoreError):
    """OpenSearch answered with an error. `status_code` is its HTTP status, `error_type` its exception's name.

    The message carries OpenSearch's type and the reason of the root cause, cut short: reasons of the calls that we make
    name fields, indexes and settings, not documents; those of bulk items do not pass here.
    """

    def __init__(self, detail: str, *, status_code: int, error_type: str) -> None:
        super().__init__(detail)
        self.status_code = status_code
        self.error_type = error_type


class StoreBusy(StoreRequestError, StoreUnavailable):
    """OpenSearch is overloaded or not ready to answer (429, 502, 503, 504)."""

    status = 503


class _Elsewhere(Exception):
    """The same request may be sent again: `error` is what came, or `answer` where only some shards answered."""

    def __init__(self, error: StoreError | None = None, answer: Any = None) -> None:
        super().__init__(error.detail if error is not None else "some shards failed")
        self.error = error
        self.answer = answer


class Cluster:
    """One cluster, and the aliases through which passages are read and written there.

    Where several addresses are given, each has a connection pool and a breaker of its own (opensearch-py's own list of
    dead hosts knows nothing of hosts that hang). What only reads is sent again elsewhere when a host is away, breaks
    off, hangs, or when shards fail; what writes is sent again only where nothing had been sent yet.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare the connection; nothing is sent yet.

        Raises:
            ConfigurationError: no URL, or a CA file that can't be read.
        """
        if settings.opensearch_url is None:
            raise ConfigurationError(
                "no OpenSearch is named: set BRAID_OPENSEARCH_URL, or run `braid up`, which starts one here"
            )
        self.url = settings.opensearch_url
        self.read_alias, self.write_alias, self.heads_index = READ_ALIAS, WRITE_ALIAS, HEADS_INDEX
        self._timeout_s = settings.opensearch_timeout_s
        self._deadline: Deadline | None = None
        self.index_names: dict[str, tuple[float, frozenset[str]]] = {}
        """What `store.index_names` found, and when."""
        options: dict[str, Any] = {}
        if settings.opensearch_user is not None:
            password = settings.opensearch_password.get_secret_value() if settings.opensearch_password else ""
            options["http_auth"] = (settings.opensearch_user, password)
        if settings.opensearch_ca_file is not None:
            options["ca_certs"] = str(settings.opensearch_ca_file)
            if not settings.opensearch_ca_file.is_file():
                raise ConfigurationError(f"BRAID_OPENSEARCH_CA_FILE={options['ca_certs']}: there is no such file")
        options |= {"pool_maxsize": settings.threads * 3, "timeout": self._timeout_s}
        try:
            self._hosts = Hosts([Host(url, number, **options) for number, url in enumerate(settings.opensearch_urls)])
        except ImproperlyConfigured as error:
            raise ConfigurationError(f"BRAID_OPENSEARCH_URL={masked(self.url)}: {error}") from error

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send one request and return the parsed answer.

        Searches are cancelled in the cluster when their time is over. What only reads is sent again, at another
        address where there is one, with what is left of the time.

        Args:
            method: of HTTP.
            path: with a leading slash, already percent-encoded.
            params: of the query string.
            body: anything JSON, or bytes that are sent as they are (NDJSON for ``_bulk``).
            timeout_s: of all attempts together; None: the setting's.

        Raises:
            StoreUnavailable: no connection, no answer in time, an overloaded cluster (StoreBusy), or one that was away
                a moment ago.
            StoreRequestError: any other answer that is not a success.
            StoreError: an answer that is not JSON, or none that a cluster would give.
            DeadlineExceeded: the deadline of `by` has passed.
        """
        timeout_s = timeout_s or self._timeout_s
        if self._deadline is not None:
            timeout_s = min(timeout_s, self._deadline.remaining_s("store"))
        if body is not None and not isinstance(body, bytes):
            body = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            content_type = "application/json"
        else:
            content_type = "application/json" if body is None else "application/x-ndjson"
        sending = _Sending(method, path, dict(params or {}), body, content_type, self._hosts, timeout_s)
        try:
            for attempt in stamina.retry_context(
                on=_Elsewhere,
                attempts=sending.attempts,
                timeout=sending.timeout_s,
                wait_initial=_PAUSE_S,
                wait_max=_LONGEST_PAUSE_S,
                wait_jitter=_PAUSE_S,
            ):
                with attempt:
                    return sending.send(attempt.num)
        except _Elsewhere as last:
            if last.error is not None:
                raise last.error from last
            return last.answer
        raise AssertionError("there is at least one attempt")

    def whole(self, path: str, body: Any, *, timeout_s: float | None = None) -> Any:
        """The answer of all shards to a POST of ``_search`` or ``_count``; what only some say is no answer.

        Raises:
            StoreUnavailable: shards failed or ran out of time, too. StoreError: as `request`.
        """
        answer = self.request("POST", path, body=body, timeout_s=timeout_s)
        failed = _failed_shards(answer)
        if failed or (isinstance(answer, dict) and answer.get("timed_out")):
            raise StoreUnavailable(f"OpenSearch answered only in part ({failed} shards failed); ask again")
        return answer

    def within(self, name: str) -> Cluster:
        """The same connections, reading and writing passages in the index or alias `name`: for evaluation.

        Its documents have heads of their own, in ``NAME-heads``.
        """
        other = copy.copy(self)
        other.read_alias = other.write_alias = name
        other.heads_index = f"{name}-heads"
        return other

    def by(self, deadline: Deadline) -> Cluster:
        """The same connections for one piece of work: no request of it waits for longer than until `deadline`."""
        other = copy.copy(self)
        other._deadline = deadline
        return other

    def close(self) -> None:
        """Close the connections."""
        self._hosts.close()


@dataclass(slots=True)
class _Sending:
    """One request on its way, perhaps more than once."""

    method: str
    path: str
    params: dict[str, Any]
    body: bytes | None
    content_type: str
    hosts: Hosts
    timeout_s: float
    until: float = field(init=False)
    tried: list[Host] = field(default_factory=list)
    hung: list[Host] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.timeout_s

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, so that sending it twice does no harm."""
        return self.method in {"GET", "HEAD"} or self.path.rpartition("/")[2] in _READING

    @property
    def attempts(self) -> int:
        several = len(self.hosts) > 1
        if not self.reads and self.path.rpartition("/")[2] != "_refresh":
            return min(_ATTEMPTS, len(self.hosts))  # only where nothing had been sent
        return _ATTEMPTS if several else 2

    def send(self, number: int) -> Any:
        """The answer. Raises _Elsewhere where it may be sent again, else StoreError."""
        if number > 1:
            telemetry.STORE_RETRIES.inc()
        left = self.until - time.monotonic()
        if left <= 0:
            raise StoreUnavailable(_SILENT.format(self.timeout_s))
        host = self.hosts.choose(self.tried)
        self.tried.append(host)
        patient = number >= self.attempts or not self.reads or not self.hosts.others(host)
        limit = left if patient else min(left * _FIRST_SHARE, _FIRST_S)
        try:
            with host.calling() as call:
                answer = self._send(host, call, number, limit)
        except BreakerOpen as error:  # another request is the trial
            raise StoreUnavailable(_RESTING.format(error.retry_after_s)) from error
        for silent in self.hung:  # it was that host, not the request
            if silent is not host:
                silent.doubt()
        failed = _failed_shards(answer) if self.reads else 0
        if failed and number == 1 and len(self.hosts) > 1:
            raise _Elsewhere(answer=answer)
        return answer

    def _send(self, host: Host, call: Trial, number: int, limit: float) -> Any:
        timeout: Any = urllib3.Timeout(connect=min(limit, _CONNECT_S), read=limit)  # goes through to urllib3
        try:
            answer = host.transport.perform_request(
                self.method,
                self.path,
                params=self._params(number, limit),
                body=self.body,
                headers={"content-type": self.content_type},
                timeout=timeout,
            )
        except ConnectionTimeout as error:
            if limit >= _FAIR_S:
                call.failed()
                host.silent()
            silent = StoreUnavailable(_SILENT.format(self.timeout_s))
            if self.reads and len(self.hosts) > 1:
                self.hung.append(host)
                raise _Elsewhere(silent) from error
            raise silent from error
        except ClientConnectionError as error:
            call.failed()
            away = StoreUnavailable(
                "OpenSearch can't be reached; check that it runs, BRAID_OPENSEARCH_URL and BRAID_OPENSEARCH_CA_FILE"
            )
            if self.reads or isinstance(error.info, NewConnectionError | ConnectTimeoutError):
                raise _Elsewhere(away) from error
            raise away from error
        except TransportError as error:
            found = _request_error(error)
            if error.status_code in _GATEWAY or (error.status_code == 503 and found.error_type == "unknown"):
                call.failed()  # a gateway in front of a node that is away
            else:
                call.ok()
            if found.error_type == "task_cancelled_exception":
                raise StoreUnavailable(_SILENT.format(limit)) from error
            if self.reads and error.status_code in _ELSEWHERE and len(self.hosts) > 1:
                raise _Elsewhere(found) from error
            raise found from error
        except SerializationError as error:
            raise StoreError(_NOT_A_CLUSTER.format(host.number)) from error
        if isinstance(answer, str) or not _is_ours(self.path, answer):  # of a proxy or of another service
            raise StoreError(_NOT_A_CLUSTER.format(host.number))
        call.ok()
        return answer

    def _params(self, number: int, limit: float) -> dict[str, Any]:
        found = dict(self.params)
        if self.path.endswith("/_search"):
            found["cancel_after_time_interval"] = f"{max(1, int(limit * 1000))}ms"
        elif not self.path.endswith(("/_count", "/_mget")) and not (self.method == "GET" and "/_doc/" in self.path):
            return found
        if number > 1:  # the node that is asked shall not wait for the one that is away
            found["preference"] = "_local"
        elif self.hosts.some_away:
            found.setdefault("preference", "_local")
        return found


def _is_ours(path: str, answer: Any) -> bool:
    """Whether it may be the answer to a reading POST; of other calls nothing is known here."""
    call = path.rpartition("/")[2]
    if call not in _READING:
        return True
    found = isinstance(answer, dict) and answer.get(_READING[call])
    return isinstance(found, dict if call == "_search" else int if call == "_count" else list)


def _failed_shards(answer: Any) -> int:
    shards = answer.get("_shards") if isinstance(answer, dict) else None
    return int(shards.get("failed", 0)) if isinstance(shards, dict) else 0


def connect(settings: Settings) -> Cluster:
    """A cluster that has answered once. Raises as `Cluster` and `Cluster.request`."""
    cluster = Cluster(settings)
    cluster.request("GET", "/")
    return cluster


def _request_error(error: TransportError) -> StoreRequestError:
    status = error.status_code if isinstance(error.status_code, int) else 0
    kind, reason = "unknown", ""
    info = error.info
    if isinstance(info, dict) and isinstance(info.get("error"), dict):
        outer = info["error"]
        cause = (outer.get("root_cause") or [outer])[0]
        kind, reason = str(cause.get("type") or outer.get("type")), safe_reason(cause)
        innermost = safe_reason(outer.get("caused_by") or {})
        if innermost and innermost not in reason:
            reason += f" ({innermost})"
    elif status in {401, 403}:
        kind, reason = "security_exception", "check BRAID_OPENSEARCH_USER and BRAID_OPENSEARCH_PASSWORD"
    made = StoreBusy if status in _AWAY else StoreRequestError
    detail = f"OpenSearch answered {status} ({kind}): {reason[:300]}"
    return made(detail, status_code=status, error_type=kind)
