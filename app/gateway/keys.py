"""API keys: ``braid_<id>_<secret>``. Made once, shown once; only MACs of them are kept.

The store holds a record for each key. Everything in it, and the secret, is authenticated with HMAC-SHA-256 under
`BRAID_KEYS_SECRET`: who can write to the index, but has not that secret, can neither make a key nor widen one. (HMAC,
and no slow password hash: the secret is 256 random bits, which nobody guesses, and it is checked with every request.)
Half of the id is a MAC as well, so that what was never a key of ours is refused without asking the store.
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

from app.config import Settings
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
from app.gateway.limits import parse_rate
from app.gateway.roles import Role, parse_roles
from app.store import keys as store
from app.store.client import Cluster

KEY = re.compile(r"braid_([0-9a-f]{24})_([0-9a-f]{64})")
_ID = re.compile(r"[0-9a-f]{24}")
KEPT_S = 1.0
"""How long a worker trusts a record that it has read: a revocation is in force everywhere after it."""
_KEPT_RECORDS = 4096

_log = logging.getLogger("braid.keys")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What a key is, without its secret; times are UTC. `valid`: the record's MAC is right under this secret."""

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
        """``active``, ``expired``, ``revoked``, or ``forged`` (made under another secret, or changed by hand)."""
        if not self.valid:
            return "forged"
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class _Known:
    """A record's caller, as it was read: `asked_at` is of the moment before the store was asked."""

    caller: Caller | None
    secret_mac: bytes
    expires_at: datetime | None
    revoked: bool
    asked_at: float = 0.0


_UNKNOWN = _Known(None, b"", None, False)


