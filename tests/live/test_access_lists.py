"""Who may read a document, changed and kept: over HTTP, by the command line, on the real node."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.access import Access
from app.errors import WriteConflict
from app.ingest import protocol, run, single
from app.ingest.records import ready_document
from app.ingest.run import IngestOptions, ingest_paths
from app.ingest.single import change_readers, ingest_document
from app.passage import Block, BlockKind, Document, ParsedDocument, SourceType
from app.store import documents
from app.store.documents import count, get_document, live_heads, read_version
from app.store.filters import Scope
from tests.live.leak.oracle import Caller
from tests.live.leak.world import World, document_path

pytestmark = pytest.mark.live

WRITER = ("search", "ingest")


@pytest.fixture
def tenant() -> str:
    return f"acl-{uuid4().hex[:12]}"


def send(world: World, caller: Caller, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    answer = world.client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {caller.token}"})
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.json


def post(world: World, caller: Caller, document_id: str, text: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = send(
        world, caller, "POST", "/v1/documents", {"document_id": document_id, "text": text, **more}
    )
    return found


def texts(world: World, caller: Caller, query: str = "ledger") -> set[str]:
    return {item["text"] for item in send(world, caller, "POST", "/v1/search", {"query": query})["results"]}


def test_another_list_is_in_force_at_once_and_nothing_is_embedded_again(world: World, tenant: str) -> None:
    hr, legal = (world.user(name, tenant, [name], WRITER) for name in ("hr", "legal"))
    post(world, hr, "d", "The ledger of the pension fund.", acl=["hr"])
    scope = Scope(tenant)
    (before,) = live_heads(world.cluster, scope, "d")
    (old,) = read_version(world.cluster, before)
    for _ in range(2):  # the second time from a cache
        assert texts(world, hr) == {"The ledger of the pension fund."}
        assert texts(world, legal) == set()
    changed = send(world, hr, "PATCH", "/v1/documents/d", {"acl": ["legal", "legal"]})
    assert changed == {"document_id": "d", "acl": ["legal"], "passages": 1, "status": "updated"}
    assert texts(world, hr) == set()
    assert texts(world, legal) == {"The ledger of the pension fund."}
    send(world, hr, "GET", "/v1/documents/d", status=404)
    send(world, hr, "PATCH", "/v1/documents/d", {"acl": ["hr"]}, status=404)
    assert send(world, legal, "PATCH", "/v1/documents/d", {"acl": ["legal"]})["status"] == "unchanged"
    (after,) = live_heads(world.cluster, scope, "d")
    (new,) = read_version(world.cluster, after)
    assert old.embedding is not None
    assert old.token_vectors is not None
    for name in ("embedding", "token_vectors", "text", "title", "timestamp", "topic_tags", "uri", "embedding_model"):
        assert getattr(new, name) == getattr(old, name), name
    assert (new.acl, new.id) == (("legal",), old.id)


def test_a_long_document_is_changed_whole(world: World, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_VECTORS_PAGE", 4)
    admin = world.key_for("admin", tenant, (), ("admin",))
    text = "\n".join(f"The ledger of part {n} tells of valve {n} and of {'much more ' * 60}." for n in range(20))
    made = post(world, admin, "long", text)
    assert made["passages"] >= 9
    _, before = get_document(world.cluster, Scope(tenant), "long")
    assert send(world, admin, "PATCH", "/v1/documents/long", {"acl": ["hr"]})["passages"] == made["passages"]
    _, after = get_document(world.cluster, Scope(tenant), "long")
    assert [item["text"] for item in after] == [item["text"] for item in before]
    assert [item["position"] for item in after] == list(range(made["passages"]))
    assert {tuple(item["acl"]) for item in after} == {("hr",)}


def test_a_change_that_breaks_off_is_in_force_and_is_finished_by_the_next(
    world: World, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head decides who may read; passages that still carry the old list are rewritten later."""
    admin, user = world.key_for("admin", tenant, (), ("admin",)), world.user("eve", tenant, [], WRITER)
    text = "\n".join(f"The ledger of part {n} tells of valve {n} and of {'much more ' * 60}." for n in range(14))
    made = post(world, admin, "long", text)
    assert made["passages"] >= 6
    whole = documents.read_version
    monkeypatch.setattr(protocol, "_SETTLE_TRIES", 2)
    monkeypatch.setattr(documents, "read_version", lambda *given: itertools.islice(whole(*given), 5))
    problem = send(world, admin, "PATCH", "/v1/documents/long", {"acl": ["hr"]}, status=502)
    assert "only 5 of" in problem["detail"]
    assert send(world, admin, "GET", "/v1/documents/long")["acl"] == ["hr"]
    send(world, user, "GET", "/v1/documents/long", status=404)
    assert texts(world, user) == set()
    monkeypatch.setattr(documents, "read_version", whole)
    assert send(world, admin, "PATCH", "/v1/documents/long", {"acl": ["hr"]})["passages"] == made["passages"]
    (head,) = live_heads(world.cluster, Scope(tenant), "long")
    assert {passage.acl for passage in read_version(world.cluster, head)} == {("hr",)}
    assert not head.open
    assert count(world.cluster, tenant) == made["passages"]


