"""What the commands write: JSON for programs, and texts of others made safe for a terminal."""

from __future__ import annotations

import sys

import orjson
from rich.markup import escape


def print_json(value: object) -> None:
    """One line of JSON on standard output, at once."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


def plain(text: str, *, lines: bool = True) -> str:
    """Documents and names are untrusted: neither rich's markup nor a terminal's control sequences come from them.

    Args:
        text: of somebody else.
        lines: whether it may break lines.
    """
    return escape("".join(ch for ch in text if ch.isprintable() or (lines and ch == "\n")))
