"""Keys: made, verified, altered by hand, revoked, replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.config import load_settings
from app.errors import ConfigurationError, InvalidInput, NotAuthenticated, NotFound, StoreError, StoreUnavailable
from app.gateway import keys as module
from app.gateway.caller import Caller
from app.gateway.keys import KEY, KeyRing
from app.gateway.roles import Role
from app.store.client import StoreRequestError
from tests.unit.gateway.keystore import SECRET, KeyStore

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def cluster() -> KeyStore:
    return KeyStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(cluster: KeyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    monkeypatch.setattr(module, "KEPT_S", 0.0)  # each look-up asks, but where a test says otherwise
    return KeyRing(load_settings(keys_secret=SECRET).access, cluster, clock)


def present(ring: KeyRing, key: str) -> Caller:
    found = KEY.fullmatch(key)
    assert found is not None
    return ring.verify(found[1], found[2])


def make(ring: KeyRing, **more: Any) -> tuple[str, str]:
    record, key = ring.create(**{"name": "a key", "tenant": "acme", **more})
    return record.id, key


def test_a_key_gives_its_tenant_groups_roles_and_rate(ring: KeyRing) -> None:
    key_id, key = make(ring, groups=["staff", "Ärzte"], roles=["search", "ingest"], rate="5/minute")
    caller = present(ring, key)
    assert caller.scope.tenant == "acme"
    assert caller.scope.principals == {"staff", "Ärzte"}
    assert caller.scope.subject == f"key:{key_id}"
    assert caller.roles == {Role.SEARCH, Role.INGEST}
    assert (caller.rate, caller.name, caller.is_operator) == ("5/minute", "a key", False)
    assert caller.has_role(Role.INGEST)
    assert not caller.has_role(Role.ADMIN)


def test_admin_sees_all_of_its_tenant_and_is_not_the_operator(ring: KeyRing) -> None:
    caller = present(ring, make(ring, groups=["staff"], roles=["admin"])[1])
    assert caller.scope.principals is None
    assert caller.scope.subject is not None
    assert not caller.is_operator
    assert all(caller.has_role(role) for role in Role)


def test_the_store_never_learns_the_key(ring: KeyRing, cluster: KeyStore) -> None:
    _, key = make(ring)
    assert re.fullmatch(r"braid_[0-9a-f]{24}_[0-9a-f]{64}", key)
    assert key.rpartition("_")[2] not in json.dumps(cluster.kept)
    assert SECRET not in json.dumps(cluster.kept)
    assert make(ring)[1] != key


def test_a_wrong_secret_and_an_unknown_id_are_refused_alike(ring: KeyRing, cluster: KeyStore) -> None:
    key_id, key = make(ring)
    flipped = key[:-1] + ("0" if key[-1] != "0" else "1")
    said = set()
    for wrong in (flipped, f"braid_{key_id}_{'0' * 64}", f"braid_{'0' * 24}_{key[-64:]}"):
        with pytest.raises(NotAuthenticated) as caught:
            present(ring, wrong)
        said.add(caught.value.detail)
        assert wrong[-64:] not in caught.value.detail
    assert said == {"the key is unknown"}
    del cluster.kept[key_id]
    with pytest.raises(NotAuthenticated, match="unknown"):
        present(ring, key)


def test_what_was_never_a_key_of_ours_costs_no_look_up(ring: KeyRing, cluster: KeyStore) -> None:
    for number in range(50):
        with pytest.raises(NotAuthenticated):
            ring.verify(f"{number:024x}", "0" * 64)
    assert cluster.asked == 0


def test_another_secret_takes_none_of_the_keys(ring: KeyRing, cluster: KeyStore) -> None:
    _, key = make(ring)
    other = KeyRing(load_settings(keys_secret=SECRET[::-1]).access, cluster)
    with pytest.raises(NotAuthenticated):
        present(other, key)
    assert [record.state(START) for record in other.all_keys()] == ["forged"]


@pytest.mark.parametrize(
    "alter",
    [
        lambda source: source.update(roles=["admin"]),
        lambda source: source.update(groups=["staff", "board"]),
        lambda source: source.update(groups="staff"),
        lambda source: source.update(tenant="other"),
        lambda source: source.update(rate=None),
        lambda source: source.pop("expires_at"),
        lambda source: source.update(expires_at="2099-01-01T00:00:00+00:00"),
        lambda source: source.pop("record_mac"),
        lambda source: source.update(record_mac="0" * 64),
        lambda source: source.update(record_mac=None),
        lambda source: source.update(record_mac="\ud800"),
        lambda source: source.update(name=7),
        lambda source: source.update(more="x"),
        lambda source: source.pop("secret_mac"),
        lambda source: source.clear(),
    ],
)
def test_an_altered_record_is_no_key(
    ring: KeyRing, cluster: KeyStore, alter: Callable[[dict[str, Any]], object], caplog: pytest.LogCaptureFixture
) -> None:
    key_id, key = make(ring, groups=["staff"], rate="5/minute", lifetime=timedelta(days=1))
    assert present(ring, key)
    alter(cluster.kept[key_id])
    with pytest.raises(NotAuthenticated, match="unknown"):
        present(ring, key)
    assert "changed by hand" in caplog.text
    assert key not in caplog.text
    assert [record.state(START) for record in ring.all_keys()] == ["forged"]
    with pytest.raises(InvalidInput, match="forged"):
        ring.rotate(key_id, timedelta(hours=1))


def test_the_record_of_one_key_is_none_of_another(ring: KeyRing, cluster: KeyStore) -> None:
    weak, weak_key = make(ring)
    strong, _ = make(ring, roles=["admin"])
    cluster.kept[weak] = dict(cluster.kept[strong])
    with pytest.raises(NotAuthenticated):
        present(ring, weak_key)
    assert {record.id: record.state(START) for record in ring.all_keys()} == {weak: "forged", strong: "active"}
    cluster.kept[weak] = {**cluster.kept[strong], "id": weak}
    with pytest.raises(NotAuthenticated):
        present(ring, weak_key)


def test_a_revoked_key_is_refused_and_can_not_be_unrevoked_by_hand(ring: KeyRing, cluster: KeyStore) -> None:
    key_id, key = make(ring)
    assert ring.revoke(key_id).state(START) == "revoked"
    with pytest.raises(NotAuthenticated, match="revoked"):
        present(ring, key)
    assert ring.revoke(key_id).revoked_at == START
    with pytest.raises(InvalidInput, match="revoked"):
        ring.rotate(key_id, timedelta(0))
    cluster.kept[key_id].pop("revoked_at")
    with pytest.raises(NotAuthenticated):
        present(ring, key)


def test_a_key_expires(ring: KeyRing, clock: Clock) -> None:
    key_id, key = make(ring, lifetime=timedelta(days=30))
    clock.now = START + timedelta(days=30, seconds=-1)
    assert present(ring, key)
    clock.now = START + timedelta(days=30)
    with pytest.raises(NotAuthenticated, match="expired"):
        present(ring, key)
    with pytest.raises(InvalidInput, match="expired"):
        ring.rotate(key_id, timedelta(0))


def test_expiry_needs_no_look_up(cluster: KeyStore, clock: Clock) -> None:
    ring = KeyRing(load_settings(keys_secret=SECRET).access, cluster, clock)
    _, key = make(ring, lifetime=timedelta(seconds=5))
    present(ring, key)
    clock.now = START + timedelta(seconds=5)
    with pytest.raises(NotAuthenticated, match="expired"):
        present(ring, key)
    assert cluster.asked == 1


def test_a_replaced_key_works_until_the_overlap_ends(ring: KeyRing, clock: Clock) -> None:
    key_id, old = make(ring, groups=["staff"], roles=["ingest"], rate="9/hour", lifetime=timedelta(days=30))
    clock.now = START + timedelta(days=20)
    record, new = ring.rotate(key_id, timedelta(hours=24))
    first, second = present(ring, old), present(ring, new)
    assert (first.roles, first.rate, first.scope.principals) == (second.roles, second.rate, second.scope.principals)
    assert first.scope.subject != second.scope.subject
    assert (record.rotated_from, record.expires_at) == (key_id, clock.now + timedelta(days=30))
    clock.now += timedelta(hours=24)
    with pytest.raises(NotAuthenticated, match="expired"):
        present(ring, old)
    assert present(ring, new)


def test_replacing_never_lengthens_the_old_key(ring: KeyRing, clock: Clock) -> None:
    key_id, old = make(ring, lifetime=timedelta(hours=1))
    ring.rotate(key_id, timedelta(days=9))
    clock.now = START + timedelta(hours=1)
    with pytest.raises(NotAuthenticated, match="expired"):
        present(ring, old)


def test_a_revocation_is_not_undone_by_a_replacement_at_the_same_time(
    ring: KeyRing, cluster: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, key = make(ring)
    real = module.store.create

    def create(*arguments: Any) -> None:
        ring.revoke(key_id)  # between the reading and the writing of the old record
        real(*arguments)

    monkeypatch.setattr(module.store, "create", create)
    with pytest.raises(InvalidInput, match="repeat the command"):
        ring.rotate(key_id, timedelta(hours=1))
    with pytest.raises(NotAuthenticated, match="revoked"):
        present(ring, key)
    assert set(cluster.kept) == {key_id}  # no key is left that nobody has


@pytest.mark.parametrize("lifetime", [None, timedelta(minutes=1), timedelta(days=30)])
@pytest.mark.parametrize("failure", [None, StoreUnavailable("away")])
def test_whoever_loses_a_race_of_replacements_leaves_nothing_behind(
    ring: KeyRing,
    cluster: KeyStore,
    monkeypatch: pytest.MonkeyPatch,
    lifetime: timedelta | None,
    failure: StoreError | None,
) -> None:
    key_id, _ = make(ring, lifetime=lifetime)
    real, winners = module.store.replace, []

    def replace(*arguments: Any) -> None:
        monkeypatch.setattr(module.store, "replace", real)
        if failure is not None:
            raise failure
        winners.append(ring.rotate(key_id, timedelta(hours=1))[0].id)
        real(*arguments)

    monkeypatch.setattr(module.store, "replace", replace)
    with pytest.raises((InvalidInput, StoreUnavailable)):
        ring.rotate(key_id, timedelta(hours=1))
    assert set(cluster.kept) == {key_id, *winners}


def test_a_record_is_trusted_for_a_second_and_no_longer(
    ring: KeyRing, cluster: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "KEPT_S", 1.0)
    key_id, key = make(ring)
    for _ in range(10):
        present(ring, key)
    assert cluster.asked == 1
    ring.revoke(key_id)
    assert present(ring, key)
    now += 1.0
    with pytest.raises(NotAuthenticated, match="revoked"):
        present(ring, key)


@pytest.mark.parametrize(
    "failure",
    [
        StoreUnavailable("away"),
        StoreRequestError("no", status_code=403, error_type="security_exception"),
        StoreError("no JSON"),
    ],
)
def test_a_store_that_can_not_say_lets_nobody_in_and_refuses_nobody(
    ring: KeyRing, cluster: KeyStore, failure: StoreError, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "KEPT_S", 1.0)
    _, seen = make(ring)
    _, unseen = make(ring)
    present(ring, seen)
    cluster.failure = failure
    assert present(ring, seen)
    with pytest.raises(StoreUnavailable):
        present(ring, unseen)
    now += 1.0
    with pytest.raises(StoreUnavailable):
        present(ring, seen)
    cluster.failure = None
    assert present(ring, seen)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"roles": ["search", "root"]},
            "role 'root' is unknown; known roles: search, ingest, feedback, admin, metrics",
        ),
        ({"roles": []}, "without roles"),
        ({"roles": ["Search"]}, "unknown"),
        ({"tenant": "a b"}, "tenant 'a b'"),
        ({"tenant": ""}, "tenant ''"),
        ({"tenant": "acme\n"}, "tenant"),
        ({"tenant": "аcme"}, "tenant"),  # Cyrillic
        ({"tenant": "ａcme"}, "tenant"),  # fullwidth
        ({"groups": ["user:ann"]}, "reserved for keys and users"),
        ({"groups": ["key:1"]}, "reserved for keys and users"),
        ({"groups": [" \t"]}, "blank"),
        ({"groups": ["a\nb"]}, "control"),
        ({"groups": ["a\u2028b"]}, "control"),
        ({"groups": ["\ud800"]}, "an unpaired surrogate"),
        ({"groups": ["x" * 257]}, "256"),
        ({"groups": [f"g{n}" for n in range(1001)]}, "1000"),
        ({"name": " "}, "blank"),
        ({"name": "\x1b[2J"}, "control"),
        ({"rate": "fast"}, "'fast' is not a rate limit"),
        ({"rate": "0/minute"}, "not a rate limit"),
        ({"rate": "5/minute trailing words"}, "not a rate limit"),
        ({"rate": "5/fortnight"}, "not a rate limit"),
        ({"rate": ""}, "not a rate limit"),
        ({"rate": "1/second;" * 50}, "not a rate limit"),
        ({"lifetime": timedelta(0)}, "pass a positive lifetime"),
        ({"lifetime": timedelta(days=10_000_000)}, "not a valid date"),
    ],
)
def test_bad_input_makes_no_key(ring: KeyRing, cluster: KeyStore, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        make(ring, **given)
    assert cluster.kept == {}


def test_unknown_ids_are_named(ring: KeyRing) -> None:
    for key_id in ("nothing", "0" * 24, "../braid-passages", ""):
        with pytest.raises(NotFound, match="braid keys list"):
            ring.revoke(key_id)
        with pytest.raises(NotFound):
            ring.rotate(key_id, timedelta(0))
    key_id, _ = make(ring)
    with pytest.raises(InvalidInput, match="negative"):
        ring.rotate(key_id, timedelta(seconds=-1))


def test_keys_need_a_secret() -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -hex 32"):
        KeyRing(load_settings().access, KeyStore())
    with pytest.raises(ConfigurationError, match="BRAID_KEYS_SECRET") as caught:
        load_settings(keys_secret="too short")
    assert "too short" not in str(caught.value)
