"""`braid keys` with what people mistype; nothing here needs a store, for nothing may reach it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import cli
from app.commands.options import parse_duration
from app.config import load_settings
from app.dev.state import AUDIT_FILE, audit_target
from app.errors import ConfigurationError, InvalidInput, NotFound, StoreUnavailable
from app.gateway.key_changes import log_key_change
from app.gateway.keys import KeyRecord

SECRET = "0123456789abcdef0123456789abcdef"


def call(folder: Path, *words: str, secret: str | None = SECRET) -> None:
    """Run `braid keys`, and raise its error."""
    env = {"BRAID_OPENSEARCH_URL": "http://127.0.0.1:9", "BRAID_DATA_DIR": str(folder), "BRAID_KEYS_SECRET": secret}
    CliRunner(env=env).invoke(cli, ["keys", *words], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--role", "root", "role 'root' is unknown; known roles: search, ingest"),
        ("--tenant", "a b", "tenant 'a b'"),
        ("--group", "user:ann", "use another prefix"),
        ("--group", "\udce4", "an unpaired surrogate"),
        ("--rate", "fast", "'fast' is not a rate limit"),
        ("--expires", "soon", "--expires 'soon' is not a duration"),
        ("--expires", "0d", "pass a positive lifetime"),
        ("--expires", "999999999w", "--expires"),
        ("--expires", "99999999d", "not a valid date"),
    ],
)
def test_bad_input(tmp_path: Path, option: str, given: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        call(tmp_path, "create", "--name", "x", option, given)


def test_what_is_right_reaches_for_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        call(tmp_path, "create", "--name", "x")
    with pytest.raises(StoreUnavailable):
        call(tmp_path, "list")
    with pytest.raises(StoreUnavailable):
        call(tmp_path, "revoke", "0" * 24)
    with pytest.raises(NotFound, match="'no-id'"):
        call(tmp_path, "revoke", "no-id")
    with pytest.raises(InvalidInput, match="--overlap"):
        call(tmp_path, "rotate", "0" * 24, "--overlap", "-1h")


def test_without_a_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -hex 32"):
        call(tmp_path, "list", secret=None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600), ("1 d", 86_400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text, "--expires") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "d", "1", "-1d", "1.5h", "1y", "１d", "1d1h", "1e3s", "99999999999d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InvalidInput, match="30d"):
        parse_duration(text, "--expires")


def test_what_is_done_with_keys_is_in_the_audit_log(tmp_path: Path) -> None:
    record = KeyRecord(
        "0" * 24, "wiki\n{}", "acme", (), ("search",), None, datetime.now(UTC), None, None, rotated_from="1" * 24
    )
    log_key_change(audit_target(load_settings(audit_log=str(tmp_path / "audit.jsonl"))), "key-rotated", record)
    up = tmp_path / "data"
    up.mkdir()
    (up / AUDIT_FILE).touch()
    log_key_change(audit_target(load_settings(data_dir=up)), "key-revoked", record)
    log_key_change(audit_target(load_settings(data_dir=tmp_path / "nothing here")), "key-created", record)
    for file, action in ((tmp_path / "audit.jsonl", "key-rotated"), (up / AUDIT_FILE, "key-revoked")):
        (line,) = file.read_text().splitlines()
        said = json.loads(line)
        assert (said["action"], said["tenant"], said["key"]) == (action, "acme", "0" * 24)
        assert (said["key_name"], said["rotated_from"]) == ("wiki\n{}", "1" * 24)
    assert not (tmp_path / "nothing here").exists()
