"""`braid ask`: ask a running service a question."""

from __future__ import annotations

from typing import Any

import click

from app.commands.options import query_body, service_options, settings_here
from app.commands.service_client import ServiceClient, ServiceProblem, print_degraded
from app.terminal import OUT, plain, print_json


@click.command("ask")
@click.argument("question", nargs=-1, required=True)
@service_options
def command(question: tuple[str, ...], url: str | None, key: str | None, as_json: bool, **how: Any) -> None:
    """Ask a running service; the answer comes with its citations."""
    done: dict[str, Any] = {}
    for event, data in ServiceClient(settings_here(url=url, api_key=key)).answer_events(query_body(question, **how)):
        if event == "token" and not as_json:
            OUT.print(plain(data["text"]), end="")
        elif event == "error":
            raise ServiceProblem(f"{data.get('title')}: {data.get('detail')}")
        elif event == "done":
            done = data
    if as_json:
        print_json(done)
        return
    OUT.print()
    for citation in done.get("citations", []):
        item = done["results"][citation["marker"] - 1]
        page = f", p. {citation['page']}" if citation.get("page") is not None else ""
        where = f"[{citation['marker']}] {item.get('title', '')}{page} ({citation['document_id']})"
        OUT.print(plain(f"{where}\n    {citation['quote']}"), style="dim")
    print_degraded(done)
