"""Agents' tools with the official SDK's client, over HTTP and standard input and output, each under its own key."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from reportlab.platypus import PageBreak
from werkzeug.serving import make_server

from tests.live.leak.agents import items_of
from tests.live.leak.oracle import Caller
from tests.live.leak.world import World, document_path
from tests.service import running_service
from tests.unit.ingest.formats.build import body as paragraph
from tests.unit.ingest.formats.build import flow_pdf, heading

pytestmark = pytest.mark.live

Found = TypeVar("Found")
ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv" / "clients" / "bin" / "python"
"""An environment of tests/clients.lock."""
SECTIONS = ("Priming", "Starting", "Stopping", "Storing", "Cleaning")


@dataclass
class Door:
    """The service on a port of its own, with documents of one tenant."""

    url: str
    world: World
    crew: Caller
    stranger: Caller
    documents: list[str] = field(default_factory=list)

    def ask(self, caller: Caller | None, ask: Callable[[Client], Awaitable[Found]], mode: str = "auto") -> Found:
        """What a client of the SDK makes of the service's answers."""

        async def run() -> Found:
            headers = {"Authorization": f"Bearer {caller.token}"} if caller is not None else {}
            async with (
                httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
                Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode=mode) as client,
            ):
                return await ask(client)

        return asyncio.run(run())

    def call(self, caller: Caller, tool: str, **arguments: Any) -> tuple[str, list[dict[str, Any]]]:
        """The text of a tool's result, and what stands in its fence."""
        made = self.ask(caller, lambda client: client.call_tool(tool, arguments))
        text = made.content[0].text  # type: ignore[union-attr]
        assert not made.is_error, text
        return text, items_of(text)

    def failure(self, caller: Caller, tool: str, **arguments: Any) -> str:
        """What a call says that fails."""
        made = self.ask(caller, lambda client: client.call_tool(tool, arguments))
        assert made.is_error
        return str(made.content[0].text)  # type: ignore[union-attr]


def manual() -> bytes:
    """A PDF with a section a page."""
    story: list[Any] = []
    for number, name in enumerate(SECTIONS, start=1):
        text = f"{name} the harbour pump takes {number} litres of glycol, and the ledger names who did it. " * 3
        story += [heading(name), paragraph(text), PageBreak()]
    return flow_pdf(story, title="Pump manual")


