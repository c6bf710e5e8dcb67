"""Each caller has a share of the turns, so that one whose documents take long does not stop the others'."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.config import load_settings
from app.deadline import WriteDeadline
from app.errors import DeadlineExceeded, EncoderUnavailable, Overloaded, StoreReadOnly, StoreUnavailable
from app.passage import Document, ParsedDocument, SourceType
from app.search.readiness_gate import ReadinessGate, StoreState
from app.serving.documents import DocumentService
from app.serving.tasks import UploadedFile
from app.serving.writes import AT_ONCE, OWN_AT_ONCE, Writes, owner
from app.store.client import Cluster
from app.store.filters import Scope


def test_one_caller_leaves_a_turn_to_the_others() -> None:
    settings = load_settings(opensearch_url="http://127.0.0.1:9")  # never asked
    writes = Writes(settings, Cluster(settings.opensearch), lambda tenant, stored: None)
    one, other = ("t", "key:a"), ("t", "key:b")
    held = [writes._take_turn(one, WriteDeadline.after(60_000)) for _ in range(OWN_AT_ONCE)]
    with pytest.raises(Overloaded, match="of this caller"):
        writes._take_turn(one, WriteDeadline.after(200))
    held += [writes._take_turn(other, WriteDeadline.after(60_000)) for _ in range(AT_ONCE - OWN_AT_ONCE)]
    with pytest.raises(Overloaded):  # of all
        writes._take_turn(other, WriteDeadline.after(200))
    while held:
        held.pop()()
    assert not list(writes._own)  # nothing is kept of callers who are gone
    writes._take_turn(one, WriteDeadline.after(200))()


def test_a_refused_upload_leaves_no_file_and_holds_no_disk() -> None:
    settings = load_settings(opensearch_url="http://127.0.0.1:9")  # never asked
    writes = Writes(settings, Cluster(settings.opensearch), lambda tenant, stored: None)
    scope = Scope("t", frozenset(), "key:a")
    held = [writes._take_turn(owner(scope), WriteDeadline.after(60_000)) for _ in range(OWN_AT_ONCE)]
    file = writes.new_file(".txt")
    file.path.write_text("a text")
    file.holds.append(writes.hold_disk(scope, 6))
    with pytest.raises(Overloaded):
        writes.store(UploadedFile(file.path, "a.txt", {}), scope, WriteDeadline.after(200), file)
    assert not file.path.exists()
    assert writes._spool_bytes.used == 0
    for leave in held:
        leave()
    writes.close()


def test_an_upload_that_waits_for_a_cluster_in_vain_leaves_no_file_and_holds_no_disk() -> None:
    settings = load_settings(opensearch_url="http://127.0.0.1:9", write_timeout_s=0.1)  # never asked
    cluster, release = Cluster(settings.opensearch), threading.Event()
    writes = Writes(settings, cluster, lambda tenant, stored: None)

    def check() -> StoreState:
        release.wait(5)
        raise StoreUnavailable("away")

    with ThreadPoolExecutor() as executor:
        service = DocumentService(cluster, ReadinessGate(check, executor), writes, lambda tenant, stored: None)
        file = writes.new_file(".txt")
        file.path.write_text("a text")
        file.holds.append(writes.hold_disk(Scope("t"), 6))
        with pytest.raises(StoreUnavailable, match="did not answer within"):
            service.put(UploadedFile(file.path, "a.txt", {}), Scope("t"), file)
        release.set()
    assert not file.path.exists()
    assert writes._spool_bytes.used == 0
    writes.close()


@pytest.mark.parametrize("unknown", [False, True])
def test_a_revocation_does_not_wait_for_an_encoder_elsewhere(unknown: bool) -> None:
    settings = load_settings(opensearch_url="http://127.0.0.1:9", write_timeout_s=0.1)
    cluster = Cluster(settings.opensearch)
    writes = Writes(settings, cluster, lambda tenant, stored: None)

    def check() -> StoreState:
        if unknown:
            raise EncoderUnavailable("nobody knows the dimension")
        return StoreState((), 1, False, other_vectors="other vectors")

    with ThreadPoolExecutor() as executor:
        service = DocumentService(cluster, ReadinessGate(check, executor), writes, lambda tenant, stored: None)
        with pytest.raises((StoreReadOnly, EncoderUnavailable)):
            service.put(Document("d", "s", "", ParsedDocument("", SourceType.TEXT, ())), Scope("t"))
        for change in (
            lambda: service.delete(Scope("t"), "d"),
            lambda: service.change_readers(Scope("t"), "d", {"acl": ("a",)}),
        ):
            with pytest.raises((StoreUnavailable, DeadlineExceeded)):  # it goes on to the store, where nobody listens
                change()
    writes.close()
