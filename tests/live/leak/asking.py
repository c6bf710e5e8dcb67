"""Random requests, and what their answers must and must not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.live.leak.oracle import Caller, Oracle, Stored, canaries_in, typo
from tests.live.leak.world import Reply, World

COMMON = "ledger"
"""A word that stands in every passage: how many match it is how many the caller may see."""
ABSENT = "zqbbbbbbbbbbbb"
"""Looks like a canary, and is none."""

Draw = Any
Item = TypeVar("Item")
Body = dict[str, Any]


def pick(draw: Draw, values: Sequence[Item]) -> Item:
    """One of them, drawn by its place: reports then name numbers, not whole documents."""
    return values[draw(st.integers(0, len(values) - 1))]


def aim(draw: Draw, oracle: Oracle, caller: Caller) -> Stored | None:
    """A passage to ask for: sometimes one that the caller sees, mostly one that it does not."""
    hidden = [passage for passage in oracle.passages.values() if not passage.version.seen_by(caller)]
    visible = oracle.passages_for(caller)
    pool = pick(draw, [hidden, hidden, visible]) or hidden or visible
    return pick(draw, pool) if pool else None


def query_text(draw: Draw, target: Stored | None) -> str:
    """A query that would find the target, if anything found it."""
    if target is None:
        return COMMON
    words = sorted(canaries_in(f"{target.title} {target.heading} {target.text}")) or [ABSENT]
    word = pick(draw, words)
    return pick(
        draw,
        [
            COMMON,
            word,
            f"{COMMON} {word}",
            typo(word) if word.startswith("zq") else word.upper(),
            f'"{word}"',
            f'"{target.text[:60]}" {COMMON}',
            target.text[:200],
            target.title or COMMON,
            f"What does {word} mean?",
            f"Which {COMMON} names {word}?",
        ],
    )


def filters(draw: Draw, target: Stored | None) -> Body:
    """A filter; the target's own values, or none that is there."""
    if target is None or draw(st.integers(0, 2)) == 0:
        return {}
    version = target.version
    made: Body = {}
    for name, value in (
        ("document_id", version.document_id),
        ("source_id", version.source_id),
        ("topic_tags", version.tags[0] if version.tags else ABSENT),
        ("source_type", target.source_type),
    ):
        if draw(st.integers(0, 3)) == 0:
            absent = value if name == "source_type" else ABSENT
            made[name] = pick(draw, [[value], [value, absent], [absent]])
    if draw(st.integers(0, 5)) == 0:
        made["timestamp"] = pick(draw, [{"gte": "2000-01-01"}, {"lt": "2000-01-01"}])
    if draw(st.integers(0, 2)) == 0:
        made |= exclusion(draw, made, target)
    return made


def exclusion(draw: Draw, made: Body, target: Stored) -> Body:
    """What to leave out: the target's values, or none that is there, of a field that is not wanted."""
    version = target.version
    values: dict[str, Any] = {
        "document_id": [version.document_id, ABSENT],
        "source_id": [version.source_id],
        "topic_tags": [version.tags[0] if version.tags else ABSENT],
        "source_type": [target.source_type],
        "timestamp": {"lt": "2000-01-01"},
    }
    free = [name for name in values if name not in made]
    name, other = (pick(draw, free), pick(draw, free)) if free else ("", "")
    return {"not": {name: values[name], other: values[other]}} if free else {}


def search_body(draw: Draw, oracle: Oracle, caller: Caller) -> Body:
    """A search with random options around somebody's document."""
    target = aim(draw, oracle, caller)
    body: Body = {"query": query_text(draw, target)}
    if chosen := filters(draw, target):
        body["filter"] = chosen
    options: list[tuple[str, list[Any]]] = [
        ("mode", ["hybrid", "lexical", "dense"]),
        (
            "fusion",
            [
                {"method": "rrf"},
                {"method": "linear", "alpha": 0.0},
                {"method": "linear", "alpha": 0.7},
                {"learned": False, "normalization": "z_score"},
                {"normalization": "l2"},
            ],
        ),
        ("size", [1, 3, 50]),
        ("from", [1, 4]),
        ("candidates", [10, 60]),
        ("rerank", [True, False, {"depth": 5, "weight": 1.0}]),
        ("max_per_document", [1, 2]),
        ("fold_duplicates", [True]),
        ("mmr", [True, {"lambda": 0.2}]),
        ("highlight", [True]),
        ("explain", [True]),
        ("cache", [True, True, False]),
    ]
    for name, values in options:
        if draw(st.integers(0, 2)) == 0:
            body[name] = pick(draw, values)
    if body.get("from", 0) + body.get("size", 10) > body.get("candidates", 100):
        del body["candidates"]
    return body


def answer_body(draw: Draw, oracle: Oracle, caller: Caller) -> Body:
    """The same for an answer."""
    body = search_body(draw, oracle, caller)
    if draw(st.booleans()):
        body["stream"] = True
    if draw(st.integers(0, 2)) == 0:
        body["context_size"] = pick(draw, [1, 10])
    return body


