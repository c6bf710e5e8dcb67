"""Random calls of agents' tools, by the protocol's own messages, and what their results must and must not hold."""

from __future__ import annotations

import json
from typing import Any

from tests.live.leak.asking import ABSENT, COMMON, Body, Draw, aim, filters, matching, pick, query_text
from tests.live.leak.oracle import Caller, Oracle
from tests.live.leak.world import Reply, World

HEADERS = {"Accept": "application/json, text/event-stream"}


def call(world: World, caller: Caller | None, tool: str, arguments: Body) -> Reply:
    """One call of a tool; all that comes back is scanned."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    return world.ask(caller, "POST", "/mcp", message, route=f"mcp.{tool}", headers=HEADERS)


def text_of(reply: Reply) -> tuple[str, bool]:
    """The text for the agent, and whether it is a failure."""
    assert reply.status == 200, reply.body
    result = reply.json["result"]
    return result["content"][0]["text"], result["isError"]


def items_of(text: str) -> list[Body]:
    """What stands in the fence."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def arguments(draw: Draw, oracle: Oracle, caller: Caller, tool: str) -> Body:
    """Arguments around somebody's document."""
    target = aim(draw, oracle, caller)
    document_id = target.version.document_id if target is not None else ABSENT
    if tool == "open_page":
        given: Body = pick(
            draw, [{"document_id": document_id}, {"passage": target.id if target is not None else ABSENT}]
        )
        if "document_id" in given:
            return given | pick(draw, [{}, {"page": 1}, {"cursor": "1"}])
        return given | {"neighbours": pick(draw, [0, 5])}
    if tool == "list_documents":
        return {"filter": filters(draw, target), "size": pick(draw, [1, 3, 20])}
    given = {"query": query_text(draw, target)}
    if tool == "find_in_document":
        return given | {"document_id": document_id}
    if tool == "search":
        given["size"] = pick(draw, [1, 5, 20])
    return given | {"filter": filters(draw, target)}


def check(world: World, caller: Caller, tool: str, given: Body, reply: Reply) -> None:
    """Nothing unseen, nothing outside the filter; a list and an opened document hold everything that they must."""
    text, failed = text_of(reply)
    oracle = world.oracle
    if tool == "open_page":
        _check_opened(oracle, caller, given, text, failed)
        return
    assert not failed, text
    if tool == "list_documents":
        _check_list(world, caller, given, text)
        return
    chosen = given.get("filter", {}) | ({"document_id": [given["document_id"]]} if tool == "find_in_document" else {})
    left = {passage.id for passage in matching(oracle, caller, chosen)}
    found = [item["passage"] for item in items_of(text) if "passage" in item]
    world.tally.shown += len(found)
    assert set(found) <= left, f"{set(found) - left} were not to be found with {given}"
    if tool == "search" and COMMON in given["query"].lower().split():
        assert len(found) == min(given["size"], len(left))


def _check_opened(oracle: Oracle, caller: Caller, given: Body, text: str, failed: bool) -> None:
    own = oracle.passages_for(caller)
    if "passage" in given:
        must = given["passage"] in {item.id for item in own if item.version in _first(oracle, caller, item.version)}
    else:
        must = bool(oracle.of_id(caller, given["document_id"]))
    if "page" in given or "cursor" in given:  # none of these documents has pages; not all have a second passage
        assert failed or must
        assert "page" not in given or failed
    else:
        assert failed != must, text
    if failed:
        assert text.startswith("Not found: there is no "), text
        return
    assert {item["passage"] for item in items_of(text)} <= {item.id for item in own}


def _first(oracle: Oracle, caller: Caller, version: Any) -> list[Any]:
    """Of several documents of an id that a caller sees, the one that is shown."""
    return oracle.of_id(caller, version.document_id)[:1]


def _check_list(world: World, caller: Caller, given: Body, text: str) -> None:
    """All pages together are all documents that the caller sees, each once."""
    names = [item["document_id"] for item in items_of(text)]
    while " call again with cursor " in text:
        cursor = text.partition(" call again with cursor '")[2].partition("'")[0]
        text, failed = text_of(call(world, caller, "list_documents", {**given, "cursor": cursor}))
        assert not failed, text
        names += [item["document_id"] for item in items_of(text)]
    expected = {passage.version.document_id for passage in matching(world.oracle, caller, given["filter"])}
    shown_first = {
        document_id
        for document_id in expected
        if any(
            passage.version in _first(world.oracle, caller, passage.version)
            for passage in matching(world.oracle, caller, given["filter"])
            if passage.version.document_id == document_id
        )
    }
    assert len(set(names)) == len(names)
    assert shown_first <= set(names) <= expected, f"{names} and {sorted(expected)}: {given}"
