"""API keys ``braid_<id>_<secret>``: created once, shown once; only MACs of them are stored.

The store has a record for each key. The whole record, and the secret, are authenticated with HMAC-SHA-256 under
`BRAID_KEYS_SECRET`, so that write access to the index does not suffice to create or widen a key. (HMAC instead of a
slow password hash, because the secret is 256 random bits that can't be guessed, and it is checked with every request.)
Half of the id is a MAC, too, so that an invented key is rejected without a look-up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from cachetools import LRUCache

from app.config.service import AccessSettings
from app.errors import ConfigurationError, InvalidInput, NotAuthenticated, NotFound, StoreError, StoreUnavailable
from app.gateway.caller import (
    KEY_PREFIX,
    MAX_GROUPS,
    Caller,
    group_problem,
    make_caller,
    name_problem,
    tenant_problem,
)
from app.gateway.rate_limits import parse_rate
from app.gateway.roles import Role, parse_roles
from app.store import key_records as store
from app.store.client import Cluster

KEY = re.compile(r"braid_([0-9a-f]{24})_([0-9a-f]{64})")
_ID = re.compile(r"[0-9a-f]{24}")
KEPT_S = 1.0
"""Seconds that a worker trusts a record: a revocation is effective everywhere after them."""
_KEPT_RECORDS = 4096

_log = logging.getLogger("braid.keys")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its secret; times are UTC. `valid`: the record's MAC matches this secret."""

    id: str
    name: str
    tenant: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    rate: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_from: str | None
    valid: bool = True

    def state(self, now: datetime) -> str:
        """Return ``active``, ``expired``, ``revoked``, or ``forged`` (made under another secret, or
        changed by hand).
        """
        if not self.valid:
            return "forged"
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def as_dict(self) -> dict[str, object]:
        """Return the key for ``--json``, without secrets."""
        return {
            "id": self.id,
            "name": self.name,
            "tenant": self.tenant,
            "groups": list(self.groups),
            "roles": list(self.roles),
            "rate": self.rate,
            "state": self.state(datetime.now(UTC)),
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at and self.expires_at.isoformat(),
            "revoked_at": self.revoked_at and self.revoked_at.isoformat(),
            "rotated_from": self.rotated_from,
        }


@dataclass(frozen=True, slots=True)
class _CachedRecord:
    """A record's caller as read; `asked_at` is the time before the look-up."""

    caller: Caller | None
    secret_mac: bytes
    expires_at: datetime | None
    revoked: bool
    asked_at: float = 0.0


_UNKNOWN = _CachedRecord(None, b"", None, False)


