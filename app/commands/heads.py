"""`braid heads`: compare passages with the heads of their documents, and repair differences."""

from __future__ import annotations

import sys

import click
from rich.markup import escape

from app.commands.options import settings_here
from app.ingest.sweep import sweep_heads
from app.store import documents, head_audit, heads
from app.store.client import connect
from app.terminal import OUT, print_json
from app.values import printable

_MOST_SHOWN = 50


@click.group("heads")
def command() -> None:
    """Heads, which record the live version of each document: docs/write-protocol.md."""


@command.command("build")
@click.option("--index", help="Build heads for this index, before an alias points to it (docs/store.md).")
@click.option("--json", "as_json", is_flag=True)
def build(index: str | None, as_json: bool) -> None:
    """Create heads for documents without one: after the index of heads was lost, or passages were added without it."""
    cluster = connect(settings_here().opensearch)
    heads.ensure_index(cluster)
    documents.refresh(cluster)
    built = head_audit.build(cluster, index)
    if as_json:
        print_json({"built": built})
    else:
        OUT.print(f"created heads for {built} documents that had none")


@command.command("audit")
@click.option(
    "--erase",
    is_flag=True,
    help="Erase passages that can't become live; let ingest rewrite incomplete documents.",
)
@click.option("--json", "as_json", is_flag=True)
def audit(erase: bool, as_json: bool) -> None:
    """Compare all passages with the heads: after a restore, before an index is replaced."""
    cluster = connect(settings_here().opensearch)
    documents.refresh(cluster)
    found = head_audit.audit(cluster)
    erased = len(sweep_heads(cluster, found.strays)) if erase and found.strays else 0
    left = len(found.strays) - erased
    disowned = head_audit.disown(cluster, found.lacking) if erase else 0
    strays = [(head.tenant, head.document_id) for head in found.strays]
    if as_json:
        print_json(
            {
                "documents": found.documents,
                "strays": strays,
                "erased": erased,
                "incomplete": found.incomplete,
                "disowned": disowned,
                "headless": found.headless,
            }
        )
    else:
        remedy = "erased" if not left else "never shown by the service; `braid heads audit --erase` erases them"
        _show(strays, f"documents have passages that can't become live: {remedy}")
        again = "ingest them again" if erase else "`braid heads audit --erase`, then ingest them again"
        _show(found.incomplete, f"documents lack passages: {again}")
        _show(found.headless, "documents have no head and are not shown: `braid heads build`, or ingest them")
        OUT.print(f"{found.documents} documents compared")
    sys.exit(1 if left or found.incomplete or found.headless else 0)


def _show(names: list[tuple[str, str]], what: str) -> None:
    if not names:
        return
    OUT.print(f"{len(names)} {what}")
    for tenant, document_id in names[:_MOST_SHOWN]:
        OUT.print(f"  {escape(printable(tenant))}: {escape(printable(document_id))}")
    if len(names) > _MOST_SHOWN:
        OUT.print(f"  ... and {len(names) - _MOST_SHOWN} more; --json lists all")
