"""Rates, the keys that windows are counted under, origins, and the files of the audit log."""

from __future__ import annotations

import json
import logging
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g
from hypothesis import given
from hypothesis import strategies as st

from app.api import problems
from app.config import load_settings
from app.errors import ConfigurationError, InvalidInput
from app.gateway.audit import AuditLog, install_audit, note
from app.gateway.caller import Caller, operator
from app.gateway.cors import allowed_origins, install_cors
from app.gateway.rate_limits import MAX_AMOUNT, check_limits, install_limits, parse_rate, window_key
from app.gateway.roles import Role
from app.store.filters import Scope


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("600/minute;100000/day", [600, 100_000]),
        ("5 per 10 second", [5]),
        (f"{MAX_AMOUNT}/month, 1/second", [MAX_AMOUNT, 1]),
        ("3/10 years", [3]),
    ],
)
def test_rates(text: str, amounts: list[int]) -> None:
    assert [item.amount for item in parse_rate(text)] == amounts


@pytest.mark.parametrize(
    "text",
    [
        *("", "many", "5", "5/fortnight", "0/minute", "-5/minute", "5/0minute", "1.5/minute", f"{MAX_AMOUNT + 1}/day"),
        *("5/minute;", ";", "5/minute;;6/day", "5/minute" + ";5/minute" * 50, "٥/minute", "5/minute\x00"),
        *("10/100000000000year", "1/11 years", "5/minute;1/3700day", f"1/{'9' * 100}second"),
        " " * 100_000,
    ],
)
def test_what_is_no_rate_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="rate limit"):
        parse_rate(text)
    if text:
        with pytest.raises(ConfigurationError, match="BRAID_RATE_LIMIT_KEY: "):
            check_limits(load_settings(rate_limit_key=text))
        with pytest.raises(ConfigurationError, match="BRAID_RATE_LIMIT_TENANT: "):
            check_limits(load_settings(rate_limit_tenant=text))


names = st.text(st.characters(codec=None), max_size=8)


@given(names, st.none() | names, names, st.none() | names)
def test_two_callers_never_share_a_window(tenant: str, subject: str | None, tenant2: str, subject2: str | None) -> None:
    same = (tenant, subject) == (tenant2, subject2)
    assert (window_key(tenant, subject) == window_key(tenant2, subject2)) is same
    assert set(window_key(tenant, subject)) <= set("0123456789abcdef")


def test_names_that_look_alike_are_counted_apart() -> None:
    alike = [
        "user:josé",
        unicodedata.normalize("NFD", "user:josé"),
        "user:JOSÉ",
        "user:jose",
        "user:jоse",
        "user:jose ",
    ]
    assert len({window_key("a", name) for name in alike}) == len(alike)
    assert window_key("a/b", "c") != window_key("a", "b/c")
    assert window_key("a", None) != window_key("a", "") != window_key("a-")


class Clockwork:
    """An application with a caller of one's choice."""

    def __init__(self, **settings: Any) -> None:
        self.app = Flask("clockwork")
        problems.install(self.app)
        self.caller: Caller | None = operator("default")
        self.app.before_request(self._enter)
        install_limits(self.app, load_settings(**settings))
        self.app.add_url_rule("/v1/search", "search.search", lambda: "found")

    def _enter(self) -> None:
        if self.caller is not None:
            g.caller = self.caller

    def ask(self) -> int:
        return self.app.test_client().get("/v1/search").status_code


def caller(tenant: str, subject: str, rate: str | None = None) -> Caller:
    return Caller(Scope(tenant, frozenset(), subject), frozenset({Role.SEARCH}), subject, rate)


def test_each_caller_has_its_own_window_and_the_tenant_one_for_all() -> None:
    clockwork = Clockwork(rate_limit_key="3/hour", rate_limit_tenant="5/hour")
    clockwork.caller = caller("a", "key:1")
    assert [clockwork.ask() for _ in range(4)] == [200, 200, 200, 429]
    clockwork.caller = caller("a", "key:2")
    assert [clockwork.ask() for _ in range(3)] == [200, 200, 429]
    clockwork.caller = caller("b", "key:1")  # the same name in another tenant
    assert clockwork.ask() == 200
    clockwork.caller = None  # an open endpoint
    assert [clockwork.ask() for _ in range(9)] == [200] * 9


def test_a_key_may_have_its_own_rate() -> None:
    clockwork = Clockwork(rate_limit_key="1/hour")
    clockwork.caller = caller("a", "key:1", "4/hour")
    assert [clockwork.ask() for _ in range(5)] == [200] * 4 + [429]
    clockwork.caller = caller("a", "key:2", "not a rate")  # of a record that another version wrote
    assert [clockwork.ask() for _ in range(2)] == [200, 429]


def test_no_limit_is_none() -> None:
    clockwork = Clockwork()
    answer = clockwork.app.test_client().get("/v1/search")
    assert answer.status_code == 200
    assert not [name for name, _ in answer.headers if name.lower().startswith("ratelimit")]


def test_the_headers_are_of_the_window_that_binds_first() -> None:
    clockwork = Clockwork(rate_limit_key="100/minute;2/day")
    answer = clockwork.app.test_client().get("/v1/search")
    assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("2", "1")
    assert 86_000 < int(answer.headers["RateLimit-Reset"]) <= 86_401


