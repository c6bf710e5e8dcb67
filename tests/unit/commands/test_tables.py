"""Tables of commands: what goes into a pipe or a file is never cut, nor folded."""

from __future__ import annotations

import ast
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

import app.commands
from app.cli import cli
from app.terminal import print_table

LONG = "braid-passages-0123456789-" * 12
FILES = sorted(Path(app.commands.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("expand", [False, True])
def test_a_table_in_a_pipe_has_its_cells_whole(expand: bool) -> None:
    table = Table("kind", "name", expand=expand)
    for _ in range(5):
        table.add_column("another", ratio=1)
    table.add_row("index", LONG, *[LONG] * 5)
    out = io.StringIO()
    print_table(Console(file=out, width=80), table)
    assert out.getvalue().count(LONG) == 6
    assert "…" not in out.getvalue()


def test_a_table_on_a_terminal_keeps_to_its_width_and_folds() -> None:
    table = Table("kind", "name")
    table.add_row("index", LONG)
    out = io.StringIO()
    print_table(Console(file=out, width=80, force_terminal=True, color_system=None), table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out.getvalue()
    assert "".join(line.split("│")[2].strip() for line in lines if line.startswith("│")) == LONG


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_prints_its_tables_so(path: Path) -> None:
    """A table that a command makes goes to `print_table`, and nowhere else."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    made = sum(ast.unparse(call.func) == "Table" for call in calls)
    assert sum(ast.unparse(call.func) == "print_table" for call in calls) == made
    for call in calls:
        if ast.unparse(call.func).endswith(".print"):
            assert "table" not in [ast.unparse(argument) for argument in call.args]


def test_flags_list(tmp_path: Path) -> None:
    tenant = "t" * 64
    found = CliRunner(env={"BRAID_DATA_DIR": str(tmp_path)}).invoke(cli, ["flags", "list", "--tenant", tenant])
    assert found.exit_code == 0
    assert f"for {tenant}" in found.stdout
    assert "…" not in found.stdout


class _Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        item = {"score": 1.0, "title": LONG, "page": 3, "section_heading": None, "document_id": LONG, "text": "words"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            json.dumps({"results": [item], "total": 1, "total_relation": "eq", "timings": {"total_ms": 1}}).encode()
        )

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_search(service: str, tmp_path: Path) -> None:
    found = CliRunner(env={"BRAID_DATA_DIR": str(tmp_path)}).invoke(cli, ["search", "words", "--url", service])
    assert found.exit_code == 0, found.exception
    assert found.stdout.count(LONG) == 2
