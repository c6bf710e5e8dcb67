"""`braid keys`: create, list, revoke and rotate API keys directly in the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table

from app.commands.options import parse_duration, settings_here
from app.dev.state import audit_target
from app.gateway.key_changes import log_key_change, open_ring
from app.gateway.keys import KeyRecord
from app.terminal import OUT, plain, print_json, print_table


@click.group("keys")
def command() -> None:
    """API keys of callers: docs/access.md. They need BRAID_KEYS_SECRET."""


@command.command("create")
@click.option("--name", required=True, help="Name in lists and logs.")
@click.option("--tenant", help="Tenant of the documents (default: BRAID_TENANT).")
@click.option("--group", "groups", multiple=True, help="Group in documents' ACLs; may be given again.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    default=["search"],
    show_default=True,
    help="search, ingest, feedback, metrics, admin; may be given again.",
)
@click.option("--expires", metavar="TIME", help="Lifetime, such as 12h, 30d, 52w (default: unlimited).")
@click.option("--rate", metavar="LIMITS", help="Rate limits of the key, such as '100/minute;10000/day'.")
@click.option("--json", "as_json", is_flag=True)
def create(tenant: str | None, expires: str | None, as_json: bool, **rights: Any) -> None:
    """Create a key and print it; it can't be printed again."""
    settings = settings_here()
    lifetime = None if expires is None else parse_duration(expires, "--expires")
    with open_ring(settings) as ring:
        record, key = ring.create(tenant=tenant or settings.access.tenant, lifetime=lifetime, **rights)
    log_key_change(audit_target(settings), "key-created", record)
    _show_new(record, key, as_json=as_json)


@command.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_keys(as_json: bool) -> None:
    """List all keys of all tenants with their rights, without the keys themselves."""
    with open_ring(settings_here()) as ring:
        records = ring.all_keys()
    if as_json:
        print_json([record.as_dict() for record in records])
        return
    if not records:
        OUT.print("there are no keys: create one with `braid keys create --name NAME`", markup=False)
        return
    now = datetime.now(UTC)
    table = Table()
    for column in ("id", "name", "tenant", "roles", "groups", "rate", "state", "expires"):
        # the other commands need the full id, however narrow the terminal is
        table.add_column(column, no_wrap=column == "id", min_width=24 if column == "id" else None, overflow="fold")
    for record in records:
        cells = (
            record.id,
            record.name,
            record.tenant,
            ", ".join(record.roles),
            ", ".join(record.groups),
            record.rate or "",
            record.state(now),
            record.expires_at.isoformat() if record.expires_at is not None else "never",
        )
        table.add_row(*(plain(cell, lines=False) for cell in cells))
    print_table(OUT, table)


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True)
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke a key; all services reject it within two seconds."""
    settings = settings_here()
    with open_ring(settings) as ring:
        record = ring.revoke(key_id)
    log_key_change(audit_target(settings), "key-revoked", record)
    if as_json:
        print_json(record.as_dict())
    else:
        OUT.print(f"key {record.id} is revoked; services reject it within two seconds", markup=False)


@command.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap", metavar="TIME", default="24h", show_default=True, help="Time for which the old key stays valid."
)
@click.option("--json", "as_json", is_flag=True)
def rotate(key_id: str, overlap: str, as_json: bool) -> None:
    """Replace a key by a new one with the same rights, and print it; it can't be printed again."""
    settings = settings_here()
    span = parse_duration(overlap, "--overlap")
    with open_ring(settings) as ring:
        record, key = ring.rotate(key_id, span)
    log_key_change(audit_target(settings), "key-rotated", record)
    _show_new(record, key, as_json=as_json)
    if not as_json:
        OUT.print(f"key {key_id} ends within {overlap}", markup=False)


def _show_new(record: KeyRecord, key: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**record.as_dict(), "key": key})
        return
    OUT.print(key, markup=False)
    ends = "never expires" if record.expires_at is None else f"expires {record.expires_at.isoformat()}"
    shown = f"key {record.id} ({record.name}): tenant {record.tenant}, roles {', '.join(record.roles)}, {ends}"
    OUT.print(plain(shown, lines=False))
    OUT.print("It is shown only now and stored nowhere: save it.", markup=False)
