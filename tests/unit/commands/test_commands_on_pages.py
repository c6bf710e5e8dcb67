"""The commands that pages show exist, with the options that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app.cli import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
HISTORY = {"decisions.md"}
"""Also names what is planned."""
SHOWN = re.compile(r"`braid ([^`]+)`|^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?braid ([^\n#|&;]+)", re.MULTILINE)


def shown(page: Path) -> Iterator[list[str]]:
    """The words of each command on a page, without `braid`."""
    for inline, block in SHOWN.findall(page.read_text().replace("\\\n", " ")):
        words = (inline or block).split()
        if re.fullmatch("[a-z]+", words[0]):
            yield words


def resolve(words: list[str]) -> click.Command:
    """The command that the words name. Raises UsageError: there is none."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith(("-", "[")):
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: str(page.name))
def test_commands_and_options_exist(page: Path) -> None:
    for words in shown(page):
        known = {option for parameter in resolve(words).params for option in parameter.opts} | {"--help", "-h"}
        named = {word.strip("[],.").partition("=")[0] for word in words if re.match(r"\[?--[a-z]", word)}
        assert named <= known, f"braid {' '.join(words)}"
