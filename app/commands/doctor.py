"""`braid doctor`: check this machine, the models and the cluster, and name the remedy for each failure."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click
from rich.table import Table

from app.commands.options import settings_here
from app.dev.checks import examine
from app.terminal import OUT, print_json, print_table


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True)
def command(as_json: bool) -> None:
    """Check this machine, the cluster and the models; name the remedy for each problem."""
    findings = list(examine(settings_here()))
    if as_json:
        print_json([asdict(item) for item in findings])
    else:
        table = Table("check", "", "found", "remedy", expand=True)
        for item in findings:
            colour = {"ok": "green", "warning": "yellow", "failed": "red"}[item.status]
            table.add_row(item.check, f"[{colour}]{item.status}[/]", item.found, item.remedy)
        print_table(OUT, table)
    sys.exit(1 if any(item.status == "failed" for item in findings) else 0)
