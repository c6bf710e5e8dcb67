"""`braid acl`: change the readers of a document."""

from __future__ import annotations

from typing import Any

import click

from app.access import RESTRICTIONS
from app.commands.options import restriction_options, restrictions, settings_here
from app.commands.service_client import ServiceClient
from app.terminal import OUT, plain, print_json


@click.command("acl")
@click.argument("document_id")
@click.option("--reader", "readers", multiple=True, help="A group, user:SUB or public; may be given again.")
@click.option("--nobody", is_flag=True, help="In place of --reader: only the operator and admins.")
@restriction_options
@click.option(
    "--open",
    "opened",
    multiple=True,
    type=click.Choice(RESTRICTIONS),
    help="Remove this restriction; may be given again.",
)
@click.option("--url", help="URL of the service (BRAID_URL).")
@click.option("--key", help="API key (BRAID_API_KEY).")
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer.")
def command(
    document_id: str,
    readers: tuple[str, ...],
    nobody: bool,
    opened: tuple[str, ...],
    url: str | None,
    key: str | None,
    as_json: bool,
    **lists: Any,
) -> None:
    """Change the readers of a document of a running service; effective when the command ends.

    Lists that are not named stay unchanged. Nothing is read or embedded again. Ingesting the source again keeps the
    change, unless it names other readers.
    """
    change = restrictions(lists)
    if nobody and readers:
        raise click.UsageError("pass --reader or --nobody, not both")
    if both := sorted(change.keys() & set(opened)):
        raise click.UsageError(f"--{both[0].replace('_', '-')} and --open {both[0]}: pass one of them")
    change |= dict.fromkeys(opened, ())
    if nobody or readers:
        change["acl"] = readers
    if not change:
        raise click.UsageError("pass each reader with --reader, or pass --nobody, a restriction (--acl-1), or --open")
    changed = ServiceClient(settings_here(url=url, api_key=key)).change_readers(document_id, change)
    if as_json:
        print_json(changed)
        return
    who = ", ".join(changed["acl"]) or "nobody but the operator and admins"
    for name in RESTRICTIONS:
        if changed.get(name):
            who += f"; {name}: {', '.join(changed[name])}"
    OUT.print(plain(f"{changed['document_id']} ({changed['passages']} passages): {who}"))
