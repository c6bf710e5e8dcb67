"""Addresses of other services: validation, masking of passwords for display, the base of an OpenAI-compatible API."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

_PASSWORD = re.compile(r"://([^:@/\s]*):(?:(?!://)\S)*@")
"""Matches up to the last ``@`` of each URL, so that a password that is not quoted correctly is included."""
_ALONE = re.compile(r"://[^:@/\s]+@")
"""A token in place of a user."""
_BEFORE = re.compile(r"\S+@")
_VERSION = re.compile(r"v\d\w*")


def mask_passwords(url: str) -> str:
    """Replace each password by ``***`` in `url`, or in several separated by commas.

    In text that is not a URL, everything before an ``@`` is hidden.
    """
    if "://" not in url:
        return _BEFORE.sub("***@", url)
    return _ALONE.sub("://***@", _PASSWORD.sub(r"://\1:***@", url))


def is_address(url: str, schemes: Collection[str]) -> bool:
    """Return whether clients can parse it: one of `schemes`, a host, and a number as the port, if any."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # urlsplit's message repeats its input
        return False


def openai_base(url: str) -> str:
    """Return the base address of an OpenAI-compatible API, given with or without its version and an endpoint's path.

    The version (``/v1``) is added where the path does not end with one.
    """
    url = url.rstrip("/")
    for tail in ("/chat/completions", "/completions", "/embeddings"):
        url = url.removesuffix(tail)
    return url if _VERSION.fullmatch(urlsplit(url).path.rsplit("/", 1)[-1]) else f"{url}/v1"
