"""The connection to OpenSearch: one object, thread-safe, kept-alive; every failure becomes one of our errors."""

from __future__ import annotations

import copy
import logging
from typing import Any

import orjson
from opensearchpy import OpenSearch
from opensearchpy.exceptions import (
    ConnectionError as ClientConnectionError,
)
from opensearchpy.exceptions import (
    ConnectionTimeout,
    ImproperlyConfigured,
    SerializationError,
    TransportError,
)
from opensearchpy.serializer import JSONSerializer

from app.config import Settings
from app.errors import ConfigurationError, StoreError, StoreUnavailable
from app.store.reasons import safe_reason

# every failure becomes an exception of ours: the library's own lines, with a traceback for each retry, say it twice
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

READ_ALIAS = "braid-passages"
WRITE_ALIAS = "braid-passages-write"

_AWAY = frozenset({429, 502, 503, 504})
_NOT_A_CLUSTER = "{} answered with something that is not JSON; check that BRAID_OPENSEARCH_URL is a cluster's address"


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


class _Json(JSONSerializer):
    """orjson in place of json: a page of 100 hits is read in a third of the time."""

    def loads(self, s: str) -> Any:
        try:
            return orjson.loads(s)
        except ValueError as error:
            raise SerializationError("not JSON", error) from error


class Cluster:
    """One cluster, and the aliases through which passages are read and written there."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the connection; nothing is sent yet.

        Raises:
            ConfigurationError: no URL, or a CA file that can't be read.
        """
        if settings.opensearch_url is None:
            raise ConfigurationError(
                "no OpenSearch is named: set BRAID_OPENSEARCH_URL, or run `braid up`, which starts one here"
            )
        self.url = settings.opensearch_url.rstrip("/")
        self.read_alias, self.write_alias = READ_ALIAS, WRITE_ALIAS
        self._timeout_s = settings.opensearch_timeout_s
        options: dict[str, Any] = {}
        if settings.opensearch_user is not None:
            password = settings.opensearch_password.get_secret_value() if settings.opensearch_password else ""
            options["http_auth"] = (settings.opensearch_user, password)
        if settings.opensearch_ca_file is not None:
            options["ca_certs"] = str(settings.opensearch_ca_file)
            if not settings.opensearch_ca_file.is_file():
                raise ConfigurationError(f"BRAID_OPENSEARCH_CA_FILE={options['ca_certs']}: there is no such file")
        try:
            client = OpenSearch(
                self.url,
                max_retries=0,
                pool_maxsize=settings.threads * 3,
                timeout=self._timeout_s,
                serializer=_Json(),
                **options,
            )
        except ImproperlyConfigured as error:
            raise ConfigurationError(f"BRAID_OPENSEARCH_URL={self.url}: {error}") from error
        self._client = client
        self._transport = client.transport

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send one request and return the parsed answer; nothing is retried.

        Args:
            method: of HTTP.
            path: with a leading slash, already percent-encoded.
            params: of the query string.
            body: anything JSON, or bytes that are sent as they are (NDJSON for ``_bulk``).
            timeout_s: None: the setting's.

        Raises:
            StoreUnavailable: no connection, no answer in time, or an overloaded cluster (StoreBusy).
            StoreRequestError: any other answer that is not a success.
            StoreError: an answer that is not JSON.
        """
        headers = {"content-type": "application/x-ndjson"} if isinstance(body, bytes) else None
        if body is not None and not isinstance(body, bytes):
            body = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            answer = self._transport.perform_request(
                method,
                path,
                params=dict(params or {}),
                body=body,
                headers=headers or {"content-type": "application/json"},
                timeout=timeout_s or self._timeout_s,
            )
        except ConnectionTimeout as error:
            raise StoreUnavailable(
                f"OpenSearch did not answer within {timeout_s or self._timeout_s:.1f} s; is it overloaded?"
            ) from error
        except ClientConnectionError as error:
            raise StoreUnavailable(
                "OpenSearch can't be reached; check that it runs, BRAID_OPENSEARCH_URL and BRAID_OPENSEARCH_CA_FILE"
            ) from error
        except TransportError as error:
            raise _request_error(error) from error
        except SerializationError as error:
            raise StoreError(_NOT_A_CLUSTER.format(self.url)) from error
        if isinstance(answer, str):  # a page of a proxy or of another service
            raise StoreError(_NOT_A_CLUSTER.format(self.url))
        return answer

    def within(self, name: str) -> Cluster:
        """The same connections, reading and writing passages in the index or alias `name`: for evaluation."""
        other = copy.copy(self)
        other.read_alias = other.write_alias = name
        return other

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


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
