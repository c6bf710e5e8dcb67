"""Terminal output of commands: JSON for programs, tables for people, untrusted text made safe."""

from __future__ import annotations

import sys

import orjson
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
_UNLIMITED = 1_000_000
"""Number of columns that no text exceeds."""


def print_json(value: object) -> None:
    """Print one line of JSON on standard output and flush it."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


def plain(text: str, *, lines: bool = True) -> str:
    """Return untrusted text without terminal control sequences, escaped for rich's markup.

    Args:
        lines: whether line breaks are allowed.
    """
    return escape("".join(ch for ch in text if ch.isprintable() or (lines and ch == "\n")))


def print_table(console: Console, table: Table) -> None:
    """Print a table: in the terminal's width, or else as wide as its texts. No cell is cut."""
    for column in table.columns:
        column.overflow = "fold"
    if not console.is_terminal:
        table.expand = False
        wide = console.options.update(max_width=_UNLIMITED)
        width = Measurement.get(console, wide, table).maximum
        console = Console(file=console.file, width=width, highlight=False)
    console.print(table, crop=False, soft_wrap=False)