@pytest.fixture(scope="module")
def door(world: World) -> Iterator[Door]:
    tenant = f"agents-{uuid4().hex[:12]}"
    crew = world.key_for("crew", tenant, ["crew"], ("search", "ingest"))
    stranger = world.key_for("stranger", tenant, ["others"], ("search",))
    server = make_server("127.0.0.1", 0, world.client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found = Door(f"http://127.0.0.1:{server.server_port}", world, crew, stranger)
    try:
        headers = {"Authorization": f"Bearer {crew.token}"}
        form = {"document_id": "manual", "acl": "crew", "file": (BytesIO(manual()), "manual.pdf")}
        assert world.client.post("/v1/documents", data=form, headers=headers).status_code == 200
        for number in range(5):
            body = {
                "document_id": f"log/{number}",
                "title": f"Harbour log {number}",
                "text": f"Entry {number}: the crane lifted forty tonnes, wind force {number}.",
                "timestamp": f"202{number}-05-05",
                "acl": ["crew"],
            }
            assert world.client.post("/v1/documents", json=body, headers=headers).status_code == 200
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_client_of_the_sdk_finds_the_tools(door: Door, mode: str) -> None:
    async def look(client: Client) -> tuple[list[str], str]:
        tools = (await client.list_tools()).tools
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
        made = await client.call_tool("search", {"query": "crane"})
        return [tool.name for tool in tools], made.content[0].text  # type: ignore[union-attr]

    names, text = door.ask(door.crew, look, mode)
    assert names == ["search", "find_in_document", "open_page", "list_documents", "answer"]
    assert "forty tonnes" in text


def test_a_search_honours_filter_dates_and_size_and_goes_on(door: Door) -> None:
    wanted = {"timestamp": {"gte": "2021-01-01", "lte": "2023-12-31"}}
    text, items = door.call(door.crew, "search", query="crane", filter=wanted, size=2)
    assert text.startswith("Results 1 to 2 of 3.")
    assert "cursor '2'" in text
    text, more = door.call(door.crew, "search", query="crane", filter=wanted, size=2, cursor="2")
    assert text.startswith("Results 3 to 3 of 3.")
    assert "cursor" not in text
    assert {item["document_id"] for item in [*items, *more]} == {"log/1", "log/2", "log/3"}
    assert items[0]["date"].startswith("202")
    assert "size: Input should be less than or equal to 20 (got 10000)" in door.failure(
        door.crew, "search", query="crane", size=10_000
    )
    assert "filter.sources: unknown field" in door.failure(door.crew, "search", query="x", filter={"sources": ["a"]})


def test_a_document_is_searched_and_read_page_by_page(door: Door) -> None:
    _, items = door.call(door.crew, "find_in_document", document_id="manual", query="who stores the pump", size=1)
    assert (items[0]["heading"], items[0]["page"]) == ("Storing", 4)
    text, opened = door.call(door.crew, "open_page", passage=items[0]["passage"], neighbours=1)
    assert [item["heading"] for item in opened] == ["Stopping", "Storing", "Cleaning"]
    assert [item.get("neighbour", False) for item in opened] == [True, False, True]
    assert "The document ends here." in text
    text, opened = door.call(door.crew, "open_page", document_id="manual", page=2, neighbours=0)
    assert [item["page"] for item in opened] == [2]
    assert "cursor '2'" in text
    text, opened = door.call(door.crew, "open_page", document_id="manual", cursor="2")
    assert [item["heading"] for item in opened] == list(SECTIONS[2:])
    _, opened = door.call(door.crew, "open_page", document_id="manual")
    assert [item["heading"] for item in opened] == list(SECTIONS)
    assert "there is no page 9" in door.failure(door.crew, "open_page", document_id="manual", page=9)


def test_documents_are_listed_page_by_page(door: Door) -> None:
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        text, items = door.call(door.crew, "list_documents", size=4, **cursor)
        names += [item["document_id"] for item in items]
        if "call again with cursor '" not in text:
            break
        cursor = {"cursor": text.partition("with cursor '")[2].partition("'")[0]}
    assert names == [*(f"log/{number}" for number in range(5)), "manual"]
    listed = items[-1]
    assert (listed["title"], listed["type"], listed["last_page"], listed["passages"]) == ("Pump manual", "pdf", 5, 5)
    _, items = door.call(
        door.crew, "list_documents", filter={"source_type": ["json"], "timestamp": {"lt": "2021-01-01"}}
    )
    assert [item["document_id"] for item in items] == ["log/0"]


def test_an_answer_has_citations_to_open(door: Door) -> None:
    _, items = door.call(door.crew, "answer", query="How many tonnes did the crane lift?")
    assert "forty tonnes" in items[0]["answer"]
    _, opened = door.call(door.crew, "open_page", passage=items[1]["passage"], neighbours=0)
    assert items[1]["quote"] in opened[0]["text"]


def test_what_a_key_may_not_see_is_as_what_is_not_there(door: Door) -> None:
    _, items = door.call(door.crew, "search", query="crane", size=1)
    hidden = {"passage": items[0]["passage"], "document_id": "manual"}
    absent = {"passage": "0" * 32, "document_id": "absent"}
    assert door.call(door.stranger, "list_documents") == ("There are no such documents.", [])
    assert door.call(door.stranger, "search", query="crane") == ("Nothing was found.", [])
    for tool, kind, further in (
        ("open_page", "passage", {}),
        ("open_page", "document_id", {}),
        ("open_page", "document_id", {"page": 2}),
    ):
        told = [
            door.failure(door.stranger, tool, **{kind: names[kind]}, **further).replace(names[kind], "NAME")
            for names in (hidden, absent)
        ]
        assert told[0] == told[1]
        assert told[0].startswith("Not found")
    for names in (hidden, absent):
        text, _ = door.call(door.stranger, "find_in_document", document_id=names["document_id"], query="pump")
        assert text == "Nothing was found."


def test_rights_that_are_taken_away_are_gone_with_the_next_call(door: Door) -> None:
    tenant = f"agents-{uuid4().hex[:12]}"
    writer, reader = (
        door.world.key_for(name, tenant, ["crew"], roles) for name, roles in (("w", ("ingest",)), ("r", ("search",)))
    )
    headers = {"Authorization": f"Bearer {writer.token}"}
    body = {"document_id": "plan", "text": "The ferry is sold in May.", "acl": ["crew"]}
    assert door.world.client.post("/v1/documents", json=body, headers=headers).status_code == 200
    for tool, given in (("search", {"query": "ferry"}), ("answer", {"query": "When is the ferry sold?"})):
        assert "sold in May" in door.call(reader, tool, **given)[0]
    _, items = door.call(reader, "open_page", document_id="plan")
    change = {"acl": ["board"]}
    admin = door.world.key_for("admin", tenant, [], ("admin",))
    assert (
        door.world.client.patch(
            document_path("plan"), json=change, headers={"Authorization": f"Bearer {admin.token}"}
        ).status_code
        == 200
    )
    assert door.call(reader, "search", query="ferry")[0] == "Nothing was found."
    assert "sold" not in door.call(reader, "answer", query="When is the ferry sold?")[0]
    assert door.failure(reader, "open_page", passage=items[0]["passage"]).startswith("Not found")
    assert door.failure(reader, "open_page", document_id="plan").startswith("Not found")
    assert door.call(reader, "list_documents")[1] == []
    door.world.revoke(reader)
    with pytest.raises(ExceptionGroup) as raised:
        door.call(reader, "list_documents")
    assert raised.group_contains(MCPError, match="Not authenticated: the key was revoked")


def test_without_a_key_the_door_is_closed(door: Door) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        door.ask(None, lambda client: client.list_tools())
    assert raised.group_contains(MCPError, match="Not authenticated: a key or token is needed")
    answer = httpx2.post(f"{door.url}/mcp", json={}, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    headers = {"Authorization": f"Bearer {door.crew.token}", "Origin": "https://evil.example"}
    assert httpx2.post(f"{door.url}/mcp", json={}, headers=headers, trust_env=False).status_code == 403


def test_threads_of_gunicorn_serve_the_door_side_by_side() -> None:
    async def look(url: str) -> str:
        async with Client(f"{url}/mcp") as client:
            made = await client.call_tool("search", {"query": "crane"})
            assert made.is_error
            return made.content[0].text  # type: ignore[union-attr]

    async def all_at_once(url: str) -> list[str]:
        return await asyncio.gather(*(look(url) for _ in range(8)))

    with running_service(timeout_ms="20000") as service:
        for text in asyncio.run(all_at_once(service.url)):
            assert text.startswith("OpenSearch is unavailable"), text
        assert "Traceback" not in service.said


def test_a_desktop_agent_starts_the_command(door: Door) -> None:
    command = ["-m", "app.cli", "mcp", "--url", door.url]
    reader = door.world.key_for("desktop", door.crew.tenant, ["crew"], ("search",))
    env = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    process = StdioServerParameters(command=sys.executable, args=command, env={**env, "BRAID_API_KEY": reader.token})

    async def run() -> None:
        async with Client(stdio_client(process)) as client:
            assert "search" in [tool.name for tool in (await client.list_tools()).tools]
            made = await client.call_tool("open_page", {"document_id": "manual", "page": 3, "neighbours": 0})
            assert [item["heading"] for item in items_of(made.content[0].text)] == ["Stopping"]  # type: ignore[union-attr]
            await asyncio.to_thread(door.world.revoke, reader)
            made = await client.call_tool("search", {"query": "crane"})
            assert made.is_error
            assert "revoked" in made.content[0].text  # type: ignore[union-attr]

    asyncio.run(run())


@pytest.mark.skipif(not CLIENTS.exists(), reason="`make .venv/clients/.installed` installs the client")
def test_langchains_adapters_call_the_tools(door: Door) -> None:
    asked = {"url": f"{door.url}/mcp", "key": door.crew.token, "tool": "search", "arguments": {"query": "crane"}}
    done = subprocess.run(
        [CLIENTS, ROOT / "tests" / "clients" / "langchain_mcp.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["tools"] == ["search", "find_in_document", "open_page", "list_documents", "answer"]
    assert "forty tonnes" in told["text"]