class KeyRing:
    """Verifies keys, makes, replaces and revokes them. Thread-safe."""

    def __init__(
        self, settings: Settings, cluster: Cluster, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Prepare; the store is not asked yet.

        Raises:
            ConfigurationError: there is no BRAID_KEYS_SECRET.
        """
        if settings.keys_secret is None:
            raise ConfigurationError(
                "keys need BRAID_KEYS_SECRET, the same for the command line and all workers and hosts: "
                "`openssl rand -hex 32` makes one"
            )
        secret = settings.keys_secret.get_secret_value().encode()
        # each use has a key of its own, so that a MAC of one can never pass for one of another
        self._secrets = {
            use: hmac.digest(secret, f"braid keys {use}".encode(), hashlib.sha256) for use in ("id", "secret", "record")
        }
        self._cluster = cluster
        self._clock = clock
        self._known: LRUCache[str, _Known] = LRUCache(_KEPT_RECORDS)
        self._lock = threading.Lock()

    def verify(self, key_id: str, secret: str) -> Caller:
        """The caller of a presented key.

        Args:
            key_id: the first part of what `KEY` matches.
            secret: the second.

        Raises:
            NotAuthenticated: unknown, wrong, altered, expired or revoked.
            StoreUnavailable, StoreError: the store can't be asked, and did not say within the last second.
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
        """Make a key; what it is, and the key itself, which is kept nowhere.

        Args:
            name: what lists and logs call it.
            tenant: whose documents it is for.
            groups: of ACLs, as they are.
            roles: names of `Role`.
            lifetime: None: until it is revoked.
            rate: limits in the form of the library `limits`, such as ``100/minute;10000/day``; None: the service's.

        Raises:
            InvalidInput: any of these is not usable; which, and why.
            StoreError: OpenSearch is away or refused.
        """
        now = self._now()
        if rate is not None:
            parse_rate(rate)
        if lifetime is not None and lifetime <= timedelta(0):
            raise InvalidInput(f"a key can't live for {lifetime}: give it more than nothing")
        return self._make(
            {
                "name": _checked("name", name, name_problem(name)),
                "tenant": _checked("tenant", tenant, tenant_problem(tenant)),
                "groups": _groups(groups),
                "roles": sorted(parse_roles(roles)) or _nothing("roles"),
                "rate": rate,
                "created_at": now.isoformat(),
                "expires_at": None if lifetime is None else _later(now, lifetime).isoformat(),
            }
        )

    def rotate(self, key_id: str, overlap: timedelta) -> tuple[KeyRecord, str]:
        """Make a key with the rights, limits and lifetime of another, which ends after `overlap`.

        Raises:
            NotFound: there is no such key.
            InvalidInput: it was revoked, has expired, or was changed by hand, or by somebody else meanwhile.
            StoreError: OpenSearch is away or refused.
        """
        if overlap < timedelta(0):
            raise InvalidInput(f"overlap {overlap} is negative")
        stored, old = self._stored(key_id)
        now = self._now()
        if (state := old.state(now)) != "active":
            raise InvalidInput(f"key {key_id} is {state}: it can't be replaced; make a new one")
        expires = None if old.expires_at is None else _later(now, old.expires_at - old.created_at).isoformat()
        fields = {field: stored.source.get(field) for field in ("name", "tenant", "groups", "roles", "rate")}
        ends = _later(now, overlap) if old.expires_at is None else min(_later(now, overlap), old.expires_at)
        made = self._make({**fields, "created_at": now.isoformat(), "expires_at": expires, "rotated_from": key_id})
        try:
            # also where it ends no sooner: who has revoked it meanwhile must win
            store.replace(self._cluster, stored, self._sealed({**stored.source, "expires_at": ends.isoformat()}))
        except (InvalidInput, StoreError) as error:
            self._forget(made[0].id, error)
            raise
        return made

    def revoke(self, key_id: str) -> KeyRecord:
        """End a key now; services refuse it within `KEPT_S`. Revoking one again changes nothing.

        Raises:
            NotFound: there is no such key.
            InvalidInput: somebody else changed it meanwhile.
            StoreError: OpenSearch is away or refused.
        """
        stored, old = self._stored(key_id)
        if old.valid and old.revoked_at is not None:
            return old
        source = self._sealed({**stored.source, "revoked_at": self._now().isoformat()})
        store.replace(self._cluster, stored, source)
        return self._record(key_id, source)

    def all_keys(self) -> list[KeyRecord]:
        """All keys of all tenants, oldest first. Raises StoreError."""
        records = [self._record(key_id, source) for key_id, source in store.every(self._cluster)]
        return sorted(records, key=lambda key: key.created_at)

    def _look_up(self, key_id: str) -> _Known:
        asked_at = time.monotonic()
        with self._lock:
            known = self._known.get(key_id)
        if known is not None and asked_at - known.asked_at < KEPT_S:
            return known
        try:
            stored = store.get(self._cluster, key_id)
        except StoreUnavailable:
            raise
        except StoreError as error:  # asked, and no answer to what was asked: neither yes nor no
            raise StoreUnavailable(f"the key can't be looked up: {error.detail}") from error
        known = _UNKNOWN if stored is None else self._read(key_id, stored.source)
        known = dataclasses.replace(known, asked_at=asked_at)
        with self._lock:
            self._known[key_id] = known
        return known

    def _read(self, key_id: str, source: Mapping[str, Any]) -> _Known:
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
        return _Known(caller, mac, record.expires_at, record.revoked_at is not None)

    def _stored(self, key_id: str) -> tuple[store.Stored, KeyRecord]:
        stored = store.get(self._cluster, key_id) if _ID.fullmatch(key_id) else None
        if stored is None:
            raise NotFound(f"there is no key {key_id[:40]!r}; `braid keys list` names those that there are")
        return stored, self._record(key_id, stored.source)

    def _make(self, fields: Mapping[str, Any]) -> tuple[KeyRecord, str]:
        key_id, secret = self._id(secrets.token_hex(8)), secrets.token_hex(32)
        mac = self._mac("secret", f"{key_id}:{secret}".encode()).hex()
        source = self._sealed({**fields, "id": key_id, "secret_mac": mac})
        store.create(self._cluster, key_id, source)
        return self._record(key_id, source), f"braid_{key_id}_{secret}"

    def _forget(self, key_id: str, why: InvalidInput | StoreError) -> None:
        """Remove a key that was made and will not be told to anybody, because of `why`."""
        try:
            store.delete(self._cluster, key_id)
        except StoreError as error:
            raise StoreUnavailable(
                f"{why.detail}; key {key_id} was made, and nobody has it: `braid keys revoke {key_id}`"
            ) from error

    def _record(self, key_id: str, source: Mapping[str, Any]) -> KeyRecord:
        """A record as it is read; what is not as we write it is not valid, whatever its MAC."""
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


def _nothing(what: str) -> list[str]:
    raise InvalidInput(f"a key without {what} can do nothing: give it some")


def _later(now: datetime, by: timedelta) -> datetime:
    try:
        return now + by
    except OverflowError as error:
        raise InvalidInput(f"{by.days} days from now is no date: give less") from error


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
