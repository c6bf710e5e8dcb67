"""Folders are seen whole or not at all, by every process and every account."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from app.errors import ProvisioningError
from app.provision.folders import build_aside, exclusive, make_folder, write_new_file


def test_a_folder_appears_whole_and_readable(tmp_path: Path) -> None:
    final = tmp_path / "a" / "b"
    previous = os.umask(0o077)
    try:
        with build_aside(final) as fresh:
            (fresh / "inner").mkdir()
            (fresh / "inner" / "file").write_text("x")
            assert not final.exists()
    finally:
        os.umask(previous)
    assert final.stat().st_mode & 0o777 == 0o755
    assert final.parent.stat().st_mode & 0o777 == 0o755
    assert (final / "inner").stat().st_mode & 0o777 == 0o755
    assert (final / "inner" / "file").stat().st_mode & 0o777 == 0o644
    assert [p.name for p in final.parent.iterdir()] == ["b"]


def _fail_half_way(final: Path) -> None:
    with build_aside(final) as fresh:
        (fresh / "kept").write_text("half")
        raise KeyError


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with build_aside(final) as fresh:
        (fresh / "kept").write_text("old")
    with pytest.raises(KeyError):
        _fail_half_way(final)
    assert (final / "kept").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_new_folder_replaces_the_old(tmp_path: Path) -> None:
    final = tmp_path / "model"
    for text in ("old", "new"):
        with build_aside(final) as fresh:
            (fresh / text).touch()
    assert [p.name for p in final.iterdir()] == ["new"]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ProvisioningError, match=r"can't create the folder .*file/cache: Not a directory.*BRAID_CACHE_DIR"
    ):
        make_folder(tmp_path / "file" / "cache")
    with pytest.raises(ProvisioningError, match="is not a folder"):
        make_folder(tmp_path / "file")


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "config").symlink_to(precious)
    write_new_file(tmp_path / "config", "theirs")
    assert precious.read_text() == "mine"
    assert (tmp_path / "config").read_text() == "theirs"


def _enter(lock: Path, log: Path) -> None:
    with exclusive(lock):
        with log.open("a") as file:
            file.write("in ")
        time.sleep(0.1)
        with log.open("a") as file:
            file.write("out ")


def test_two_processes_take_turns(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_enter, args=(tmp_path / "lock", tmp_path / "log")) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3
