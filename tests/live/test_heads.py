"""Lost heads, passages that no head names, and what killed writers leave: found and mended on the real node."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from app.access import Access
from app.errors import StoreNotReady, StoreUnavailable
from app.ingest import sweep
from app.ingest.protocol import Steps
from app.ingest.records import ready_document
from app.ingest.single import change_readers, delete_document, ingest_document
from app.ingest.sweep import Sweeper, sweep_heads
from app.passage import passage_id
from app.store.bulk import bulk_index
from app.store.documents import count, get_document, live_heads, read_version, refresh
from app.store.filters import Scope
from app.store.head_audit import audit, build, disown
from app.store.heads import Head, Version, find_open, forget_deleted, read_heads, write_heads
from app.store.index_names import existing
from tests.live.leak.world import World

pytestmark = pytest.mark.live


@pytest.fixture
def tenant() -> str:
    return f"heads-{uuid4().hex[:12]}"


def put(world: World, tenant: str, document_id: str, text: str, **more: Any) -> None:
    document = ready_document({"document_id": document_id, "text": text, **more}, tenant=tenant, source_id="tests")
    encoder = world.client.application.extensions["braid"].encoder
    ingest_document(document, settings=world.settings, cluster=world.cluster, encoder=encoder)


def forget(world: World, tenant: str, document_id: str) -> None:
    (head,) = read_heads(world.cluster, [Head(tenant, document_id)]).values()
    world.cluster.request("DELETE", f"/braid-heads/_doc/{head.key}", params={"refresh": "true"})


def left_behind(world: World, head: Head, token: str, position: int = 0) -> None:
    """Passages of an attempt that no head names any more."""
    (one, *_) = read_version(world.cluster, head)
    key = passage_id(head.tenant, head.document_id, token, position)
    bulk_index(world.cluster, [replace(one, id=key, content_hash=token, position=position)])
    refresh(world.cluster)


def test_lost_heads_are_built_from_the_passages(world: World, tenant: str) -> None:
    put(world, tenant, "a", "The ledger of A.", acl=["hr"])
    put(world, tenant, "b", "The ledger of B.")
    (head,) = live_heads(world.cluster, Scope(tenant), "a")
    left_behind(world, head, f"{'0' * 64}~1-00000000", position=1)  # not complete: can't be the one in force
    for name in "ab":
        forget(world, tenant, name)
    assert live_heads(world.cluster, Scope(tenant), "a") == []
    assert {(tenant, "a"), (tenant, "b")} <= set(audit(world.cluster).headless)
    assert build(world.cluster) >= 2
    assert build(world.cluster) == 0
    found, passages = get_document(world.cluster, Scope(tenant), "a")
    assert (found.version, found.access, found.content_hash) == (head.version, head.access, head.content_hash)
    assert [item["text"] for item in passages] == ["The ledger of A."]
    sweep_heads(world.cluster, live_heads(world.cluster, Scope(tenant), "a"))
    assert count(world.cluster, tenant) == 2
    assert not {name for name in audit(world.cluster).headless if name[0] == tenant}


def test_passages_that_no_head_names_are_found_and_erased_for_good(world: World, tenant: str) -> None:
    put(world, tenant, "d", "The ledger.")
    (head,) = live_heads(world.cluster, Scope(tenant), "d")
    token = f"{'0' * 64}~1-00000000"
    left_behind(world, head, token)
    strays = [item for item in audit(world.cluster).strays if item.tenant == tenant]
    assert [item.garbage for item in strays] == [(Version(token, 1, head.version.index if head.version else ""),)]
    assert count(world.cluster, tenant) == 2
    (swept,) = sweep_heads(world.cluster, strays)
    assert swept.version == head.version
    assert count(world.cluster, tenant) == 1
    # what arrives late finds that it was erased
    (passage,) = read_version(world.cluster, head)
    late = replace(passage, id=passage_id(tenant, "d", token, 0), content_hash=token)
    assert head.version is not None
    bulk_index(world.cluster, [late], index=head.version.index, versions={"d": 9})
    refresh(world.cluster)
    assert count(world.cluster, tenant) == 1


def test_a_version_in_force_that_lacks_passages_is_named(world: World, tenant: str) -> None:
    put(world, tenant, "d", "\n".join(f"The ledger of part {n}. {'Much more. ' * 60}" for n in range(9)))
    (head,) = live_heads(world.cluster, Scope(tenant), "d")
    assert head.version is not None
    assert head.version.passages > 2
    assert (tenant, "d") not in audit(world.cluster).incomplete
    gone = passage_id(tenant, "d", head.version.token, 1)
    world.cluster.request("DELETE", f"/{head.version.index}/_doc/{gone}", params={"refresh": "true"})
    assert (tenant, "d") in audit(world.cluster).incomplete


@pytest.mark.parametrize("step", ["intent", "stage", "commit", "erase", "hide", "clear"])
def test_what_a_writer_leaves_that_dies_is_swept(
    world: World, tenant: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer ends before a step; the old or the new version is in force, whole, and nothing else stays."""

    class Killed(Exception):
        pass

    def kill(reached: str, heads: object) -> None:
        if reached == step:
            raise Killed

    put(world, tenant, "d", "The ledger.")
    monkeypatch.setattr("app.ingest.protocol.observe", kill)
    with pytest.raises(Killed):
        put(world, tenant, "d", "The ledger, new.")
    monkeypatch.setattr("app.ingest.protocol.observe", None)
    committed = step in {"erase", "hide", "clear"}
    expected = "The ledger, new." if committed else "The ledger."
    assert [item["text"] for item in get_document(world.cluster, Scope(tenant), "d")[1]] == [expected]
    monkeypatch.setattr(sweep, "_REST_S", 0.0)
    monkeypatch.setattr(sweep, "_PENDING_REST_S", 0.0)
    world.cluster.request("POST", "/braid-heads/_refresh")
    for _ in range(20):  # on a busy node an erasure may outlast a sweep's patience: the next one finishes it
        Sweeper(world.cluster).sweep()
        (head,) = live_heads(world.cluster, Scope(tenant), "d")
        if not head.open:
            break
        time.sleep(0.5)
    assert not head.open
    assert count(world.cluster, tenant) == 1
    world.cluster.request("POST", "/braid-heads/_refresh")
    assert tenant not in {item.tenant for item in find_open(world.cluster)}


