"""Client of a running service for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import orjson

from app.access import AccessChange
from app.addresses import mask_passwords
from app.config import Settings
from app.errors import BraidError
from app.terminal import ERR


class ServiceProblem(BraidError):
    """The service answered with a problem document, or did not answer."""

    title = "The service refused"


class ServiceClient:
    """Calls a running service: search, answer, change of readers."""

    def __init__(self, settings: Settings, timeout_s: float = 120.0) -> None:
        headers = {}
        if settings.access.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.access.api_key.get_secret_value()}"
        self._shown = mask_passwords(settings.client.url)
        self._client = httpx2.Client(base_url=settings.client.url, headers=headers, timeout=timeout_s, trust_env=False)

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of ``POST /v1/search``.

        Raises:
            ServiceProblem: with the problem's detail, or because nothing listens there.
        """
        return self._call("POST", "/v1/search", body)

    def change_readers(self, document_id: str, change: AccessChange) -> dict[str, Any]:
        """Return the answer of ``PATCH /v1/documents/{document_id}`` for the lists in `change`.

        Raises:
            ServiceProblem: as `search`.
        """
        return self._call("PATCH", f"/v1/documents/{quote(document_id, safe='')}", dict(change))

    def answer_events(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events of ``POST /v1/answer`` with ``stream`` as pairs (event, data).

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
            raise self._unavailable(error) from error

    def _call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._read(self._client.request(method, path, json=body))
        except httpx2.HTTPError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: httpx2.HTTPError) -> ServiceProblem:
        return ServiceProblem(f"no answer from {self._shown} ({type(error).__name__}); start `braid up`, or pass --url")

    def _read(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            body: dict[str, Any] = response.json()
        except ValueError as error:
            raise ServiceProblem(f"{self._shown} is not a Braid service (status {response.status_code})") from error
        if response.status_code >= 400:
            places = "".join(f"\n  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in body.get("errors", []))
            raise ServiceProblem(f"{body.get('title')}: {body.get('detail')}{places}")
        return body


def print_degraded(answer: dict[str, Any]) -> None:
    """Print the degraded stages of the answer to standard error."""
    for item in answer.get("degraded", []):
        ERR.print(f"without {item['stage']}: {item['reason']}", style="yellow", markup=False)