def test_a_write_that_names_no_readers_does_not_undo_a_change(
    world: World, tenant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Readers are changed while the text is embedded: who writes it keeps them."""
    admin, user = world.key_for("admin", tenant, (), ("admin",)), world.user("eve", tenant, [], WRITER)
    post(world, admin, "handbook/a.md", "The ledger.")
    embed = run.embed

    def slowly(*given: Any) -> Any:
        made = embed(*given)
        assert change_readers(world.cluster, Scope(tenant), "handbook/a.md", {"acl": ("hr",)}).status == "updated"
        return made

    monkeypatch.setattr(single, "embed", slowly)
    services = world.client.application.extensions["braid"]
    # as the ingest process does for a POST, here, where it can be stopped half way
    ready = ready_document({"document_id": "handbook/a.md", "text": "The ledger, new."}, tenant=tenant, source_id="api")
    stored = single.ingest_document(ready, settings=world.settings, cluster=world.cluster, encoder=services.encoder)
    assert stored.status == "updated"
    monkeypatch.setattr(single, "embed", embed)
    assert send(world, admin, "GET", "/v1/documents/handbook/a.md")["acl"] == ["hr"]
    send(world, admin, "PATCH", "/v1/documents/handbook/a.md", {"acl": ["public"]})
    monkeypatch.setattr(run, "embed", slowly)
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nThe ledger, from a file.\n")
    report = ingest_paths(
        [folder],
        settings=world.settings,
        cluster=world.cluster,
        encoder=services.encoder,
        options=IngestOptions(tenant=tenant),
    )
    assert (report.failed, report.changed) == ([], 1)
    assert texts(world, user) == set()
    assert texts(world, admin) == {"The ledger, from a file."}
    assert count(world.cluster, tenant) == 1


def test_a_write_that_names_readers_must_have_seen_the_last_change(
    world: World, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = world.key_for("admin", tenant, (), ("admin",))
    post(world, admin, "d", "The ledger.")
    changed = False

    def between(step: str, heads: Any) -> None:
        nonlocal changed
        if step == "commit" and not changed:
            changed = True
            change_readers(world.cluster, Scope(tenant), "d", {"acl": ("hr",)})

    monkeypatch.setattr(protocol, "observe", between)
    document = ready_document(
        {"document_id": "d", "text": "The ledger, new.", "acl": ["public"]}, tenant=tenant, source_id="tests"
    )
    encoder = world.client.application.extensions["braid"].encoder
    with pytest.raises(WriteConflict, match="at the same time"):
        ingest_document(document, settings=world.settings, cluster=world.cluster, encoder=encoder)
    monkeypatch.setattr(protocol, "observe", None)
    found = send(world, admin, "GET", "/v1/documents/d")
    assert (found["acl"], found["passages"][0]["text"]) == (["hr"], "The ledger.")
    assert count(world.cluster, tenant) == 1


def test_an_empty_list_leaves_it_to_admins(world: World, tenant: str) -> None:
    admin, user = world.key_for("admin", tenant, (), ("admin",)), world.user("eve", tenant, ["hr"], WRITER)
    assert post(world, user, "d", "The ledger.", acl=[])["status"] == "created"
    send(world, user, "GET", "/v1/documents/d", status=404)
    assert send(world, admin, "GET", "/v1/documents/d")["acl"] == []
    send(world, admin, "PATCH", "/v1/documents/d", {"acl": ["public"]})
    assert send(world, user, "GET", "/v1/documents/d")["acl"] == ["public"]
    send(world, user, "PATCH", "/v1/documents/d", {"acl": []})
    assert texts(world, user) == set()
    assert texts(world, admin) == {"The ledger."}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ["body", "acl"]),
        ({"acl": "hr"}, ["body", "acl"]),
        ({"acl": ["hr"], "tenant": "x"}, ["body", "tenant"]),
        ({"acl": [" "]}, ["body", "acl", 0]),
        ({"acl": ["hr", "a\u0007"]}, ["body", "acl", 1]),
        ({"acl": ["a\u2029b"]}, ["body", "acl", 0]),
        ({"acl": ["g" * 262]}, ["body", "acl", 0]),
        ({"acl": [f"g{n}" for n in range(1001)]}, ["body", "acl"]),
        ({"acl": [None]}, ["body", "acl", 0]),
        ({"acl_1": None}, ["body", "acl"]),
        ({"acl_1": [" "]}, ["body", "acl_1", 0]),
        ({"acl_4": "hr"}, ["body", "acl_4"]),
        ({"acl_5": ["hr"]}, ["body", "acl_5"]),
    ],
)
def test_what_is_no_list_is_refused(world: World, tenant: str, body: Any, place: list[Any]) -> None:
    admin = world.key_for("admin", tenant, (), ("admin",))
    problem = send(world, admin, "PATCH", "/v1/documents/d", body, status=422)
    assert place in [item["loc"] for item in problem["errors"]]


def test_names_are_neither_folded_nor_cut(world: World, tenant: str) -> None:
    alike = ["hr", "HR", "\uff28\uff32", "h\u200br", " hr", "hr ", "e\u0301", "\u00e9", "g" * 256, "g" * 255 + "h"]
    admin = world.key_for("admin", tenant, (), ("admin",))
    readers = {name: world.key_for("r", tenant, [name], WRITER) for name in alike}
    for number, name in enumerate(alike):
        post(world, admin, f"d{number}", f"The ledger for reader {number}.", acl=[name])
    for number, name in enumerate(alike):
        assert texts(world, readers[name]) == {f"The ledger for reader {number}."}
    full = [f"group {n}" for n in range(999)] + ["hr"]
    assert len(send(world, admin, "PATCH", "/v1/documents/d1", {"acl": full})["acl"]) == 1000
    assert texts(world, readers["hr"]) == {"The ledger for reader 0.", "The ledger for reader 1."}


def test_two_writers_who_can_not_see_each_other_share_an_id_and_nothing_else(world: World, tenant: str) -> None:
    hr, legal = (world.user(name, tenant, [name], WRITER) for name in ("hr", "legal"))
    both = world.user("both", tenant, ["hr", "legal"], WRITER)
    for _ in range(2):  # for the other one's sake, the second is no other than the first
        assert post(world, hr, "d", "The ledger of hr.", acl=["hr"])["status"] in {"created", "unchanged"}
    assert post(world, legal, "d", "The ledger of legal.", acl=["legal"])["status"] == "created"
    assert texts(world, hr) == {"The ledger of hr."}
    assert texts(world, legal) == {"The ledger of legal."}
    # who sees both gets the one that was there first, never two documents under one id
    assert texts(world, both) == {"The ledger of hr."}
    assert send(world, both, "GET", "/v1/documents/d")["passages"][0]["text"] == "The ledger of hr."
    send(world, legal, "DELETE", "/v1/documents/d", status=204)
    send(world, legal, "DELETE", "/v1/documents/d", status=404)
    assert texts(world, both) == {"The ledger of hr."}
    # the same text for the same readers, written by somebody who is none of them: nothing is lost, nothing is told
    assert post(world, legal, "d", "The ledger of hr.", acl=["hr"])["status"] == "created"
    assert post(world, legal, "d", "The ledger of hr.", acl=["hr"])["status"] == "created"
    assert texts(world, hr) == {"The ledger of hr."}
    assert post(world, both, "d", "The ledger of both.", acl=["hr", "legal"])["status"] == "updated"
    assert texts(world, hr) == texts(world, legal) == {"The ledger of both."}


def test_a_document_keeps_its_readers_until_its_source_names_others(world: World, tenant: str) -> None:
    admin, user = world.key_for("admin", tenant, (), ("admin",)), world.user("eve", tenant, [], WRITER)
    post(world, admin, "d", "The ledger.")
    assert texts(world, user) == {"The ledger."}
    send(world, admin, "PATCH", "/v1/documents/d", {"acl": ["hr"]})
    assert post(world, admin, "d", "The ledger.")["status"] == "unchanged"
    assert post(world, admin, "d", "The ledger, new.")["status"] == "updated"
    assert send(world, admin, "GET", "/v1/documents/d")["acl"] == ["hr"]
    assert texts(world, user) == set()
    assert post(world, admin, "d", "The ledger, new.", acl=["public"])["status"] == "updated"
    assert texts(world, user) == {"The ledger, new."}


def test_an_empty_field_of_a_form_makes_nothing_public(world: World, tenant: str) -> None:
    admin = world.key_for("admin", tenant, (), ("admin",))

    def upload(status: int, **fields: Any) -> Any:
        from io import BytesIO

        data = {"file": (BytesIO(b"# Ledger\n\nThe ledger.\n"), "ledger.md"), **fields}
        headers = {"Authorization": f"Bearer {admin.token}"}
        answer = world.client.post("/v1/documents", data=data, headers=headers, content_type="multipart/form-data")
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer.json

    for empty in ("", " , "):
        assert upload(422, acl=empty)["errors"][0]["loc"] == ["body", "acl"]
    upload(200, acl=["hr, le gal", "\u3000x"])
    assert send(world, admin, "GET", "/v1/documents/ledger.md")["acl"] == ["hr", "le gal", "\u3000x"]
    assert upload(422, acl_2=" ,")["errors"][0]["loc"] == ["body", "acl_2"]
    upload(200, acl_2=["board, a", "b"])
    assert send(world, admin, "GET", "/v1/documents/ledger.md")["acl_2"] == ["board", "a", "b"]
    assert send(world, admin, "GET", "/v1/documents/ledger.md")["acl"] == ["hr", "le gal", "\u3000x"]


def test_every_restriction_must_be_satisfied_or_absent(world: World, tenant: str) -> None:
    admin = world.key_for("admin", tenant, (), ("admin",))
    people = {
        name: world.key_for(name, tenant, name.split("+"), WRITER) for name in ("hr", "hr+a", "hr+b", "a+b", "hr+a+b+c")
    }
    bob = world.user("bob", tenant, ["hr"], WRITER)

    def readers() -> set[str]:
        found = {name for name, caller in people.items() if texts(world, caller)}
        return found | ({"bob"} if texts(world, bob) else set())

    def change(lists: dict[str, list[str]]) -> dict[str, Any]:
        found: dict[str, Any] = send(world, admin, "PATCH", "/v1/documents/d", lists)
        return {name: names for name, names in found.items() if name.startswith("acl")}

    post(world, admin, "d", "The ledger.", acl=["hr"], acl_1=["a", "b"])
    assert readers() == {"hr+a", "hr+b", "hr+a+b+c"}
    assert change({"acl_3": ["c", "a"]}) == {"acl": ["hr"], "acl_1": ["a", "b"], "acl_3": ["c", "a"]}
    assert readers() == {"hr+a", "hr+a+b+c"}
    # a name that only a restriction has: users whom no list named shared cached answers with others until now
    change({"acl_1": ["user:bob"], "acl_3": []})
    assert readers() == {"bob"}
    # what a write does not name stays, what it names is replaced
    assert post(world, admin, "d", "The new ledger.", acl_2=["public"])["status"] == "updated"
    shown = send(world, admin, "GET", "/v1/documents/d")
    assert {name: shown[name] for name in shown if name.startswith("acl")} == {
        "acl": ["hr"],
        "acl_1": ["user:bob"],
        "acl_2": ["public"],
    }
    assert readers() == {"bob"}
    send(world, people["hr"], "GET", "/v1/documents/d", status=404)
    assert change({"acl_1": [], "acl_2": []}) == {"acl": ["hr"]}
    assert readers() == {"hr", "hr+a", "hr+b", "hr+a+b+c", "bob"}
    problem = send(world, admin, "POST", "/v1/documents", {"document_id": "d", "text": "x", "acl_1": []}, status=422)
    assert ["body", "acl_1"] in [item["loc"] for item in problem["errors"]]


def test_pages_and_languages_are_shown_and_filtered(world: World, tenant: str) -> None:
    admin = world.key_for("admin", tenant, (), ("admin",))
    post(world, admin, "de", "Das Hauptbuch (ledger).", language="de-AT")
    post(world, admin, "unknown", "The ledger.")

    def found(**wanted: Any) -> dict[str, tuple[str | None, list[int]]]:
        answer = send(world, admin, "POST", "/v1/search", {"query": "ledger", "filter": wanted})
        return {item["document_id"]: (item["language"], item["pages"]) for item in answer["results"]}

    assert found() == {"de": ("de-at", []), "unknown": (None, [])}
    assert found(language=["DE-at"]) == {"de": ("de-at", [])}
    assert found(language=["de"]) == {}
    assert send(world, admin, "GET", "/v1/documents/de")["language"] == "de-at"
    blocks = tuple(Block(BlockKind.PARAGRAPH, f"The ledger of page {page}.", page) for page in (4, 5, 7))
    parsed = ParsedDocument("Ledger", blocks, SourceType.PDF)
    document = Document("paged", "s", "u", parsed, tenant=tenant)
    services = world.client.application.extensions["braid"]
    ingest_document(document, settings=world.settings, cluster=world.cluster, encoder=services.encoder)
    for page, there in ((4, True), (5, True), (6, False), (7, True)):
        assert found(pages=[page]) == ({"paged": (None, [4, 5, 7])} if there else {})
    assert send(world, admin, "GET", "/v1/documents/paged")["passages"][0]["pages"] == [4, 5, 7]


def test_ids_that_addresses_fold_are_two_documents(world: World, tenant: str) -> None:
    admin = world.key_for("admin", tenant, (), ("admin",))
    ids = ["a/b", "a//b", "a/b/", "/a/b", "a/./b", "a/../b", "A/b", "a%2Fb", "a b", "a+b"]
    for document_id in ids:
        post(world, admin, document_id, f"The ledger of {document_id}.")
    for document_id in ids:
        found = send(world, admin, "GET", document_path(document_id))
        assert (found["document_id"], len(found["passages"])) == (document_id, 1)
        send(world, admin, "PATCH", document_path(document_id), {"acl": [f"only {document_id}"]})
    for number, document_id in enumerate(ids):
        send(world, admin, "DELETE", document_path(document_id), status=204)
        left = send(world, admin, "POST", "/v1/search", {"query": "ledger", "size": 20})["total"]
        assert left == len(ids) - number - 1


def test_ingesting_the_source_again_leaves_the_readers_and_tells_what_it_took(
    world: World, tenant: str, tmp_path: Path
) -> None:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nThe ledger of A.\n")
    (folder / "b.md").write_text("# B\n\nThe ledger of B.\n")
    services = world.client.application.extensions["braid"]
    told: list[bool] = []

    def ingest(**options: Any) -> Any:
        told.clear()
        return ingest_paths(
            [folder],
            settings=world.settings,
            cluster=world.cluster,
            encoder=services.encoder,
            options=IngestOptions(tenant=tenant, **options),
            announce=told.append,
        )

    assert ingest().new == 2
    assert told
    assert not any(told)
    stored = change_readers(world.cluster, Scope(tenant), "handbook/a.md", {"acl": ("hr",)})
    assert (stored.status, stored.revoking) == ("updated", True)
    assert ingest().unchanged == 2
    assert told == []
    (folder / "a.md").write_text("# A\n\nThe ledger of A, second edition.\n")
    assert (ingest().changed, told) == (1, [False])
    assert get_document(world.cluster, Scope(tenant), "handbook/a.md")[1][0]["acl"] == ["hr"]
    assert ingest(acl=("hr", "legal")).changed == 2
    assert any(told)  # b.md was everybody's
    assert ingest(acl=("public",)).changed == 2
    assert not any(told)
    (folder / "b.md").unlink()
    assert ingest(sync=True).deleted == 1
    assert any(told)
    assert ingest(acl=()).changed == 1
    assert get_document(world.cluster, Scope(tenant), "handbook/a.md")[0].access == Access(())


def test_the_command_line_changes_readers(braid_up: dict[str, Any]) -> None:
    env = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": os.environ["PATH"], "COLUMNS": "200"}

    def braid(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    import httpx2

    document_id = f"acl cli/{uuid4().hex}"
    with httpx2.Client(base_url=braid_up["url"], timeout=60, trust_env=False) as service:
        body = {"document_id": document_id, "text": "The ledger of the command line."}
        service.post("/v1/documents", json=body).raise_for_status()
        said = braid("acl", document_id, "--reader", "hr", "--reader", "user:bob").stdout
        assert said.strip() == f"{document_id} (1 passages): hr, user:bob"
        assert service.get(document_path(document_id)).json()["acl"] == ["hr", "user:bob"]
        assert json.loads(braid("acl", document_id, "--nobody", "--json").stdout)["acl"] == []
        assert "--nobody" in braid("acl", document_id, code=2).stderr
        assert "--nobody" in braid("acl", document_id, "--nobody", "--reader", "hr", code=2).stderr
        said = braid("acl", document_id, "--reader", "hr", "--acl-2", "board", "--acl-2", "user:bob").stdout
        assert said.strip() == f"{document_id} (1 passages): hr; acl_2: board, user:bob"
        assert "pass one of them" in braid("acl", document_id, "--acl-2", "x", "--open", "acl_2", code=2).stderr
        opened = json.loads(braid("acl", document_id, "--open", "acl_2", "--json").stdout)
        assert (opened["acl"], "acl_2" in opened) == (["hr"], False)
        assert "no document" in braid("acl", "acl cli/none", "--reader", "hr", code=1).stderr
        service.delete(document_path(document_id)).raise_for_status()
