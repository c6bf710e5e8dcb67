"""`braid reindex`: copy an index of passages into a new one, which takes its place."""

from __future__ import annotations

from dataclasses import asdict

import click

from app.commands.options import settings_here
from app.serving.opening import open_store
from app.store.reindex import reindex
from app.terminal import ERR, OUT, print_json


@click.command("reindex")
@click.argument("index", required=False)
@click.option("--json", "as_json", is_flag=True)
def command(index: str | None, as_json: bool) -> None:
    """Copy an index into a new one that takes its place: after an upgrade, or for other vectors or fields.

    INDEX is by default the one that is written. Ids, readers, vectors and token vectors stay. Searches go on; writes
    are refused meanwhile. See docs/upgrading.md.
    """
    store = open_store(settings_here())
    done = reindex(
        store.cluster,
        store.rendered,
        index,
        lambda copied: ERR.print(f"{copied} passages copied") if copied % 10_000 == 0 else None,
    )
    if as_json:
        print_json(asdict(done))
        return
    OUT.print(
        f"{done.new} has taken the place of {done.old}: {done.passages} passages, {done.heads} heads. "
        f"When all is well, delete {done.old}: docs/upgrading.md",
        markup=False,
    )
