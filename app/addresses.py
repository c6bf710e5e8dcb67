"""Addresses with passwords in them: as people may see them, and as clients want them."""

from __future__ import annotations

import re
from urllib.parse import quote

_PASSWORD = re.compile(r"://([^:@/\s]*):(?:(?!://)\S)*@")
"""Up to the last ``@`` of each address: a password that is not quoted as it should be is one, too."""


def masked(url: str) -> str:
    """`url`, or several separated by commas, with ``***`` in the place of each password."""
    return _PASSWORD.sub(r"://\1:***@", url)


def with_credentials(url: str, user: str | None, password: str | None) -> str:
    """`url`, or several separated by commas, with user and password in each; as it is where there are none."""
    if user is None:
        return url
    return url.replace("://", f"://{quote(user, safe='')}:{quote(password or '', safe='')}@")
