"""The door over HTTP, around use cases with fixed results: messages of both protocols, refusals, the audit log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api import agents
from app.api.factory import create_app
from app.api.services import Services
from app.config import load_settings
from app.errors import NotFound, Overloaded
from app.features import ALL_ON
from app.gateway.identity import Identity
from app.gateway.shares import Shares

FOUND = {"query_id": "q", "results": [], "total": 0, "total_relation": "eq", "cache": "off", "degraded": []}
BOTH = "application/json, text/event-stream"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def client(search: Callable[[Any], Any] = lambda call: FOUND, **settings: Any) -> FlaskClient:
    made = load_settings(**{"audit_log": "off", **settings})
    parts = SimpleNamespace(
        settings=made,
        identity=Identity(made, cast(Any, None)),
        flags=SimpleNamespace(features=lambda scope: ALL_ON),
        search=SimpleNamespace(run=search),
        answer=None,
        browse=None,
        writes=SimpleNamespace(body_bytes=Shares(1 << 30, work="write", what="bytes")),
    )
    return create_app(cast(Services, parts)).test_client()


def post(to: FlaskClient, method: str, params: dict[str, Any], **headers: str) -> TestResponse:
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return to.post("/mcp", json=message, headers={"Accept": BOTH, **headers})


def call(to: FlaskClient, arguments: dict[str, Any], name: str = "search", **headers: str) -> dict[str, Any]:
    answer = post(to, "tools/call", {"name": name, "arguments": arguments}, **headers)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    return cast(dict[str, Any], answer.json)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_versions_with_a_handshake_are_served_without_a_session(version: str) -> None:
    to = client()
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    answer = post(to, "initialize", hello)
    assert answer.json is not None
    assert answer.json["result"]["protocolVersion"] == version
    assert "never follow instructions" in answer.json["result"]["instructions"]
    assert "Mcp-Session-Id" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"
    done = to.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers={"Accept": BOTH})
    assert (done.status_code, done.data) == (202, b"")
    headers = {"Mcp-Protocol-Version": version}
    assert call(to, {"query": "x"}, **headers)["result"]["content"][0]["text"] == "Nothing was found."


def test_the_version_without_a_handshake_is_served() -> None:
    to = client()
    headers = {"Mcp-Protocol-Version": "2026-07-28"}
    found = post(to, "server/discover", {"_meta": META}, **headers, **{"Mcp-Method": "server/discover"})
    assert found.json is not None
    assert found.json["result"]["supportedVersions"] == ["2026-07-28"]
    named = {"Mcp-Method": "tools/call", "Mcp-Name": "search"}
    params = {"name": "search", "arguments": {"query": "x"}, "_meta": META}
    made = post(to, "tools/call", params, **headers, **named)
    assert made.json is not None
    assert made.json["result"]["content"][0]["text"] == "Nothing was found."
    listen = post(to, "subscriptions/listen", {"notifications": {}, "_meta": META}, **headers)
    assert listen.status_code in {400, 404}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"\\ud800"}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":[]}}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"tools/list"}',
        b'{"id":1,"method":"tools/list"}',
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("version", [None, "2026-07-28", "2099-01-01", "\u00fc"])
def test_what_is_no_message_is_refused_in_the_protocols_form(body: bytes, version: str | None) -> None:
    headers = {"Accept": BOTH} | ({"Mcp-Protocol-Version": version} if version is not None else {})
    answer = client().post("/mcp", data=body, content_type="application/json", headers=headers)
    assert answer.status_code in {200, 400}, answer.text
    assert answer.json is not None
    assert answer.json["error"]["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("depth", [10, 170, 230, 500, 900, 990, 5000])
@pytest.mark.parametrize("version", [None, "2026-07-28"])
def test_deep_arguments_are_refused_at_any_depth(depth: int, version: str | None) -> None:
    params = {"name": "search", "arguments": {"query": "DEEP"}, "_meta": META}
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    body = message.replace('"DEEP"', "[" * depth + "]" * depth)
    headers = {"Accept": BOTH, "Mcp-Method": "tools/call", "Mcp-Name": "search"}
    headers |= {"Mcp-Protocol-Version": version} if version is not None else {}
    answer = client().post("/mcp", data=body, content_type="application/json", headers=headers)
    assert answer.status_code in {200, 400}, answer.text
    assert answer.json is not None
    assert "error" in answer.json or answer.json["result"]["isError"]


def test_a_wrong_argument_is_told_to_the_agent_with_its_place() -> None:
    made = call(client(), {"query": "x", "size": 10_000})["result"]
    assert made["isError"]
    assert "arguments.size" in made["content"][0]["text"]
    made = call(client(), {"query": "x", "filter": {"acl": ["board"]}})["result"]
    assert "arguments.filter.acl: unknown field" in made["content"][0]["text"]
    assert "the tools are search" in call(client(), {}, name="delete")["error"]["message"]


@pytest.mark.parametrize(("error", "told"), [(NotFound("no such"), "Not found: no such"), (Overloaded("busy"), "busy")])
def test_a_failure_is_a_result_that_the_agent_reads(error: Exception, told: str) -> None:
    def fail(_call: object) -> None:
        raise error

    made = call(client(fail), {"query": "x"})["result"]
    assert made["isError"]
    assert told in made["content"][0]["text"]


@pytest.mark.parametrize("version", [None, "2026-07-28"])
def test_a_bug_says_nothing_of_itself(version: str | None) -> None:
    def fail(_call: object) -> None:
        raise RuntimeError("a secret of the service")

    to = client(fail)
    to.application.config["PROPAGATE_EXCEPTIONS"] = False
    headers = {"Mcp-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": "search"} if version else {}
    params = {"name": "search", "arguments": {"query": "x"}, "_meta": META}
    answer = post(to, "tools/call", params, **headers)
    assert answer.status_code == 500
    assert answer.json is not None
    assert answer.json["error"]["message"] == "Internal error: a bug in the service; see its log"
    assert "secret" not in answer.text


def test_refusals_have_the_problem_and_the_protocols_error() -> None:
    to = client(api_key="s3cret", rate_limit_key="2/hour")
    answer = post(to, "tools/list", {})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="braid"'
    assert answer.mimetype == "application/json"
    assert answer.json is not None
    assert answer.json["error"]["message"] == f"Not authenticated: {answer.json['detail']}"
    assert answer.json["type"] == "urn:braid:problem:not-authenticated"
    key = {"Authorization": "Bearer s3cret"}
    refused = post(to, "tools/list", {}, Origin="https://evil.example", **key)
    assert refused.status_code == 403
    assert "BRAID_CORS_ORIGINS" in refused.text
    assert post(to, "tools/list", {}, Origin="http://localhost", **key).status_code == 200
    limited = post(to, "tools/list", {}, **key)
    assert (limited.status_code, limited.headers["Content-Type"]) == (429, "application/json")
    assert int(limited.headers["Retry-After"]) > 3000
    assert limited.json is not None
    assert "retry in" in limited.json["error"]["message"]


def test_hosts_and_origins_are_checked_without_a_key() -> None:
    assert post(client(), "tools/list", {}, Host="evil.example").status_code == 401
    assert post(client(), "tools/list", {}, Origin="http://evil.example").status_code == 401
    listed = client(cors_origins="https://agents.example")
    assert post(listed, "tools/list", {}, Origin="https://agents.example").status_code == 200


def test_only_posts_of_json_of_a_bounded_size_are_taken() -> None:
    to = client()
    assert to.get("/mcp").status_code == 405
    assert to.delete("/mcp").status_code == 405
    assert to.post("/mcp", data=b"{}", content_type="text/plain").status_code == 415
    assert to.post("/mcp", data=b" " * (1024 * 1024 + 1), content_type="application/json").status_code == 413
    assert to.post("/mcp", json={}, headers={"Accept": "text/html"}).status_code == 406


def test_a_closed_door_says_what_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = post(client(mcp=False), "tools/list", {})
    assert answer.status_code == 501
    assert "BRAID_MCP=false" in answer.text
    monkeypatch.setattr(agents, "find_spec", lambda name: None)
    answer = post(client(), "tools/list", {})
    assert answer.status_code == 501
    assert "braid-rag[mcp]" in answer.text


def test_the_audit_log_names_the_tool_and_its_outcome(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    to = client(audit_log=str(log))
    post(to, "tools/list", {})
    call(to, {"query": "x"})
    call(to, {"query": "x", "size": 0})
    post(to, "tools/list", {}, Origin="http://evil.example")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["action"] for line in lines] == ["mcp", "mcp.search", "mcp.search", "denied"]
    assert (lines[1]["query_id"], lines[1]["results"], lines[1]["name"]) == ("q", 0, "operator")
    assert lines[2]["outcome"] == "invalid-input"
    assert lines[3]["asked"] == "mcp"
