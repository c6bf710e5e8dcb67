"""Other providers' APIs that endpoints imitate: the fields in which their clients look for an error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

Api = Literal["openai", "cohere"]
EVERY_API: tuple[Api, ...] = ("openai", "cohere")
"""For errors of requests whose endpoint is unknown: any client may have sent them."""

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_fields(
    apis: Collection[Api], status: int, kind: str, detail: str, loc: Sequence[str | int] = ()
) -> dict[str, Any]:
    """Return an error's fields for the clients of `apis`; they stand beside those of the problem document.

    Args:
        apis: the imitated APIs; none: no fields.
        status: HTTP status, 400 or more.
        kind: kind of the problem, which becomes OpenAI's `code`.
        detail: message for the caller.
        loc: place of the first problem in the request, such as ``("body", "input", 0)``.
    """
    fields: dict[str, Any] = {}
    if "openai" in apis:
        other = "server_error" if status >= 500 else "invalid_request_error"
        fields["error"] = {
            "message": detail,
            "type": _OPENAI_TYPES.get(status, other),
            "param": _param(loc[1:]),
            "code": kind,
        }
    if "cohere" in apis:
        fields["message"] = detail
    return fields


def _param(path: Sequence[str | int]) -> str | None:
    """Return the field's name as OpenAI writes it: ``messages[0].content``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or None
