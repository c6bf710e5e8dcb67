"""Writers of one document at once on a real node: nothing is lost, doubled, undone or told falsely, whatever happens.

The rounds are those of `benchmarks/writers.py`, fewer of them: BRAID_TEST_WRITERS_ROUNDS, BRAID_TEST_WRITERS_SEED.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from app.access import Access
from app.ingest import protocol, single
from app.ingest.records import ready_document
from app.ingest.run import IngestOptions, ingest_paths
from app.store import index_names
from app.store.documents import get_document
from app.store.filters import Scope
from app.store.heads import Head
from app.store.rendering import compose, render
from tests.writers.arena import Arena, text_of
from tests.writers.encoder import DIMENSION, WordEncoder
from tests.writers.oracle import Op, State, Violation, explain
from tests.writers.plans import plans, traces
from tests.writers.rounds import Plan, play

_ROUNDS = int(os.environ.get("BRAID_TEST_WRITERS_ROUNDS", "30"))
_SEED = int(os.environ.get("BRAID_TEST_WRITERS_SEED", "7"))
POST, READERS, DELETE = Op("post", "p"), Op("post", "v0", ("it",)), Op("delete")
TO_HR = Op("patch", acl=("hr",))


@pytest.fixture(scope="module")
def arena(opensearch_url: str) -> Iterator[Arena]:
    with Arena(opensearch_url) as found:
        yield found


@pytest.mark.parametrize("part", range(2))
def test_writers_that_are_stopped_killed_and_delayed(arena: Arena, part: int) -> None:
    for plan in plans(_ROUNDS, _SEED)[part::2]:
        play(arena, plan)


@pytest.mark.parametrize("other", [DELETE, POST], ids=str)
def test_a_change_of_readers_never_commits_an_empty_document(arena: Arena, other: Op) -> None:
    plan = Plan("readers", "public", (READERS, other), (("run", 0, 1), ("end", 1, 0)))
    assert play(arena, plan).answers[0] == "overtaken"


@pytest.mark.parametrize(
    ("start", "first", "steps", "again"),
    [
        ("hr", POST, 5, POST),
        ("public", Op("patch", acl=("it",)), 2, READERS),
        ("public", Op("post", "p", ("hr",)), 5, TO_HR),
    ],
    ids=["post", "readers", "patch"],
)
def test_what_a_killed_writer_left_is_gone_when_the_same_is_answered_as_done(
    arena: Arena, start: str, first: Op, steps: int, again: Op
) -> None:
    play(arena, Plan("again", start, (first, again), (("run", 0, steps), ("kill", 0, 0), ("end", 1, 0))))


def test_the_oracle_notices_a_missing_safeguard(opensearch_url: str) -> None:
    with Arena(opensearch_url, without="fence") as broken, pytest.raises(Violation):
        play(broken, traces("fence")[0])


class _Stopped(BaseException):
    """A writer of this process that ends where it is."""


def _at(step: str, then: Callable[[], object]) -> Callable[[str, Sequence[Head]], None]:
    """A hook that does something before the first step of a name."""
    todo = [then]

    def observe(name: str, heads: Sequence[Head]) -> None:
        if name == step and todo:
            todo.pop()()

    return observe


def _post(arena: Arena, document_id: str, source_id: str, scope: Scope | None = None) -> None:
    document = ready_document(
        {"document_id": document_id, "text": text_of("another")}, tenant="writers", source_id=source_id
    )
    single.ingest_document(document, settings=arena.settings, cluster=arena.cluster, encoder=WordEncoder(), scope=scope)


def test_a_document_that_is_hidden_while_it_is_written_is_left_alone(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = arena.prepare("hidden", "public")
    hide = partial(single.change_readers, arena.cluster, Scope("writers"), "hidden", {"acl": ("hr",)})
    monkeypatch.setattr(protocol, "observe", _at("commit", hide))
    _post(arena, "hidden", "s", Scope("writers", frozenset(), "user:a"))
    after = arena.head("hidden")
    assert (after.version, after.access) == (before.version, Access(("hr",)))
    shown, passages = get_document(arena.cluster, Scope("writers", frozenset(), "user:a"), "hidden")
    assert shown.twin
    assert passages[0]["text"].startswith("another")


def test_passages_are_where_the_head_says_though_the_alias_moved(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = f"{arena.name}-000001", f"{arena.name}-000002"
    body = compose(render(arena.settings, "faiss-exact", DIMENSION))
    del body["settings"]["index"]["default_pipeline"]
    arena.cluster.request("PUT", f"/{second}", body=body)

    def move(to: str, away: str) -> None:
        actions = [
            {"add": {"index": to, "alias": arena.name, "is_write_index": True}},
            {"add": {"index": away, "alias": arena.name, "is_write_index": False}},
        ]
        arena.cluster.request("POST", "/_aliases", body={"actions": actions})

    monkeypatch.setattr(index_names, "CACHE_S", -1.0)
    monkeypatch.setattr(protocol, "observe", _at("intent", lambda: move(second, first)))
    try:
        _post(arena, "moved", "s")
        head = arena.head("moved")
        assert head.version is not None
        assert arena.stored(head) == head.version.passages > 0
    finally:
        move(first, second)
        arena.cluster.request("DELETE", f"/{second}")


def test_sync_leaves_a_document_that_moved_to_another_source(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arena.prepare("nomad", "public")  # its source has its name

    def stop() -> None:
        raise _Stopped

    monkeypatch.setattr(protocol, "observe", _at("erase", stop))
    with pytest.raises(_Stopped):
        _post(arena, "nomad", "elsewhere")
    path = tmp_path / "source.jsonl"
    path.write_text(json.dumps({"document_id": "stays", "text": "This one stays."}) + "\n", encoding="utf-8")
    options = IngestOptions(source_id="nomad", tenant="writers", sync=True, parse_workers=1)
    report = ingest_paths(
        [path], settings=arena.settings, cluster=arena.cluster, encoder=WordEncoder(), options=options
    )
    assert report.deleted == 0
    assert get_document(arena.cluster, Scope("writers"), "nomad")[0].source_id == "elsewhere"


def test_orders_that_explain_answers() -> None:
    patch, start = Op("patch", acl=("hr",)), State("v0", ("public",))
    both = [(POST, "updated"), (patch, "updated")]
    assert explain(start, both, State("p", ("hr",)))
    assert not explain(start, both, State("p", ("public",)))
    assert not explain(start, both, State(None, ("hr",)))
    assert not explain(start, [(DELETE, "deleted"), (TO_HR, "updated")], State("v0", ("hr",)))
    assert explain(start, [(DELETE, "killed"), (TO_HR, "updated")], State("v0", ("hr",)))
