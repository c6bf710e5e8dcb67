from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from app.config import load_settings
from app.dev.account import own_folder, private_folder
from app.dev.guard import add_guard
from app.dev.secret import own_secret
from app.errors import ProvisioningError
from app.provision.folders import build_aside, write_new_file
from app.provision.java import Java
from app.provision.opensearch import Home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    found = own_secret(tmp_path)
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]
    assert mode(tmp_path / "secret") == 0o600
    (tmp_path / "secret").chmod(0o644)
    assert own_secret(tmp_path) == found
    assert mode(tmp_path / "secret") == 0o600
    (tmp_path / "other").mkdir()
    assert own_secret(tmp_path / "other") != found


def test_one_of_the_user_s_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("My-own_secret-of-32-characters-ok\n")
    assert own_secret(tmp_path) == "My-own_secret-of-32-characters-ok"


@pytest.mark.parametrize("content", ["", "short", "x" * 31, "y" * 40 + "\nrequirepass z", "with spaces " * 5, "ü" * 40])
def test_what_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ProvisioningError, match=r"contains no secret .*: remove it"):
        own_secret(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("a" * 64)
    (tmp_path / "secret").symlink_to(tmp_path / "theirs")
    with pytest.raises(ProvisioningError, match="can't keep a secret in"):
        own_secret(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files to others")
def test_another_user_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a" * 64)
    os.chown(tmp_path / "secret", 1, 1)
    with pytest.raises(ProvisioningError, match="belongs to another user"):
        own_secret(tmp_path)


def test_folders_and_files_are_closed_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        private_folder(None, tmp_path / "private")
        own_folder(None, tmp_path / "own")
        write_new_file(tmp_path / "file", "x", mode=0o600)
    finally:
        os.umask(old)
    assert [mode(tmp_path / name) for name in ("private", "own", "file")] == [0o700, 0o700, 0o600]


def test_permissions_behind_links_stay(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("x")
    theirs.chmod(0o600)
    with build_aside(tmp_path / "made") as fresh:
        (fresh / "link").symlink_to(theirs)
    assert mode(theirs) == 0o600


@pytest.mark.parametrize("descriptor", [None, "name=transport-netty4\nclassname=org.example.Other\n"])
def test_an_opensearch_without_its_network_module_is_refused(tmp_path: Path, descriptor: str | None) -> None:
    module = tmp_path / "home" / "modules" / "transport-netty4"
    module.mkdir(parents=True)
    if descriptor is not None:
        (module / "plugin-descriptor.properties").write_text(descriptor)
    home = Home(tmp_path / "home", "2.19.1", None)
    with pytest.raises(ProvisioningError, match="unset OPENSEARCH_HOME"):
        add_guard(home, Java(Path("/nowhere/java"), "17", 17), load_settings(cache_dir=tmp_path / "cache").machine)
    assert not list((tmp_path / "cache" / "opensearch").glob("guarded-*"))