class KeyRing:
    """Verifies, creates, rotates and revokes keys. Thread-safe."""

    def __init__(
        self, access: AccessSettings, cluster: Cluster, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Create the key ring; nothing is read yet.

        Raises:
            ConfigurationError: BRAID_KEYS_SECRET is not set.
        """
        if access.keys_secret is None:
            raise ConfigurationError(
                "keys need BRAID_KEYS_SECRET, the same for the command line and all workers and hosts: "
                "create it with `openssl rand -hex 32`"
            )
        secret = access.keys_secret.get_secret_value().encode()
        # each use has its own key, so that a MAC for one use is never valid for another
        self._secrets = {
            use: hmac.digest(secret, f"braid keys {use}".encode(), hashlib.sha256) for use in ("id", "secret", "record")
        }
        self._cluster = cluster
        self._clock = clock
        self._known: LRUCache[str, _CachedRecord] = LRUCache(_KEPT_RECORDS)
        self._lock = threading.Lock()

    def verify(self, key_id: str, secret: str) -> Caller:
        """Return the caller of a key.

        Args:
            key_id: the first part of what `KEY` matches.
            secret: the second.

        Raises:
            NotAuthenticated: the key is unknown, wrong, altered, expired or revoked.
            StoreUnavailable, StoreError: the store does not answer, and the last record is older than a second.
        """
        if not hmac.compare_digest(key_id, self._id(key_id[:16])):
            raise NotAuthenticated("the key is unknown")
        known = self._look_up(key_id)
        if not hmac.compare_digest(known.secret_mac, self._mac("secret", f"{key_id}:{secret}".encode())):
            raise NotAuthenticated("the key is unknown")
        if known.caller is None:
            raise NotAuthenticated("the key is unknown")
        if known.revoked:
            raise NotAuthenticated("the key was revoked")
        if known.expires_at is not None and known.expires_at <= self._clock():
            raise NotAuthenticated("the key has expired")
        return known.caller

    def create(
        self,
        *,
        name: str,
        tenant: str,
        groups: Iterable[str] = (),
        roles: Iterable[str] = (Role.SEARCH,),
        lifetime: timedelta | None = None,
        rate: str | None = None,
    ) -> tuple[KeyRecord, str]:
        """Create a key; return its record, and the key itself, which is not stored.

        Args:
            groups: groups of ACLs, unchanged.
            roles: names of `Role`.
            lifetime: time until it expires; None: unlimited.
            rate: limits in the form of the library `limits`, such as ``100/minute;10000/day``; None: the service's.

        Raises:
            InvalidInput: an argument is invalid; the message says which, and why.
            StoreError: OpenSearch is unavailable or rejected the request.
        """
        now = self._now()
        if rate is not None:
            parse_rate(rate)
        if lifetime is not None and lifetime <= timedelta(0):
            raise InvalidInput(f"a key can't be valid for {lifetime}: pass a positive lifetime")
        return self._make(
            {
                "name": _checked("name", name, name_problem(name)),
                "tenant": _checked("tenant", tenant, tenant_problem(tenant)),
                "groups": _groups(groups),
                "roles": sorted(parse_roles(roles)) or _reject_empty("roles"),
                "rate": rate,
                "created_at": now.isoformat(),
                "expires_at": None if lifetime is None else _add_time(now, lifetime).isoformat(),
            }
        )

    def rotate(self, key_id: str, overlap: timedelta) -> tuple[KeyRecord, str]:
        """Create a key with the rights, limits and lifetime of another one, which expires after `overlap`.

        Raises:
            NotFound: there is no such key.
            InvalidInput: it was revoked, has expired, was changed by hand, or was changed meanwhile.
            StoreError: OpenSearch is unavailable or rejected the request.
        """
        if overlap < timedelta(0):
            raise InvalidInput(f"overlap {overlap} is negative")
        stored, old = self._stored(key_id)
        now = self._now()
        if (state := old.state(now)) != "active":
            raise InvalidInput(f"key {key_id} is {state}: it can't be rotated: create a new one")
        expires = None if old.expires_at is None else _add_time(now, old.expires_at - old.created_at).isoformat()
        fields = {field: stored.source.get(field) for field in ("name", "tenant", "groups", "roles", "rate")}
        ends = _add_time(now, overlap) if old.expires_at is None else min(_add_time(now, overlap), old.expires_at)
        made = self._make({**fields, "created_at": now.isoformat(), "expires_at": expires, "rotated_from": key_id})
        try:
            # even if it does not expire earlier: a concurrent revocation must win
            store.replace(self._cluster, stored, self._sealed({**stored.source, "expires_at": ends.isoformat()}))
        except (InvalidInput, StoreError) as error:
            self._forget(made[0].id, error)
            raise
        return made

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key; services reject it within `KEPT_S`. Revoking it again changes nothing.

        Raises:
            NotFound: there is no such key.
            InvalidInput: it was changed meanwhile.
            StoreError: OpenSearch is unavailable or rejected the request.
        """
        stored, old = self._stored(key_id)
        if old.valid and old.revoked_at is not None:
            return old
        source = self._sealed({**stored.source, "revoked_at": self._now().isoformat()})
        store.replace(self._cluster, stored, source)
        return self._record(key_id, source)

    def all_keys(self) -> list[KeyRecord]:
        """Return all keys of all tenants, oldest first. Raises StoreError."""
        records = [self._record(key_id, source) for key_id, source in store.all_records(self._cluster)]
        return sorted(records, key=lambda key: key.created_at)

    def _look_up(self, key_id: str) -> _CachedRecord:
        asked_at = time.monotonic()
        with self._lock:
            known = self._known.get(key_id)
        if known is not None and asked_at - known.asked_at < KEPT_S:
            return known
        try:
            stored = store.get(self._cluster, key_id)
        except StoreUnavailable:
            raise
        except StoreError as error:  # the store answered with a failure, so that the key is neither valid nor invalid
            raise StoreUnavailable(f"the key can't be looked up: {error.detail}") from error
        known = _UNKNOWN if stored is None else self._read(key_id, stored.source)
        known = dataclasses.replace(known, asked_at=asked_at)
        with self._lock:
            self._known[key_id] = known
        return known

    def _read(self, key_id: str, source: Mapping[str, Any]) -> _CachedRecord:
        record = self._record(key_id, source)
        if not record.valid:
            _log.warning("key %s: its record was changed by hand, or made under another BRAID_KEYS_SECRET", key_id)
            return _UNKNOWN
        caller = make_caller(
            tenant=record.tenant,
            groups=record.groups,
            roles=frozenset(role for role in Role if role in record.roles),
            subject=f"{KEY_PREFIX}{record.id}",
            name=record.name,
            rate=record.rate,
        )
        mac = bytes.fromhex(source["secret_mac"])
        return _CachedRecord(caller, mac, record.expires_at, record.revoked_at is not None)

    def _stored(self, key_id: str) -> tuple[store.StoredKey, KeyRecord]:
        stored = store.get(self._cluster, key_id) if _ID.fullmatch(key_id) else None
        if stored is None:
            raise NotFound(f"there is no key {key_id[:40]!r}; `braid keys list` shows the existing ones")
        return stored, self._record(key_id, stored.source)

    def _make(self, fields: Mapping[str, Any]) -> tuple[KeyRecord, str]:
        key_id, secret = self._id(secrets.token_hex(8)), secrets.token_hex(32)
        mac = self._mac("secret", f"{key_id}:{secret}".encode()).hex()
        source = self._sealed({**fields, "id": key_id, "secret_mac": mac})
        store.create(self._cluster, key_id, source)
        return self._record(key_id, source), f"braid_{key_id}_{secret}"

    def _forget(self, key_id: str, why: InvalidInput | StoreError) -> None:
        """Remove a created key that will not be shown to anybody, because of `why`."""
        try:
            store.delete(self._cluster, key_id)
        except StoreError as error:
            raise StoreUnavailable(
                f"{why.detail}; key {key_id} was created, but not shown: run `braid keys revoke {key_id}`"
            ) from error

    def _record(self, key_id: str, source: Mapping[str, Any]) -> KeyRecord:
        """Return a record as read; content that we do not write is invalid, whatever its MAC."""
        try:
            return KeyRecord(
                id=key_id,
                name=source["name"],
                tenant=source["tenant"],
                groups=tuple(source["groups"]),
                roles=tuple(source["roles"]),
                rate=source.get("rate"),
                created_at=datetime.fromisoformat(source["created_at"]),
                expires_at=_time(source.get("expires_at")),
                revoked_at=_time(source.get("revoked_at")),
                rotated_from=source.get("rotated_from"),
                valid=source["id"] == key_id
                and hmac.compare_digest(str(source.get("record_mac")).encode(), self._seal(source)),
            )
        except (KeyError, TypeError, ValueError):
            nothing = datetime.fromtimestamp(0, UTC)
            return KeyRecord(key_id, "?", "?", (), (), None, nothing, None, None, None, False)

    def _sealed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        source = {name: value for name, value in fields.items() if value is not None and name != "record_mac"}
        return {**source, "record_mac": self._seal(source).decode()}

    def _seal(self, source: Mapping[str, Any]) -> bytes:
        fields = {name: value for name, value in source.items() if name != "record_mac"}
        return self._mac("record", orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hex().encode()

    def _id(self, random: str) -> str:
        return random + self._mac("id", random.encode()).hex()[:8]

    def _mac(self, use: str, message: bytes) -> bytes:
        return hmac.digest(self._secrets[use], message, hashlib.sha256)

    def _now(self) -> datetime:
        return self._clock().replace(microsecond=0)


def _groups(groups: Iterable[str]) -> list[str]:
    found = sorted({_checked("group", group, group_problem(group)) for group in groups})
    if len(found) > MAX_GROUPS:
        raise InvalidInput(f"{len(found)} groups are more than a key can have ({MAX_GROUPS})")
    return found


def _checked(what: str, value: str, problem: str | None) -> str:
    if problem is not None:
        raise InvalidInput(f"{what} {ascii(value)[:300]}: {problem}")
    return value


def _reject_empty(what: str) -> list[str]:
    raise InvalidInput(f"a key without {what} has no rights: pass some")


def _add_time(now: datetime, by: timedelta) -> datetime:
    try:
        return now + by
    except OverflowError as error:
        raise InvalidInput(f"{by.days} days from now is not a valid date: pass less") from error


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
