"""Connection to OpenSearch: one thread-safe object with kept-alive connections; every failure becomes one of our
errors.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Sequence
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
from app.addresses import mask_passwords
from app.breaker import BreakerOpen, Trial
from app.config.retrieval import OpenSearchSettings
from app.deadline import Deadline
from app.errors import ConfigurationError, StoreError, StoreUnavailable
from app.store.hosts import Host, Hosts
from app.store.reasons import safe_reason

# every failure raises our own exception, so the library's lines with a traceback per retry are redundant
logging.getLogger("opensearch").setLevel(logging.CRITICAL)
# retries are counted (store_retries_total); they need no log lines
logging.getLogger("stamina").setLevel(logging.ERROR)

READ_ALIAS = "braid-passages"
WRITE_ALIAS = "braid-passages-write"
HEADS_INDEX = "braid-heads"

_UNAVAILABLE = frozenset({429, 502, 503, 504})
_GATEWAY = frozenset({502, 504})
_RETRIED_ELSEWHERE = frozenset({502, 503})
_READING = {"_search": "hits", "_msearch": "responses", "_count": "count", "_mget": "docs"}
"""POST requests that change nothing, and a field that their responses always have."""
_EMPTY_HEADER = re.compile(rb"^\{\}$", re.MULTILINE)
_ATTEMPTS = 3
_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.1
"""Pause before a retry; as much jitter is added."""
_FIRST_SHARE, _FIRST_S = 0.35, 1.5
"""Share of the remaining time, and maximum seconds, for the first of several hosts before another is tried."""
_FAIR_S = 0.7
"""Seconds of silence below which the cluster is not to blame: the caller had no more time. It must be below the time of
the legs in a search with a budget of one second, or a hanging cluster would never be detected, and above what is left
of it after waiting for a slot: an overloaded service must not take the cluster for dead."""
_CONNECT_S = 2.0
_SILENT = "OpenSearch did not answer within {:.1f} s: check its load"
_RESTING = "OpenSearch was unavailable a moment ago; the next try is in {:.1f} s"
_NOT_A_CLUSTER = "address {} of BRAID_OPENSEARCH_URL did not answer like OpenSearch: check the address"


class StoreRequestError(StoreError):
    """OpenSearch answered with an error. `status_code` is its HTTP status, `error_type` the name of its exception.

    The message has OpenSearch's type and the root cause's reason, truncated: reasons of our requests name fields,
    indexes and settings, not documents; those of bulk items do not appear here.
    """

    def __init__(self, detail: str, *, status_code: int, error_type: str) -> None:
        super().__init__(detail)
        self.status_code = status_code
        self.error_type = error_type


class StoreBusy(StoreRequestError, StoreUnavailable):
    """OpenSearch is overloaded or not ready to answer (429, 502, 503, 504)."""

    status = 503


class TooManyClauses(StoreRequestError):
    """The query has more clauses than the cluster takes (``indices.query.bool.max_clause_count``)."""


class _RetryOnNextHost(Exception):
    """Signal to retry on the next host; carries this host's `error` or partial `answer`."""

    def __init__(self, error: StoreError | None = None, answer: Any = None) -> None:
        super().__init__(error.detail if error is not None else "some shards failed")
        self.error = error
        self.answer = answer


