"""docs/configuration.md is what the settings say; ``python -m tests.unit.test_configuration_page`` writes it anew."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from app.config import REMOVED, SECTIONS, SETTINGS, Setting
from tests.unit.generated import DOCS

PAGE = DOCS / "configuration.md"
WIDTH = 120
HEAD = """\
# Configuration

Written from the settings by `python -m tests.unit.test_configuration_page`. What the reranker's own server reads:
[reranker.md](reranker.md).

Every setting is an environment variable, read once at start; an empty one counts as not set. Options of the command
line go before the variables. A wrong value, or a `BRAID_` variable that is no setting, stops the start with its name,
the value (unless it is a secret) and what is allowed, or the nearest name.
"""
UNITS = {1024**3: "GiB", 1024**2: "MiB", 1024: "KiB"}
MANY = 12
"""More values than these are described, not listed."""


def page() -> str:
    """The page: each section with its text, and a table of its settings."""
    parts = [HEAD]
    for name, settings in groupby(SETTINGS.values(), lambda setting: setting.section):
        title, _, text = inspect.cleandoc(SECTIONS[name].__doc__ or "").partition("\n\n")
        parts.append(f"## {title.removesuffix('.')}\n")
        if text:
            parts.append(f"{wrapped(text)}\n")
        rows = [f"| {' | '.join(row(setting))} |" for setting in settings]
        parts.append("\n".join(["| variable | default | values | meaning |", "|---|---|---|---|", *rows, ""]))
    parts.append("## Removed\n\nA start that finds one of these is refused.\n")
    parts.append("\n".join(wrapped(f"- `{name}` {why}.", indent="  ") for name, why in REMOVED.items()) + "\n")
    return "\n".join(parts)


def row(setting: Setting) -> Iterator[str]:
    """The cells of a setting's row."""
    yield f"`{setting.variables[0]}`"
    yield default(setting)
    yield ", ".join(values(setting.info.annotation, setting.info.metadata))
    yield linked(" ".join((setting.info.description or "").split()))


def default(setting: Setting) -> str:
    """The default as it is written in a variable; a number of bytes also as people read it."""
    value = setting.info.default
    if value is None or value is PydanticUndefined:  # what is computed is told in its description
        return "none" if value is None else ""
    if isinstance(value, bool):
        return str(value).lower()
    unit = next((unit for unit in UNITS if setting.field.endswith("bytes") and value % unit == 0), None)
    if unit is not None:
        return f"{value} ({value // unit} {UNITS[unit]})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def values(annotation: Any, metadata: list[Any]) -> Iterator[str]:
    """What a setting may be: its type where that is not plain, and its bounds."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        annotation, *own = get_args(annotation)
        metadata = [*own, *metadata]
    if get_origin(annotation) is Literal and len(choices := get_args(annotation)) <= MANY:
        yield from (f"`{choice}`" for choice in choices)
    if annotation is bool:
        yield from ("`true`", "`false`")
    if annotation is SecretStr:
        yield "secret"
    for bound in metadata:
        match bound:
            case annotated_types.Ge(least):
                most = next((other.le for other in metadata if isinstance(other, annotated_types.Le)), None)
                yield f"{least} to {most}" if most is not None else f"{least} or more"
            case annotated_types.Gt(least):
                most = next((other.le for other in metadata if isinstance(other, annotated_types.Le)), None)
                yield f"more than {least}" + (f", {most} at most" if most is not None else "")
            case annotated_types.MinLen(least):
                yield f"{least} characters or more"


def wrapped(text: str, indent: str = "") -> str:
    """Paragraphs in lines as long as the page's."""
    paragraphs = (linked(part) for part in text.split("\n\n"))
    fill = textwrap.TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False).fill
    return "\n\n".join(map(fill, paragraphs))


def linked(text: str) -> str:
    """Text in which the names of pages are links."""
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", text)


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_a_setting_is_described_in_sentences(setting: Setting) -> None:
    said = setting.info.description or ""
    assert said.rstrip(")").endswith("."), said
    assert f"`{setting.variables[0]}`" in page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
