"""`braid keys`: make, list, revoke and replace API keys, straight in the store."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from app.config import Settings
from app.errors import InvalidInput
from app.gateway.audit import AuditLog, timestamp
from app.gateway.keys import KeyRecord, KeyRing
from app.local.output import plain, print_json
from app.local.state import AUDIT_FILE
from app.store.client import Cluster

_DURATION = re.compile(r"([0-9]{1,9}) *(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def create(
    settings: Settings,
    *,
    name: str,
    tenant: str | None,
    groups: Sequence[str],
    roles: Sequence[str],
    expires: str | None,
    rate: str | None,
    as_json: bool,
    console: Console,
) -> int:
    """`braid keys create`; the exit code.

    Raises:
        ConfigurationError, InvalidInput, StoreError: as `KeyRing.create`.
    """
    lifetime = None if expires is None else parse_duration(expires, "--expires")
    with _ring(settings) as ring:
        record, key = ring.create(
            name=name, tenant=tenant or settings.tenant, groups=groups, roles=roles, lifetime=lifetime, rate=rate
        )
    audit(settings, "key-created", record)
    _show_new(record, key, as_json=as_json, console=console)
    return 0


def rotate(settings: Settings, key_id: str, *, overlap: str, as_json: bool, console: Console) -> int:
    """`braid keys rotate`; the exit code. Raises as `KeyRing.rotate`, and InvalidInput for a wrong `overlap`."""
    span = parse_duration(overlap, "--overlap")
    with _ring(settings) as ring:
        record, key = ring.rotate(key_id, span)
    audit(settings, "key-rotated", record)
    _show_new(record, key, as_json=as_json, console=console)
    if not as_json:
        console.print(f"key {key_id} ends within {overlap}", markup=False)
    return 0


def revoke(settings: Settings, key_id: str, *, as_json: bool, console: Console) -> int:
    """`braid keys revoke`; the exit code. Raises as `KeyRing.revoke`."""
    with _ring(settings) as ring:
        record = ring.revoke(key_id)
    audit(settings, "key-revoked", record)
    if as_json:
        print_json(as_dict(record))
    else:
        console.print(f"key {record.id} is revoked; services refuse it within two seconds", markup=False)
    return 0


def list_keys(settings: Settings, *, as_json: bool, console: Console) -> int:
    """`braid keys list`; the exit code. Raises StoreError."""
    with _ring(settings) as ring:
        records = ring.all_keys()
    if as_json:
        print_json([as_dict(record) for record in records])
        return 0
    if not records:
        console.print("there are no keys; `braid keys create --name NAME` makes one", markup=False)
        return 0
    now = datetime.now(UTC)
    table = Table()
    for column in ("id", "name", "tenant", "roles", "groups", "rate", "state", "expires"):
        # the other commands want the whole id, however narrow the terminal is
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
    console.print(table, soft_wrap=False)
    return 0


def parse_duration(text: str, what: str) -> timedelta:
    """A length of time such as ``90s``, ``30m``, ``24h``, ``30d`` or ``2w``.

    Raises:
        InvalidInput: it is none; `what` is the option's name.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{what} {text[:40]!r} is no length of time: write it such as 90s, 30m, 24h, 30d or 2w")
    try:
        return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    except OverflowError as error:
        raise InvalidInput(f"{what} {text!r} is longer than calendars reach: give less") from error


def as_dict(record: KeyRecord) -> dict[str, object]:
    """A key as ``--json`` writes it, without anything secret."""
    return {
        "id": record.id,
        "name": record.name,
        "tenant": record.tenant,
        "groups": list(record.groups),
        "roles": list(record.roles),
        "rate": record.rate,
        "state": record.state(datetime.now(UTC)),
        "created_at": record.created_at.isoformat(),
        "expires_at": record.expires_at and record.expires_at.isoformat(),
        "revoked_at": record.revoked_at and record.revoked_at.isoformat(),
        "rotated_from": record.rotated_from,
    }


def audit(settings: Settings, action: str, record: KeyRecord) -> None:
    """A line in the service's audit log, where that is a file which this process can write to.

    Args:
        settings: the file, or else that of a `braid up` with the same data folder.
        action: ``key-created``, ``key-rotated`` or ``key-revoked``.
        record: the key; of a rotation the new one, which names the old one.
    """
    target = settings.audit_log
    if "audit_log" not in settings.model_fields_set and (settings.data_dir / AUDIT_FILE).is_file():
        target = str(settings.data_dir / AUDIT_FILE)
    if target in {"off", "stderr"}:
        return
    log = AuditLog(target)
    log.write(
        {
            "time": timestamp(),
            "action": action,
            "tenant": record.tenant,
            "subject": None,
            "name": f"braid keys, by {_user()}",
            "key": record.id,
            "key_name": record.name,
            "rotated_from": record.rotated_from,
        }
    )
    log.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return f"uid {os.getuid()}"


@contextmanager
def _ring(settings: Settings) -> Iterator[KeyRing]:
    cluster = Cluster(settings)
    try:
        yield KeyRing(settings, cluster)
    finally:
        cluster.close()


def _show_new(record: KeyRecord, key: str, *, as_json: bool, console: Console) -> None:
    if as_json:
        print_json({**as_dict(record), "key": key})
        return
    console.print(key, markup=False)
    ends = "never expires" if record.expires_at is None else f"expires {record.expires_at.isoformat()}"
    shown = f"key {record.id} ({record.name}): tenant {record.tenant}, roles {', '.join(record.roles)}, {ends}"
    console.print(plain(shown, lines=False))
    console.print("It is shown this once and kept nowhere: store it now.", markup=False)