@pytest.mark.parametrize(
    "origins",
    [
        *("*", "null", "https://*.example", "https://a.example/", "https://a.example/page", "a.example"),
        "ftp://a.example",
        "https://a.example b",
        "https://user@a.example",
        "https://a.example:",
        "https://a.example, *",
        "https://ä.example",
    ],
)
def test_what_is_no_origin_is_refused_by_name(origins: str) -> None:
    with pytest.raises(ConfigurationError, match="BRAID_CORS_ORIGINS: "):
        allowed_origins(load_settings(cors_origins=origins).server)


def test_cors_is_for_the_listed_origins_alone() -> None:
    app = Flask("cors")
    install_cors(app, load_settings(cors_origins="https://App.example, http://[::1]:3000").server)
    app.add_url_rule("/v1/search", "search", lambda: "found", methods=["POST"])
    app.add_url_rule("/readyz", "ready", lambda: "ready")
    client = app.test_client()

    def allowed(origin: str, path: str = "/v1/search", method: str = "POST") -> str | None:
        return client.open(path, method=method, headers={"Origin": origin}).headers.get("Access-Control-Allow-Origin")

    assert allowed("https://app.example") == "https://app.example"
    assert allowed("http://[::1]:3000") == "http://[::1]:3000"
    for foreign in (
        "https://app.example.evil",
        "https://app.example:444",
        "http://app.example",
        "https://evil-app.example",
        "https://appxexample",
        "http://[::1]:30001",
        "http://:",
        "null",
    ):
        assert allowed(foreign) is None
    assert allowed("https://app.example", "/readyz", "GET") is None
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = client.options(
        "/v1/search", headers={**asked, "Access-Control-Request-Headers": "authorization, content-type, x-evil"}
    )
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


NASTY = 'a"b\\\n{"action":"forged"}\r\x1b[2J\u2028\x85\ud800\u202e\x00'


def test_no_name_ends_a_line_or_begins_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path))
    for _ in range(3):
        log.write({"name": NASTY, "status": 200})
    log.close()
    raw = path.read_bytes()
    assert raw.isascii()
    assert not any(byte < 32 and byte != 10 for byte in raw)
    lines = raw.decode().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [NASTY] * 3


def test_the_file_is_its_owners_and_is_followed_when_it_moves(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    log.write({"number": 1})
    path.rename(tmp_path / "audit.jsonl.1")
    log.write({"number": 2})
    path.unlink()
    log.write({"number": 3})
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        path.unlink()
        log.write({"number": number})
    assert len(os.listdir("/proc/self/fd")) == descriptors  # the old ones are closed
    log.close()
    assert json.loads((tmp_path / "audit.jsonl.1").read_text()) == {"number": 1}
    assert json.loads(path.read_text()) == {"number": 19}


def test_a_full_disk_costs_lines_and_no_request(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog("/dev/full")
    with caplog.at_level(logging.WARNING, "braid.audit"):
        for _ in range(5):
            log.write({"number": 1})
    assert len(caplog.records) == 1  # said once
    assert "No space left on device" in caplog.text
    log.close()


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path))
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
        log.write({"number": 1})
    log.write({"number": 2})
    log.write({"number": 3})
    log.close()
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines[1:]] == [{"number": 2}, {"number": 3}]


@pytest.mark.parametrize("name", ["missing/audit.jsonl", "."])
def test_a_file_that_cant_be_opened_stops_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="BRAID_AUDIT_LOG="):
        AuditLog(str(tmp_path / name))


def test_a_line_says_who_and_what_and_nothing_that_was_asked(tmp_path: Path) -> None:
    app = Flask("audited")
    path = tmp_path / "audit.jsonl"
    actions = {"search.search": "search", "documents.get": "read-document", "ops.healthz": None}
    install_audit(app, load_settings(audit_log=str(path)).server, actions)

    @app.before_request
    def _enter() -> None:
        g.request_id = "r1"
        g.caller = caller("a", "user:josé")

    def search() -> str:
        note(query_id="q1", results=3)
        return "secret passage"

    app.add_url_rule("/v1/search", "search.search", search, methods=["POST"])
    app.add_url_rule("/v1/documents/<path:document_id>", "documents.get", lambda document_id: "secret passage")
    app.add_url_rule("/v1/new", "new.thing", lambda: ("no", 403))
    app.add_url_rule("/healthz", "ops.healthz", lambda: "ok")
    client = app.test_client()
    client.post("/v1/search?q=secret", json={"query": "secret"}, headers={"Authorization": "Bearer secret"})
    client.get("/v1/documents/" + "x" * 5000)
    client.get("/v1/new")
    client.get("/healthz")
    app.extensions["braid_audit"].close()
    assert "secret" not in path.read_text()
    first, second, third = [json.loads(line) for line in path.read_text().splitlines()]
    assert first.pop("time").endswith("Z")
    assert first == {
        "request_id": "r1",
        "action": "search",
        "status": 200,
        "tenant": "a",
        "subject": "user:josé",
        "name": "user:josé",
        "remote": "127.0.0.1",
        "query_id": "q1",
        "results": 3,
    }
    assert second["action"] == "read-document"
    assert len(second["document_id"]) == 512
    assert (third["action"], third["asked"]) == ("denied", "new.thing")
