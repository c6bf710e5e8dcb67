"""Addresses with passwords in them: checked when they are read, and as people may see them."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

_PASSWORD = re.compile(r"://([^:@/\s]*):(?:(?!://)\S)*@")
"""Up to the last ``@`` of each address: a password that is not quoted as it should be is one, too."""
_ALONE = re.compile(r"://[^:@/\s]+@")
"""A token in the place of a user."""
_BEFORE = re.compile(r"\S+@")


def masked(url: str) -> str:
    """`url`, or several separated by commas, with ``***`` in the place of each password.

    Of what is no address, all before an ``@`` is hidden.
    """
    if "://" not in url:
        return _BEFORE.sub("***@", url)
    return _ALONE.sub("://***@", _PASSWORD.sub(r"://\1:***@", url))


def is_address(url: str, schemes: Collection[str]) -> bool:
    """Whether clients can read it: one of `schemes`, a host, and a number for a port where there is one."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # urlsplit's words repeat what it can't read
        return False