def test_a_head_is_written_only_as_it_was_read(world: World, tenant: str) -> None:
    put(world, tenant, "d", "The ledger.")
    steps = Steps(world.cluster)
    (first,) = live_heads(world.cluster, Scope(tenant), "d")
    change_readers(world.cluster, Scope(tenant), "d", {"acl": ("hr",)})
    assert [item.outcome for item in steps.write("commit", [replace(first, unsettled=True)])] == ["conflict"]
    new = Head(tenant, "other")
    assert [item.outcome for item in write_heads(world.cluster, [new, new])] == ["stored", "conflict"]


def test_heads_of_documents_that_are_gone_for_long_are_forgotten(world: World, tenant: str) -> None:
    for name in ("gone", "there"):
        put(world, tenant, name, "The ledger.", acl=["hr"])
    delete_document(world.cluster, Scope(tenant), "gone")
    world.cluster.request("POST", "/braid-heads/_refresh")
    assert forget_deleted(world.cluster, days=1) == 0
    (head,) = read_heads(world.cluster, [Head(tenant, "gone")]).values()
    assert head.access == Access(("hr",))
    assert forget_deleted(world.cluster, days=0) >= 1
    heads = read_heads(world.cluster, [Head(tenant, "gone"), Head(tenant, "there")])
    assert [item.exists for item in heads.values()] == [False, True]
    put(world, tenant, "gone", "The ledger, again.")
    assert [item.access for item in live_heads(world.cluster, Scope(tenant), "gone")] == [Access()]


