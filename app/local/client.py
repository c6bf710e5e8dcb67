"""The command line as a client of a running service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx2
import orjson

from app.addresses import masked
from app.config import Settings
from app.errors import BraidError


class ServiceProblem(BraidError):
    """The service answered with a problem document, or did not answer."""

    title = "The service refused"


class ServiceClient:
    """Calls a running service: searches, answers, who may read a document."""

    def __init__(self, settings: Settings, timeout_s: float = 120.0) -> None:
        headers = {}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self._shown = masked(settings.url)
        self._client = httpx2.Client(base_url=settings.url, headers=headers, timeout=timeout_s, trust_env=False)

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of ``POST /v1/search``.

        Raises:
            ServiceProblem: with the problem's detail, or that nothing listens there.
        """
        try:
            response = self._client.post("/v1/search", json=body)
        except httpx2.HTTPError as error:
            raise self._away(error) from error
        return self._read(response)

    def change_readers(self, document_id: str, acl: Sequence[str]) -> dict[str, Any]:
        """The answer of ``PATCH /v1/documents/{document_id}``; an empty `acl` leaves it to the operator and admins.

        Raises:
            ServiceProblem: as `search`.
        """
        try:
            response = self._client.patch(f"/v1/documents/{quote(document_id, safe='')}", json={"acl": list(acl)})
        except httpx2.HTTPError as error:
            raise self._away(error) from error
        return self._read(response)

    def answer_events(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of ``POST /v1/answer`` with ``stream``: pairs of (event, data).

        Raises:
            ServiceProblem: as `search`.
        """
        try:
            with self._client.stream("POST", "/v1/answer", json={**body, "stream": True}) as response:
                if response.status_code != 200:
                    response.read()
                    self._read(response)
                event = "message"
                for line in response.iter_lines():
                    if line.startswith("event:"):
                        event = line.removeprefix("event:").strip()
                    elif line.startswith("data:"):
                        yield event, orjson.loads(line.removeprefix("data:"))
        except httpx2.HTTPError as error:
            raise self._away(error) from error

    def _away(self, error: httpx2.HTTPError) -> ServiceProblem:
        return ServiceProblem(
            f"no answer from {self._shown} ({type(error).__name__}); is `braid up` running, or set --url"
        )

    def _read(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            body: dict[str, Any] = response.json()
        except ValueError as error:
            raise ServiceProblem(f"{self._shown} is no Braid service (status {response.status_code})") from error
        if response.status_code >= 400:
            places = "".join(f"\n  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in body.get("errors", []))
            raise ServiceProblem(f"{body.get('title')}: {body.get('detail')}{places}")
        return body
