"""docs/commands.md is what the commands say. To write it anew: ``python -m tests.unit.commands.test_reference``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from app.cli import COMMANDS, cli

PAGE = Path(__file__).resolve().parents[3] / "docs" / "commands.md"
WIDTH = 116
HEAD = """\
# Commands

Written from the commands by `python -m tests.unit.commands.test_reference`. What `braid up` and the service read from
the environment (`BRAID_*`): [configuration.md](configuration.md).

| exit code | means |
|---|---|
| 0 | it was done |
| 1 | it failed, or found what the command's text names; standard error says why in one line |
| 2 | a setting or an option is wrong |
| 130 | it was broken off with Ctrl-C |
"""


def page() -> str:
    """The page: each command with its arguments and options, as ``--help`` shows them."""
    return "\n".join([HEAD, *sections(cli, click.Context(cli, info_name="braid", **cli.context_settings))])


def sections(group: click.Group, context: click.Context) -> Iterator[str]:
    """A section for each command of a group, and for those below it."""
    for name in group.list_commands(context):
        command = group.resolve_command(context, [name])[1]
        assert command is not None
        inner = click.Context(command, context, name, terminal_width=WIDTH)
        yield f"## {inner.command_path}\n\n```text\n{command.get_help(inner)}\n```\n"
        if isinstance(command, click.Group):
            yield from sections(command, inner)


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_page_names_every_command() -> None:
    assert all(f"\n## braid {name}\n" in page() for name in COMMANDS)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