def test_a_head_that_cant_be_tidied_up_keeps_no_other_one_open(
    world: World, tenant: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Passages in force are gone, so that its readers can't be settled; it is tried again after a pause."""
    monkeypatch.setattr(sweep, "_REST_S", 0.0)
    names = ["a", "b", "stuck", "y", "z"]
    for name in names:
        put(world, tenant, name, f"The ledger of {name}.")
    wanted = [Head(tenant, name) for name in names]
    heads = {head.document_id: head for head in read_heads(world.cluster, wanted).values()}
    version = heads["stuck"].version
    assert version is not None
    gone = passage_id(tenant, "stuck", version.token, 0)
    world.cluster.request("DELETE", f"/{version.index}/_doc/{gone}", params={"refresh": "true"})
    dead = Version(f"{'0' * 64}~1-00000000", 1, version.index)
    write_heads(world.cluster, [replace(head, garbage=(dead,), unsettled=True) for head in heads.values()])
    world.cluster.request("POST", "/braid-heads/_refresh")
    sweeper = Sweeper(world.cluster)
    swept = [head.document_id for head in sweeper.sweep() if head.tenant == tenant]
    assert sorted(swept) == ["a", "b", "y", "z"]
    assert "run `braid heads audit`" in caplog.text
    now = {head.document_id: head for head in read_heads(world.cluster, wanted).values()}
    assert {name for name, head in now.items() if head.open} == {"stuck"}
    world.cluster.request("POST", "/braid-heads/_refresh")
    sweeper.sweep()
    (later,) = read_heads(world.cluster, [Head(tenant, "stuck")]).values()
    assert later.rev == now["stuck"].rev  # not a second time at once


@pytest.mark.parametrize("left", [0, 1])
def test_a_document_that_lacks_passages_is_written_anew_by_the_same_ingest(
    world: World, tenant: str, left: int
) -> None:
    """All of them, too: then nothing but its head tells of it."""
    text = "\n".join(f"The ledger of part {n}. {'Much more. ' * 60}" for n in range(9))
    put(world, tenant, "d", text)
    (head,) = live_heads(world.cluster, Scope(tenant), "d")
    assert head.version is not None
    for n in range(left, head.version.passages):
        gone = passage_id(tenant, "d", head.version.token, n)
        world.cluster.request("DELETE", f"/{head.version.index}/_doc/{gone}", params={"refresh": "true"})
    with pytest.raises(StoreUnavailable, match="run `braid heads audit`"):
        get_document(world.cluster, Scope(tenant), "d")
    found = [item for item in audit(world.cluster).lacking if item.tenant == tenant]
    assert [item.document_id for item in found] == ["d"]
    assert disown(world.cluster, found) == 1
    put(world, tenant, "d", text)
    assert len(get_document(world.cluster, Scope(tenant), "d")[1]) == head.version.passages
    assert tenant not in {name[0] for name in audit(world.cluster).incomplete}


def test_neighbours_whose_heads_are_lost_are_listed_again(world: World, tenant: str) -> None:
    put(world, tenant, "d", "The ledger.", acl=["hr"])
    writer = Scope(tenant, frozenset({"user:w"}), "user:w")
    document = ready_document({"document_id": "d", "text": "Another."}, tenant=tenant, source_id="tests")
    encoder = world.client.application.extensions["braid"].encoder
    ingest_document(document, settings=world.settings, cluster=world.cluster, encoder=encoder, scope=writer)
    before = live_heads(world.cluster, Scope(tenant), "d")
    assert [bool(head.twin) for head in before] == [False, True]
    for head in before:
        world.cluster.request("DELETE", f"/braid-heads/_doc/{head.key}", params={"refresh": "true"})
    assert build(world.cluster) == 2
    assert [head.version for head in live_heads(world.cluster, Scope(tenant), "d")] == [head.version for head in before]
    assert get_document(world.cluster, writer, "d")[1][0]["text"] == "Another."


def test_an_index_that_was_deleted_is_not_made_again_by_a_sweep(world: World, tenant: str) -> None:
    put(world, tenant, "d", "The ledger.")
    (head,) = live_heads(world.cluster, Scope(tenant), "d")
    index = f"braid-passages-{uuid4().hex[:8]}"
    gone = Version(f"{'0' * 64}~1-00000000", 3, index)
    (written,) = write_heads(world.cluster, [replace(head, garbage=(gone,))])
    assert written.head is not None
    (swept,) = sweep_heads(world.cluster, [written.head])
    assert not read_heads(world.cluster, [swept])[swept.key].open
    assert existing(world.cluster, {index}) == frozenset()


def test_nothing_is_written_where_searches_dont_see_it(world: World, tenant: str) -> None:
    """After a rollover the write alias leads to an index that the read alias does not name."""
    put(world, tenant, "d", "The ledger.")
    rolled = world.cluster.request("POST", "/braid-passages-write/_rollover")
    try:
        world.cluster.index_names.clear()
        with pytest.raises(StoreNotReady, match="add it to the alias braid-passages"):
            put(world, tenant, "d", "The ledger, new.")
        assert get_document(world.cluster, Scope(tenant), "d")[1][0]["text"] == "The ledger."
    finally:
        actions = [
            {"remove_index": {"index": rolled["new_index"]}},
            {"add": {"index": rolled["old_index"], "alias": "braid-passages-write", "is_write_index": True}},
        ]
        world.cluster.request("POST", "/_aliases", body={"actions": actions})
        world.cluster.index_names.clear()
