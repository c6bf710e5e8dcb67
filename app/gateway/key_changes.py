"""Changes to API keys from the command line: the open key ring, and a line of the audit log for each change."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from app.config import Settings
from app.gateway.audit import AuditLog, timestamp
from app.gateway.keys import KeyRecord, KeyRing
from app.store.client import Cluster


@contextmanager
def open_ring(settings: Settings) -> Iterator[KeyRing]:
    """Open the key ring for the duration of the block. Raises ConfigurationError as `KeyRing`."""
    cluster = Cluster(settings.opensearch)
    try:
        yield KeyRing(settings.access, cluster)
    finally:
        cluster.close()


def log_key_change(target: str, action: str, record: KeyRecord) -> None:
    """Write a line to the service's audit log, if that is a file.

    Args:
        action: ``key-created``, ``key-rotated`` or ``key-revoked``.
        record: the key; after a rotation the new one, which names the old one.
    """
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
