"""`braid heads`: compares passages with the heads of their documents, and mends what differs."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from app.config import Settings
from app.ingest.sources import printable
from app.ingest.sweep import sweep_heads
from app.local.output import print_json
from app.store import audit, documents, heads
from app.store.client import connect

_MOST_SHOWN = 50


def build(settings: Settings, *, index: str | None, as_json: bool, console: Console) -> int:
    """`braid heads build`; the exit code. Raises StoreError."""
    cluster = connect(settings)
    heads.ensure_index(cluster)
    documents.refresh(cluster)
    built = audit.build(cluster, index)
    if as_json:
        print_json({"built": built})
    else:
        console.print(f"made heads for {built} documents that had none")
    return 0


def audit_heads(settings: Settings, *, erase: bool, as_json: bool, console: Console) -> int:
    """`braid heads audit`; the exit code: 1 where something is wrong that is not mended. Raises StoreError."""
    cluster = connect(settings)
    documents.refresh(cluster)
    found = audit.audit(cluster)
    erased = len(sweep_heads(cluster, found.strays)) if erase and found.strays else 0
    left = len(found.strays) - erased
    disowned = audit.disown(cluster, found.lacking) if erase else 0
    if as_json:
        print_json(
            {
                "documents": found.documents,
                "strays": [[head.tenant, head.document_id] for head in found.strays],
                "erased": erased,
                "incomplete": found.incomplete,
                "disowned": disowned,
                "headless": found.headless,
            }
        )
    else:
        strays = [(head.tenant, head.document_id) for head in found.strays]
        remedy = "erased" if not left else "never shown by the service; `braid heads audit --erase` erases them"
        _show(console, strays, f"documents have passages that can't be in force: {remedy}")
        again = "ingest them again" if erase else "`braid heads audit --erase`, then ingest them again"
        _show(console, found.incomplete, f"documents lack passages: {again}")
        _show(console, found.headless, "documents have no head and are not shown: `braid heads build`, or ingest them")
        console.print(f"{found.documents} documents compared")
    return 1 if left or found.incomplete or found.headless else 0


def _show(console: Console, names: list[tuple[str, str]], what: str) -> None:
    if not names:
        return
    console.print(f"{len(names)} {what}")
    for tenant, document_id in names[:_MOST_SHOWN]:
        console.print(f"  {escape(printable(tenant))}: {escape(printable(document_id))}")
    if len(names) > _MOST_SHOWN:
        console.print(f"  ... and {len(names) - _MOST_SHOWN} more; --json lists all")
