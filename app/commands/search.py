"""`braid search`: search a running service."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from app.commands.options import query_body, service_options, settings_here
from app.commands.service_client import ServiceClient, print_degraded
from app.terminal import OUT, plain, print_json, print_table


@click.command("search")
@click.argument("query", nargs=-1, required=True)
@service_options
def command(query: tuple[str, ...], url: str | None, key: str | None, as_json: bool, **how: Any) -> None:
    """Search a running service."""
    found = ServiceClient(settings_here(url=url, api_key=key)).search(query_body(query, **how))
    if as_json:
        print_json(found)
        return
    table = Table(show_lines=True, expand=True)
    for name, ratio in (("score", 1), ("where", 4), ("passage", 10)):
        table.add_column(name, ratio=ratio, overflow="fold")
    for item in found["results"]:
        page = f" p. {item['page']}" if item["page"] is not None else ""
        text = item["text"] if len(item["text"]) <= 400 else item["text"][:400] + " …"
        heading = f"\n{item['section_heading']}" if item["section_heading"] else ""
        table.add_row(
            f"{item['score']:.3f}", plain(f"{item['title']}{page}{heading}\n{item['document_id']}"), plain(text)
        )
    print_table(OUT, table)
    least = "at least " if found["total_relation"] == "gte" else ""
    OUT.print(f"{least}{found['total']} found in {found['timings']['total_ms']:.0f} ms", markup=False)
    print_degraded(found)
