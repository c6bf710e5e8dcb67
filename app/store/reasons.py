"""OpenSearch's reasons without document content, since they reach callers, reports and logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LENGTH = 300

_QUOTED = (
    # after these words OpenSearch quotes the value that it rejected
    (re.compile(r"\. Preview of field's value: .*", re.DOTALL), ""),
    (re.compile(r"For input string: .*", re.DOTALL), "not a number"),
    (re.compile(r"failed to parse date field \[.*?\] with format", re.DOTALL), "not a date of format"),
    (re.compile(r" in document with id '.*?'", re.DOTALL), ""),
    (re.compile(r"Text '.*?' could not be parsed", re.DOTALL), "a date could not be parsed"),
    (re.compile(r", all of which were skipped.*", re.DOTALL), ""),
    (re.compile(r"Numeric value \(.*?\) out of range", re.DOTALL), "a number is out of range"),
    (re.compile(r"\s+at \[Source: .*", re.DOTALL), ""),
)


def safe_reason(error: Mapping[str, Any]) -> str:
    """Return the text of OpenSearch's ``error`` object with its innermost cause, without the values that it quotes."""
    parts: list[str] = []
    level: object = error
    while isinstance(level, Mapping):
        reason = _clean(str(level.get("reason") or ""))
        if reason and not any(reason in part for part in parts):
            parts.append(reason)
        level = level.get("caused_by")
    if len(parts) > 2:  # between the first and the innermost there is only wrapping
        parts = [parts[0], parts[1]] if parts[-1].startswith("Failed to parse with all") else [parts[0], parts[-1]]
    return ": ".join(parts)[:_LENGTH]


def _clean(reason: str) -> str:
    for pattern, instead in _QUOTED:
        reason = pattern.sub(instead, reason)
    return " ".join(reason.split())
