from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from app.config import load_settings
from app.dev import state

HERE = state.LocalState("http://127.0.0.1:1", "http://127.0.0.1:2", "redis://127.0.0.1:3/0", os.getpid())


def test_what_runs_is_found(tmp_path: Path) -> None:
    state.write(tmp_path, HERE)
    assert state.read(tmp_path) == HERE
    found = state.with_running(load_settings(data_dir=tmp_path))
    assert (found.client.url, found.opensearch.url, found.redis.url) == (HERE.url, HERE.opensearch_url, HERE.redis_url)


def test_the_password_goes_with_the_address_that_it_opens(tmp_path: Path) -> None:
    here = replace(HERE, opensearch_user="braid", opensearch_password="secret")
    state.write(tmp_path, here)
    assert (tmp_path / "braid.json").stat().st_mode & 0o777 == 0o600
    found = state.with_running(load_settings(data_dir=tmp_path))
    assert found.opensearch.user == "braid"
    assert found.opensearch.password is not None
    assert found.opensearch.password.get_secret_value() == "secret"
    elsewhere = state.with_running(load_settings(data_dir=tmp_path, opensearch_url="http://10.0.0.2:9200"))
    assert (elsewhere.opensearch.user, elsewhere.opensearch.password) == (None, None)


def test_credentials_are_put_into_each_address() -> None:
    assert HERE.opensearch_login == HERE.opensearch_url
    here = replace(HERE, opensearch_url="http://a:1,http://b:2", opensearch_user="me", opensearch_password="p@ss")
    assert here.opensearch_login == "http://me:p%40ss@a:1,http://me:p%40ss@b:2"


def test_what_the_caller_named_stays(tmp_path: Path) -> None:
    state.write(tmp_path, HERE)
    given = load_settings(data_dir=tmp_path, url="http://10.0.0.1", opensearch_url="http://10.0.0.2:9200")
    found = state.with_running(given)
    assert (found.client.url, found.opensearch.url) == ("http://10.0.0.1", "http://10.0.0.2:9200")


def test_a_dead_process_or_a_broken_file_is_nothing(tmp_path: Path) -> None:
    assert state.read(tmp_path) is None
    state.write(tmp_path, state.LocalState("a", "b", "c", 2**22 + 1))
    assert state.read(tmp_path) is None
    (tmp_path / "braid.json").write_text("{")
    assert state.read(tmp_path) is None