class Cluster:
    """One cluster, and the aliases for reading and writing passages.

    Each of several addresses has a connection pool and a breaker of its own (opensearch-py's list of dead hosts ignores
    hosts that hang). Reading requests are sent again to another host if a host is unavailable, breaks off or hangs, or
    if shards fail; writing requests only if nothing had been sent yet.
    """

    def __init__(self, opensearch: OpenSearchSettings, *, connections: int = 48) -> None:
        """Create the client; nothing is sent yet. Keep at most `connections` open to each address.

        Raises:
            ConfigurationError: there is no URL, or the CA file is unreadable.
        """
        if opensearch.url is None:
            raise ConfigurationError(
                "no OpenSearch is configured: set BRAID_OPENSEARCH_URL, or run `braid up`, which starts one here"
            )
        self.url = opensearch.url
        self.read_alias, self.write_alias, self.heads_index = READ_ALIAS, WRITE_ALIAS, HEADS_INDEX
        self.timeout_s = opensearch.timeout_s
        self._deadline: Deadline | None = None
        self.index_names: dict[str, tuple[float, frozenset[str]]] = {}
        """Results of `store.index_names`, with their times."""
        options: dict[str, Any] = {}
        if opensearch.user is not None:
            password = opensearch.password.get_secret_value() if opensearch.password else ""
            options["http_auth"] = (opensearch.user, password)
        if opensearch.ca_file is not None:
            options["ca_certs"] = str(opensearch.ca_file)
            if not opensearch.ca_file.is_file():
                raise ConfigurationError(f"BRAID_OPENSEARCH_CA_FILE={options['ca_certs']}: the file does not exist")
        options |= {"pool_maxsize": connections, "timeout": self.timeout_s}
        try:
            self._hosts = Hosts([Host(url, number, **options) for number, url in enumerate(opensearch.urls)])
        except ImproperlyConfigured as error:
            raise ConfigurationError(f"BRAID_OPENSEARCH_URL={mask_passwords(self.url)}: {error}") from error

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

        Searches are cancelled in the cluster at the end of their time. Reading requests are sent again within the
        remaining time, to another address if there is one.

        Args:
            path: path with a leading slash, percent-encoded.
            body: any JSON value, or bytes that are sent unchanged (NDJSON for ``_bulk``).
            timeout_s: seconds for all attempts together; None: the setting.

        Raises:
            StoreUnavailable: no connection, no answer in time, an overloaded cluster (StoreBusy), or one that was
                unavailable a moment ago.
            StoreRequestError: any other answer that is not a success.
            StoreError: the answer is not JSON, or not one of OpenSearch.
            DeadlineExceeded: the deadline of `by` has passed.
        """
        timeout_s = timeout_s or self.timeout_s
        if self._deadline is not None:
            timeout_s = min(timeout_s, self._deadline.remaining_s("store"))
        if body is not None and not isinstance(body, bytes):
            body = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            content_type = "application/json"
        else:
            content_type = "application/json" if body is None else "application/x-ndjson"
        sending = _Request(method, path, dict(params or {}), body, content_type, self._hosts, timeout_s)
        try:
            try:  # without stamina, which costs a seventh of a request
                return sending.send(1)
            except _RetryOnNextHost:
                if sending.attempts == 1:
                    raise
                time.sleep(_PAUSE_S)
            for attempt in stamina.retry_context(
                on=_RetryOnNextHost,
                attempts=sending.attempts - 1,
                timeout=sending.timeout_s,
                wait_initial=_PAUSE_S,
                wait_max=_LONGEST_PAUSE_S,
                wait_jitter=_PAUSE_S,
            ):
                with attempt:
                    return sending.send(attempt.num + 1)
        except _RetryOnNextHost as last:
            if last.error is not None:
                raise last.error from last
            return last.answer
        raise AssertionError("there is at least one attempt")

    def request_all_shards(self, path: str, body: Any, *, timeout_s: float | None = None) -> Any:
        """Send a POST of ``_search`` or ``_count`` and return the answer of all shards; partial answers are errors.

        Raises:
            StoreUnavailable: shards failed or ran out of time. StoreError: as `request`.
        """
        answer = self.request("POST", path, body=body, timeout_s=timeout_s)
        failed = _failed_shards(answer)
        if failed or (isinstance(answer, dict) and answer.get("timed_out")):
            raise StoreUnavailable(f"OpenSearch returned a partial answer ({failed} shards failed): try again")
        return answer

    def within(self, name: str) -> Cluster:
        """Return a client with the same connections for the index or alias `name`: for evaluation.

        Its documents have heads of their own, in ``NAME-heads``.
        """
        other = copy.copy(self)
        other.read_alias = other.write_alias = name
        other.heads_index = f"{name}-heads"
        return other

    def by(self, deadline: Deadline) -> Cluster:
        """Return a client with the same connections whose requests never wait beyond `deadline`."""
        other = copy.copy(self)
        other._deadline = deadline
        return other

    def close(self) -> None:
        """Close the connections."""
        self._hosts.close()


@dataclass(slots=True)
class _Request:
    """One request, possibly sent several times."""

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
        """Return whether it changes nothing, so that sending it twice is harmless."""
        return self.method in {"GET", "HEAD"} or self.path.rpartition("/")[2] in _READING

    @property
    def attempts(self) -> int:
        several = len(self.hosts) > 1
        if not self.reads and self.path.rpartition("/")[2] != "_refresh":
            return min(_ATTEMPTS, len(self.hosts))  # only if nothing had been sent
        return _ATTEMPTS if several else 2

    def send(self, number: int) -> Any:
        """Return the answer. Raises _RetryOnNextHost if it may be sent again, else StoreError."""
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
        for silent in self.hung:  # that host was the cause, not the request
            if silent is not host:
                silent.doubt()
        failed = _failed_shards(answer) if self.reads else 0
        if failed and number == 1 and len(self.hosts) > 1:
            raise _RetryOnNextHost(answer=answer)
        return answer

    def _send(self, host: Host, call: Trial, number: int, limit: float) -> Any:
        timeout: Any = urllib3.Timeout(connect=min(limit, _CONNECT_S), read=limit)  # passed through to urllib3
        params, body = self._parts(number, limit)
        try:
            answer = host.transport.perform_request(
                self.method,
                self.path,
                params=params,
                body=body,
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
                raise _RetryOnNextHost(silent) from error
            raise silent from error
        except ClientConnectionError as error:
            call.failed()
            away = StoreUnavailable(
                "OpenSearch can't be reached; check that it runs, BRAID_OPENSEARCH_URL and BRAID_OPENSEARCH_CA_FILE"
            )
            if self.reads or isinstance(error.info, NewConnectionError | ConnectTimeoutError):
                raise _RetryOnNextHost(away) from error
            raise away from error
        except TransportError as error:
            found = _request_error(error)
            if error.status_code in _GATEWAY or (error.status_code == 503 and found.error_type == "unknown"):
                call.failed()  # a gateway in front of an unavailable node
            else:
                call.ok()
            if found.error_type == "task_cancelled_exception":
                raise StoreUnavailable(_SILENT.format(limit)) from error
            if self.reads and error.status_code in _RETRIED_ELSEWHERE and len(self.hosts) > 1:
                raise _RetryOnNextHost(found) from error
            raise found from error
        except SerializationError as error:
            raise StoreError(_NOT_A_CLUSTER.format(host.number)) from error
        # a proxy, or another service, may have answered
        if isinstance(answer, str) or not _is_plausible(self.path, answer):
            raise StoreError(_NOT_A_CLUSTER.format(host.number))
        call.ok()
        return answer

    def _parts(self, number: int, limit: float) -> tuple[dict[str, Any], bytes | None]:
        """Return parameters and body; in those of `_msearch` each search has the preference in its header."""
        params = self._params(number, limit)
        if self.body is None or not self.path.endswith("/_msearch") or "preference" not in params:
            return params, self.body
        header = orjson.dumps({"preference": params.pop("preference")})
        return params, _EMPTY_HEADER.sub(lambda match: header, self.body)

    def _params(self, number: int, limit: float) -> dict[str, Any]:
        found = dict(self.params)
        if self.path.endswith(("/_search", "/_msearch")):
            found["cancel_after_time_interval"] = f"{max(1, int(limit * 1000))}ms"
        elif not self.path.endswith(("/_count", "/_mget")) and not (self.method == "GET" and "/_doc/" in self.path):
            return found
        if number > 1:  # the coordinating node must not wait for the unavailable one
            found["preference"] = "_local"
        elif self.hosts.some_away:
            found.setdefault("preference", "_local")
        return found


def _is_plausible(path: str, answer: Any) -> bool:
    """Return whether this can be the answer to a reading POST; True for other requests."""
    call = path.rpartition("/")[2]
    if call not in _READING:
        return True
    found = isinstance(answer, dict) and answer.get(_READING[call])
    return isinstance(found, dict if call == "_search" else int if call == "_count" else list)


def _failed_shards(answer: Any) -> int:
    if isinstance(answer, dict) and "responses" in answer:
        return max(map(_failed_shards, answer["responses"]), default=0)
    shards = answer.get("_shards") if isinstance(answer, dict) else None
    return int(shards.get("failed", 0)) if isinstance(shards, dict) else 0


def search_together(
    cluster: Cluster,
    bodies: Sequence[Any],
    *,
    params: dict[str, Any] | None = None,
    timeout_s: float | None = None,
) -> list[dict[str, Any]]:
    """Return the answers to searches of the read alias, sent in one request, in their order.

    Raises:
        StoreError: as `Cluster.request`, also if one of several searches fails.
    """
    path = f"/{cluster.read_alias}/"
    if len(bodies) == 1:
        return [cluster.request("POST", f"{path}_search", params=params, body=bodies[0], timeout_s=timeout_s)]
    lines = b"".join(b"{}\n" + orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for body in bodies)
    answers: list[dict[str, Any]] = cluster.request(
        "POST", f"{path}_msearch", params=params, body=lines, timeout_s=timeout_s
    )["responses"]
    for answer in answers:
        if "error" in answer:
            error = _request_error(TransportError(answer["status"], "", answer))
            if error.error_type == "task_cancelled_exception":
                raise StoreUnavailable(_SILENT.format(timeout_s or cluster.timeout_s)) from error
            raise error
    return answers


def find(cluster: Cluster, path: str, **how: Any) -> Any:
    """Return the answer to a GET; None if nothing is there (404). Raises StoreError."""
    try:
        return cluster.request("GET", path, **how)
    except StoreRequestError as error:
        if error.status_code == 404:
            return None
        raise


def connect(opensearch: OpenSearchSettings) -> Cluster:
    """Return a cluster that has answered once. Raises as `Cluster` and `Cluster.request`."""
    cluster = Cluster(opensearch)
    cluster.request("GET", "/")
    return cluster


_TOO_MANY = frozenset({"too_many_clauses", "too_many_nested_clauses"})
_TOO_MANY_REASON = "maxClauseCount is set to"
"""Lucene's words, where OpenSearch makes a `query_shard_exception` of its exception."""


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
    made = StoreBusy if status in _UNAVAILABLE else StoreRequestError
    if kind in _TOO_MANY or _TOO_MANY_REASON in reason:
        made = TooManyClauses
    detail = f"OpenSearch answered {status} ({kind}): {reason[:300]}"
    return made(detail, status_code=status, error_type=kind)
