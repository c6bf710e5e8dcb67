"""Cleaning of parsed text for storage: single spaces, no control characters, no unpaired surrogates."""

from __future__ import annotations

import re
import unicodedata

_UNICODE_SPACE = re.compile(r"\s+")
_LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_REMOVED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # controls
    "\u00ad\u200b\u2060\ufeff"  # soft hyphen, zero width space, word joiner, byte order mark
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: they can hide or reorder text
    "\ufdd0-\ufdef\ufff9-\uffff"  # noncharacters, interlinear marks; the replacement character carries no information
    "\U000e0000-\U000e007f"  # tags: invisible
    "]"
)
_COMPATIBLE = re.compile("[\ufb00-\ufb06\ufb13-\ufb17\ufb50-\ufdcf\ufdf0-\ufdfb\ufe70-\ufefc]+")
"""Ligatures and Arabic presentation forms: shapes, not letters. For other characters NFKC would change the meaning (x²,
½)."""
_BULLETS = str.maketrans({"\uf0b7": "•", "\uf0a7": "▪", "\uf0a8": "▪", "\uf0d8": "▸", "\uf0fc": "✓", "\uf076": "❖"})
_PRIVATE = re.compile("[\ue000-\uf8ff]")
"""Private use: glyph numbers of symbol fonts; the usual bullets among them are mapped."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def tidy(text: str) -> str:
    """Repair surrogates, remove controls and invisible characters, expand ligatures; white space is unchanged."""
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _REMOVED.sub("", text)
    if text.isascii():
        return text
    text = _PRIVATE.sub("", text.translate(_BULLETS))
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return unicodedata.normalize("NFC", text)


def clean(text: str) -> str:
    """Apply `tidy` and collapse white space to single spaces: the text of all blocks except code."""
    return " ".join(tidy(_UNICODE_SPACE.sub(" ", text)).split())


def clean_code(text: str) -> str:
    """Apply `tidy`, keep line breaks and indentation; tabs become four spaces, empty lines at the ends are removed."""
    lines = [tidy(line).expandtabs(4).rstrip() for line in _LINE_BREAK.sub("\n", text).split("\n")]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines)


_SEPARATORS = re.compile(r"[_\s]+|%20|(?<=\w)-(?=\w)|(?<=[^\W\d])\.(?=[^\W\d])")


def title_from_name(stem: str) -> str:
    """Return a readable title from a file name without extension: ``annual-report_2024`` -> ``annual report 2024``."""
    spaced = clean(_SEPARATORS.sub(" ", stem))
    return spaced or clean(stem) or "Untitled"


_TOOL_TITLE = re.compile(
    r"(?i)^(untitled|\((anonymous|unspecified|untitled)\)|unbenannt|sans titre|document|dokument|presentation|slide|"
    r"präsentation|powerpoint presentation|"
    r"title|default|none|null|microsoft (word|powerpoint|excel)\b.*|layout \d+|print|pii:.*|doi:.*|"
    r".*\.(docx?|pptx?|pdf|tex|dvi|ps|indd|qxd|odt|odp|ods|xlsx?|rtf|html?|md|txt|fm|eps|ai)|"
    r"[\W\d_]*|\S{1,2})\s*\d*$"
)


def sensible_title(title: str | None) -> str:
    """Return a file's metadata title if it looks as if a person wrote it, else an empty text."""
    cleaned = clean(title or "")
    return "" if len(cleaned) > 300 or _TOOL_TITLE.match(cleaned) else cleaned
