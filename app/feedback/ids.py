"""Query ids: 32 hex digits in the layout of UUIDv7; the time in an id determines the index that stores it.

RFC 9562, section 5.7: 48 bits of milliseconds, then the version 7, the variant, and 74 random bits. Python has it in
the standard library from 3.14.
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime, timedelta

PATTERN = r"^[0-9a-f]{32}$"

_VERSION_7 = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_MS = 253_402_300_800_000
"""First millisecond beyond the range of `datetime`."""


def new_query_id() -> str:
    """Return a new id; ids sort by their time, to the millisecond."""
    bits = int(time.time() * 1000) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 7 << 76
    bits = bits & ~(0x3 << 62) | 2 << 62
    return f"{bits:032x}"


def made_at(query_id: str) -> datetime | None:
    """Return the time of the id in UTC; None if this service can't have made it."""
    if not _VERSION_7.fullmatch(query_id):
        return None
    milliseconds = int(query_id[:12], 16)
    if milliseconds >= _YEAR_10000_MS:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)
