"""Values of cells as a spreadsheet shows them: the usual parts of Excel's number formats ("0.0 %", "dd.mm.yyyy")."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from functools import lru_cache

_LONGEST = 200
_SECTION = re.compile(r'((?:"[^"]*"|\\.|[^;"\\])*+);?')
_NUMBER = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|[_*].|\[\$(?P<currency>[^\]-]*)[^\]]*\]|\[[^\]]*\]|'
    r"(?P<digits>[0#?][0#?,]*(?:\.[0#?]*)?,*|\.[0#?]+)|(?P<other>.)"
)
_DATE = re.compile(r"(?i)y+|m+|d+|h+|s+(?:\.0+)?|am/pm|a/p")
_SHOWN = {
    "yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "dddd": "%A", "ddd": "%a", "dd": "%d", "hh": "%H",
    "ss": "%S", "am/pm": "%p",
}  # fmt: skip
_LOCAL = frozenset({"mm-dd-yy", "m/d/yy h:mm", "[$-f800]dddd, mmmm dd, yyyy", "[$-f400]h:mm:ss am/pm"})
"""Formats that each machine shows in its own country's order: ISO 8601 is the one that nobody misreads."""


def show(value: object, pattern: str) -> str:
    """Return a cell's value in its number format; in a plain form where the format is unusual."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, date | time):
        return _show_date(value, pattern)
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, int | float):
        return _show_number(value, pattern)
    return str(value)


def _show_date(value: date | time, pattern: str) -> str:
    plain = value.isoformat(" ", "minutes") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, datetime) and value.time() == time():
        plain = value.date().isoformat()
    pattern = _sections(pattern)[0]
    if pattern.lower() in _LOCAL or isinstance(value, time) or not re.search("(?i)[ymd]", pattern):
        return plain
    text, at, hours = "", 0, False
    clean = re.sub(r'\[[^\]]*\]|["\\]|[_*].', "", pattern)
    twelve = re.search("(?i)am/pm", clean) is not None
    for found in _DATE.finditer(clean):
        part = found[0].lower()
        minutes = part in ("m", "mm") and (hours or re.match(r"(?i)[^a-z]*s", clean[found.end() :]) is not None)
        hours = part[0] == "h"
        code = "%M" if minutes else "%I" if hours and twelve else _SHOWN.get(part if len(part) > 1 else part * 2)
        if code is None:
            return plain
        shown = value.strftime(code)
        text += clean[at : found.start()] + (shown.lstrip("0") or "0" if len(part) == 1 and not minutes else shown)
        at = found.end()
    return text + clean[at:]


def _show_number(value: int | float, pattern: str) -> str:
    sections = _sections(pattern)
    section = sections[0]
    if value < 0 and len(sections) > 1 and sections[1]:
        section, value = sections[1], -value
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    if section.lower() in ("", "general", "@") or re.search(r"(?i)[0#?]e[+-]|/|[ymdhs](?![^\[]*\])", _bare(section)):
        return _plain(value)
    parts = list(_NUMBER.finditer(section))
    for _ in range(sum(part["other"] == "%" for part in parts)):
        value *= 100
    text, placed = "", False
    for part in parts:
        if part["digits"] and not placed:
            text, placed = text + _digits(value, part["digits"]), True
        elif not part["digits"]:
            text += part["quoted"] or part["escaped"] or part["currency"] or part["other"] or ""
    return text


def _bare(section: str) -> str:
    return re.sub(r'"[^"]*"|\\.|\[[^\]]*\]', "", section)


def _digits(value: int | float, pattern: str) -> str:
    scaled = pattern.rstrip(",")
    value /= 1000 ** min(len(pattern) - len(scaled), 6)
    whole, _, decimals = scaled.partition(".")
    count = min(len(decimals), 30)
    text = f"{value:{',' if ',' in whole else ''}.{count}f}"
    optional = count - (decimals.rindex("0") + 1 if "0" in decimals else 0)
    for _ in range(optional):
        text = text[:-1] if text.endswith("0") else text
    text = text.rstrip(".")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + digits.rjust(whole.count("0") + (len(digits) - len(digits.partition(".")[0])), "0")


def _plain(value: int | float) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}" if isinstance(value, float) or value.bit_length() > 256 else str(value)


@lru_cache(1000)
def _sections(pattern: str) -> list[str]:
    if len(pattern) > _LONGEST:
        return ["General"]
    return [found[1] for found in _SECTION.finditer(pattern) if found[0]] or [""]
