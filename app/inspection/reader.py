"""Read-only access to a cluster: what an inspection sends can't change anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from app.addresses import mask_passwords
from app.config.retrieval import OpenSearchSettings
from app.deadline import Deadline
from app.errors import BraidError, DeadlineExceeded, InvalidInput, StoreError, StoreUnavailable
from app.store.client import Cluster, StoreRequestError, find

_POSTED = ("_search", "_count")
"""Calls that are sent as POST, since some proxies drop the body of a GET; all others are GET."""


class PermissionMissing(BraidError):
    """The user may not send this request."""

    status = 403
    title = "Not permitted"
    kind = "permission-missing"


class PartialAnswer(StoreError):
    """Some shards did not answer, or not in time: figures from the others would be wrong."""


@dataclass(frozen=True, slots=True)
class TimeBudget(Deadline):
    """The time of a whole inspection."""

    def exceeded(self, stage: str) -> DeadlineExceeded:
        """Return the error for no time left."""
        return DeadlineExceeded(
            f"earlier checks spent the budget of {self.budget_ms / 1000:g} s: pass a larger --budget"
        )


class Reader(Cluster):
    """A cluster to which only GET, and POST to ``_search`` and ``_count``, are sent; whatever uses it only reads."""

    def __init__(self, opensearch: OpenSearchSettings, budget: TimeBudget) -> None:
        """Create the client; nothing is sent yet. `opensearch.timeout_s` limits each request.

        Raises:
            ConfigurationError: as `Cluster`.
        """
        super().__init__(opensearch, connections=2)
        self.address = mask_passwords(self.url)
        self.budget = self._deadline = budget
        self.timeout_s = opensearch.timeout_s

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send a reading request.

        Raises:
            PermissionMissing: the cluster, or a proxy, answered 401 or 403.
            StoreError: any other failure; the message names the address.
            DeadlineExceeded: the budget of the inspection is spent.
            ValueError: the request could change something.
        """
        if method != "GET" and (method != "POST" or path.rpartition("/")[2] not in _POSTED):
            raise ValueError(f"{method} {path}: an inspection only reads")
        began = time.monotonic()
        try:
            return super().request(method, path, params=params, body=body, timeout_s=timeout_s)
        except StoreRequestError as error:
            if error.status_code in {401, 403}:
                raise PermissionMissing(f"the user may not send {method} {path} ({error.status_code})") from error
            raise
        except StoreUnavailable as error:
            if (spent := time.monotonic() - began) < 0.9 * min(self.timeout_s, timeout_s or self.timeout_s):
                raise StoreUnavailable(f"{error.detail} ({self.address})") from error
            raise StoreUnavailable(
                f"{self.address} did not answer {method} {path} within {spent:.0f} s: pass a longer --timeout"
            ) from error

    def get(self, path: str, body: Any = None, **params: Any) -> Any:
        """Return the answer to a GET. Raises as `request`."""
        return self.request("GET", path, params=params, body=body)

    def find(self, path: str, **params: Any) -> Any:
        """Return the answer to a GET; None if nothing is there (404). Raises as `request`."""
        return find(self, path, params=params)

    def search(self, index: str, body: Mapping[str, Any], **params: Any) -> dict[str, Any]:
        """Return the answer of all shards to a search.

        Raises:
            PartialAnswer: shards failed, or ran out of time. Others as `request`.
        """
        return self._whole(index, "_search", body, params)

    def count(self, index: str, query: Mapping[str, Any]) -> int:
        """Return the number of matching documents. Raises as `search`."""
        return int(self._whole(index, "_count", {"query": query}, {})["count"])

    def _whole(self, index: str, call: str, body: Mapping[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.request("POST", f"/{quoted(index)}/{call}", params=params, body=dict(body))
        shards = answer.get("_shards", {})
        if shards.get("failed") or answer.get("timed_out"):
            raise PartialAnswer(
                f"{shards.get('failed', 0)} of {shards.get('total', '?')} shards of {index} did not answer"
                + (" within the time" if answer.get("timed_out") else "")
            )
        return answer


def quoted(index: str) -> str:
    """Return an index, alias or pattern for a path.

    Raises:
        InvalidInput: it can't be one.
    """
    if not index.strip() or index.startswith(("_", "-")) or index in {".", ".."}:
        raise InvalidInput(f"--index {index!r} is not the name of an index, an alias or a pattern")
    return quote(index, safe="*,.-")
