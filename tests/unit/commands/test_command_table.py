"""The table of `braid` against the commands, and what its help imports."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

import app.commands
from app.cli import COMMANDS, cli

HEAVY = {"pydantic", "numpy", "opensearchpy", "flask", "rich", "onnxruntime"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    found = cli.resolve_command(click.Context(cli), [name])[1]
    assert found is not None
    assert (found.name, found.get_short_help_str(1000)) == (name, COMMANDS[name])


def test_every_file_with_a_command_is_in_the_table() -> None:
    files = {path.stem for path in Path(app.commands.__path__[0]).glob("*.py")} - {"__init__"}
    assert {name for name in files if hasattr(import_module(f"app.commands.{name}"), "command")} == set(COMMANDS)
    assert list(COMMANDS) == sorted(COMMANDS)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_imports_nothing_heavy(argument: str) -> None:
    code = (
        f"import sys; sys.argv = ['braid', {argument!r}]; from app.cli import main; main(); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "click" in loaded
    assert not loaded & HEAVY
    assert argument == "--version" or all(f"  {name} " in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "app.cli", "ingets"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'ingets'. Did you mean 'ingest'?" in done.stderr
    assert "Traceback" not in done.stderr