def matching(oracle: Oracle, caller: Caller, chosen: Body) -> list[Stored]:
    """The passages that the caller may see and that the filter leaves."""
    found = []
    for passage in oracle.passages_for(caller):
        version = passage.version
        old = version.timestamp is not None
        if all(
            (
                version.document_id in chosen.get("document_id", [version.document_id]),
                version.source_id in chosen.get("source_id", [version.source_id]),
                passage.source_type in chosen.get("source_type", [passage.source_type]),
                not chosen.get("topic_tags") or bool(set(chosen["topic_tags"]) & set(version.tags)),
                "timestamp" not in chosen or old == ("lt" in chosen["timestamp"]),
                not _is_left_out(passage, chosen.get("not", {})),
            )
        ):
            found.append(passage)
    return found


def _is_left_out(passage: Stored, excluded: Body) -> bool:
    version = passage.version
    return any(
        (
            version.document_id in excluded.get("document_id", ()),
            version.source_id in excluded.get("source_id", ()),
            passage.source_type in excluded.get("source_type", ()),
            not set(excluded.get("topic_tags", ())).isdisjoint(version.tags),
            "timestamp" in excluded and version.timestamp is not None,
        )
    )


def check_results(world: World, caller: Caller, body: Body, answer: Body) -> None:
    """Nothing unseen, nothing outside the filter, and everything that must be there."""
    left = {passage.id: passage for passage in matching(world.oracle, caller, body.get("filter", {}))}
    shown = [item["id"] for item in answer["results"]]
    world.tally.shown += len(shown)
    world.tally.cache[answer["cache"]] += 1
    assert not answer["degraded"] or all(item["stage"] in {"generation", "rerank"} for item in answer["degraded"])
    assert set(shown) <= left.keys(), f"{set(shown) - left.keys()} were not to be found with {body}"
    assert len(set(shown)) == len(shown)
    for item in answer["results"]:
        stored = left[item["id"]]
        assert (item["document_id"], item["title"]) == (stored.version.document_id, stored.title)
        assert (item["section_heading"], item["text"]) == (stored.heading, stored.text)
        assert set(item["duplicates"]) <= left.keys()
    total, mode = answer["total"], body.get("mode", "hybrid")
    assert total <= len(left), f"total {total} counts more than the {len(left)} passages that {body} may find"
    words = body["query"].lower().split()
    if answer["cache"] == "near":
        return  # the answer to other words: all that was said above holds for it, its total is theirs
    if COMMON in words:  # matches every passage, in every mode; the dense leg counts its candidates
        most = min(len(left), body.get("candidates", 100)) if mode == "dense" else len(left)
        # more matches than candidates are not counted, and the total is at most theirs (above)
        assert total == most or answer["total_relation"] == "gte", f"total {total}, and {most} hold the word: {body}"
        _check_whole(body, shown, left)
    elif mode == "lexical" and len(words) == 1 and canaries_in(body["query"]) == {words[0]}:
        holding = {key for key, passage in left.items() if words[0] in passage.words}
        if words[0].startswith("zk-"):  # an identifier's parts are words, too, and all identifiers begin alike
            holding = {key for key, passage in left.items() if any(word.startswith("zk-") for word in passage.words)}
        elif not holding:  # a word that nobody may see is corrected to one that the caller sees
            holding = {
                key
                for key, passage in left.items()
                if any(word.startswith("zq") and typo(word) == words[0] for word in passage.words)
            }
        assert total == len(holding), f"total {total}, and {len(holding)} hold the word: {body}, {answer['cache']}"
        assert set(shown) <= holding
        _check_whole(body, shown, {key: left[key] for key in holding})
    if "explanation" in answer and answer["explanation"] is not None:
        for word in (*answer["explanation"]["exact"], *answer["explanation"]["corrected"]):
            assert word.lower() in body["query"].lower()


def _check_whole(body: Body, shown: list[str], expected: dict[str, Stored]) -> None:
    """Unshaped, the page that holds all holds all: what others have makes no room for itself."""
    shaped = body.get("max_per_document") or body.get("fold_duplicates") or body.get("mmr")
    enough = body.get("size", 10) >= len(expected) and body.get("candidates", 100) >= len(expected)
    if not shaped and enough and not body.get("from"):
        # of documents that share an id one is shown
        tokens: dict[str, set[str]] = {}
        for passage in expected.values():
            tokens.setdefault(passage.version.document_id, set()).add(passage.token)
        seen = {expected[key].token for key in shown}
        for document_id, versions in tokens.items():
            assert len(versions & seen) == 1, f"{len(versions & seen)} of {document_id!r} are shown with {body}"
        whole = {key for key, passage in expected.items() if passage.token in seen}
        assert set(shown) == whole, f"{whole - set(shown)} are missing with {body}"


def check_answer(world: World, caller: Caller, body: Body, reply: Reply) -> None:
    """The search in it, and its citations, which may be of neighbours that are not among the results."""
    if body.get("stream"):
        events = reply.events
        names = [name for name, _ in events]
        assert (names[0], names[-1]) == ("retrieval", "done"), names
        answer = events[-1][1]
    else:
        answer = reply.json
    given = {"max_per_document": 3, "fold_duplicates": True, **body}
    check_results(world, caller, given, answer)
    visible = {passage.id: passage for passage in matching(world.oracle, caller, body.get("filter", {}))}
    for citation in answer["citations"]:
        stored = visible[citation["id"]]
        assert citation["document_id"] == stored.version.document_id
        assert citation["quote"] in stored.text or citation["quote"] in stored.title
