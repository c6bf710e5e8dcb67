"""`braid keys` with what people mistype; nothing here needs a store, for nothing may reach it."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.config import load_settings
from app.errors import ConfigurationError, InvalidInput, NotFound, StoreUnavailable
from app.gateway.keys import KeyRecord
from app.local import keys
from app.local.state import AUDIT_FILE

SETTINGS = load_settings(opensearch_url="http://127.0.0.1:9", keys_secret="0123456789abcdef0123456789abcdef")
GOOD: dict[str, Any] = {
    "name": "x", "tenant": None, "groups": (), "roles": ("search",), "expires": None, "rate": None,
}  # fmt: skip


def console() -> Console:
    return Console(file=io.StringIO())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"roles": ("root",)}, "role 'root' is unknown; there are search, ingest"),
        ({"tenant": "a b"}, "tenant 'a b'"),
        ({"groups": ("user:ann",)}, "no group begins with them"),
        ({"groups": ("\udce4",)}, "half a character"),
        ({"rate": "fast"}, "'fast' is no rate limit"),
        ({"expires": "soon"}, "--expires 'soon' is no length of time"),
        ({"expires": "0d"}, "more than nothing"),
        ({"expires": "999999999w"}, "--expires"),
        ({"expires": "99999999d"}, "no date"),
    ],
)
def test_bad_input(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        keys.create(SETTINGS, **{**GOOD, **given}, as_json=False, console=console())


def test_what_is_right_reaches_for_the_store() -> None:
    with pytest.raises(StoreUnavailable):
        keys.create(SETTINGS, **GOOD, as_json=False, console=console())
    with pytest.raises(StoreUnavailable):
        keys.list_keys(SETTINGS, as_json=False, console=console())
    with pytest.raises(StoreUnavailable):
        keys.revoke(SETTINGS, "0" * 24, as_json=False, console=console())
    with pytest.raises(NotFound, match="'no-id'"):
        keys.revoke(SETTINGS, "no-id", as_json=False, console=console())
    with pytest.raises(InvalidInput, match="--overlap"):
        keys.rotate(SETTINGS, "0" * 24, overlap="-1h", as_json=False, console=console())


def test_without_a_secret() -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -hex 32"):
        keys.list_keys(load_settings(opensearch_url="http://127.0.0.1:9"), as_json=False, console=console())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600), ("1 d", 86_400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert keys.parse_duration(text, "--expires") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "d", "1", "-1d", "1.5h", "1y", "１d", "1d1h", "1e3s", "99999999999d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InvalidInput, match="30d"):
        keys.parse_duration(text, "--expires")


def test_what_is_done_with_keys_is_in_the_audit_log(tmp_path: Path) -> None:
    record = KeyRecord(
        "0" * 24, "wiki\n{}", "acme", (), ("search",), None, datetime.now(UTC), None, None, rotated_from="1" * 24
    )
    keys.audit(load_settings(audit_log=str(tmp_path / "audit.jsonl")), "key-rotated", record)
    up = tmp_path / "data"
    up.mkdir()
    (up / AUDIT_FILE).touch()
    keys.audit(load_settings(data_dir=up), "key-revoked", record)
    keys.audit(load_settings(data_dir=tmp_path / "nothing here"), "key-created", record)
    for file, action in ((tmp_path / "audit.jsonl", "key-rotated"), (up / AUDIT_FILE, "key-revoked")):
        (line,) = file.read_text().splitlines()
        said = json.loads(line)
        assert (said["action"], said["tenant"], said["key"]) == (action, "acme", "0" * 24)
        assert (said["key_name"], said["rotated_from"]) == ("wiki\n{}", "1" * 24)
    assert not (tmp_path / "nothing here").exists()
