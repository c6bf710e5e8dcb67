"""Values in requests and documents, and their validation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, WithJsonSchema


def not_blank(value: str) -> str:
    """Return `value` unchanged.

    Raises:
        ValueError: it is blank, or contains NUL characters (which OpenSearch rejects).
    """
    if not value.strip():
        raise ValueError("must hold at least one character that is not white space")
    if "\x00" in value:
        raise ValueError("must not hold NUL characters")
    return value


def nfc(value: str) -> str:
    """Return `value` in Unicode's composed form: macOS and some keyboards send ``é`` as two characters."""
    return value if value.isascii() else unicodedata.normalize("NFC", value)


def check_control_characters(value: str) -> str:
    """Return `value` unchanged; ids appear in terminals, logs and URLs.

    Raises:
        ValueError: it contains control characters or unpaired surrogates.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError(f"{value!r} contains control characters: remove them")
    return value


def printable(text: str) -> str:
    """Escape everything in `text` that could disturb a terminal, a log or UTF-8."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)


MOST_READERS = 1000
"""Maximum entries of one access list."""
LONGEST_READER = 261
"""Maximum characters: 256 of a group, and ``user:`` before a user's."""


def reader(value: str) -> str:
    """Return one entry of an access list unchanged: names are compared by code point, never folded or trimmed.

    Raises:
        ValueError: it is blank, too long, or contains control characters, line separators or unpaired surrogates.
    """
    if len(value) > LONGEST_READER:
        raise ValueError(f"must have at most {LONGEST_READER} characters")
    if any(unicodedata.category(character) in ("Zl", "Zp") for character in value):
        raise ValueError(f"{value!r} contains line separators: remove them")
    return check_control_characters(not_blank(value))


def readers(values: Sequence[str]) -> tuple[str, ...]:
    """Return an access list; with an empty one only the operator and admins have access.

    Raises:
        ValueError: there are more than 1000 entries, or as `reader`.
    """
    if len(values) > MOST_READERS:
        raise ValueError(f"must have at most {MOST_READERS} entries")
    return tuple(dict.fromkeys(reader(value) for value in values))


def restriction(values: Sequence[str]) -> tuple[str, ...]:
    """Return a further list that a reader must satisfy. An absent one is open, so an empty one is rejected.

    Raises:
        ValueError: it is empty, or as `readers`.
    """
    if not values:
        raise ValueError("is empty: add entries, or omit it (PATCH with an empty list removes it)")
    return readers(values)


LANGUAGE_PATTERN = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}$"


def language_tag(value: str) -> str:
    """Return a language tag (BCP 47, such as ``de`` or ``zh-Hant``) in lower case.

    Raises:
        ValueError: it is not a language tag.
    """
    if not re.fullmatch(LANGUAGE_PATTERN, value):
        raise ValueError(f"{value[:40]!r} is not a language tag such as en, de or zh-hant (BCP 47)")
    return value.lower()


_DATE = TypeAdapter(datetime)


def _integral(value: object) -> object:
    """Accept 10.0 as the integer 10: JSON has one kind of number (as JSON Schema says)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_integral)]


def parse_iso_date(value: str) -> str:
    """Check that `value` is ISO 8601; OpenSearch gets the text, and takes a date in `lte` as the end of that day."""
    if value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        raise ValueError(f"{value!r} is a number, not an ISO 8601 date such as 2024-05-31 or 2024-05-31T12:00:00Z")
    parsed = _DATE.validate_python(value)
    if not 1 <= parsed.year <= 9999:  # pragma: no cover  # datetime can't hold other years
        raise ValueError("the year must lie between 1 and 9999")
    return value if "T" not in value.upper() and " " not in value else parsed.isoformat()


Value = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(not_blank), AfterValidator(nfc)]
Identifier = Annotated[Value, AfterValidator(check_control_characters)]
Language = Annotated[
    str,
    AfterValidator(language_tag),
    WithJsonSchema({"type": "string", "minLength": 2, "maxLength": 40, "pattern": LANGUAGE_PATTERN}),
]
"""A tag of BCP 47 such as ``de`` or ``zh-Hant``, in any case."""
PageNumber = Annotated[Integer, Field(ge=1, le=1_000_000)]
IsoDate = Annotated[str, StringConstraints(min_length=8, max_length=40), AfterValidator(parse_iso_date)]
