"""`Flags` on real files: whatever happens to a file, the last good flags stay."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openfeature import api
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason
from prometheus_client import REGISTRY

from app.config import load_settings
from app.errors import ConfigurationError
from app.features import ALL_ON
from app.gateway.flag_file import FLAGS
from app.gateway.flags import Flags, check_flags, context_of
from app.store.filters import Scope
from tests.unit.gateway.flag_files import GOOD, OFF_FOR_A, flags_with, wait_until

A, B = Scope("a"), Scope("b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    path.write_bytes(flags_with(rules=OFF_FOR_A))
    return path


@pytest.fixture
def flags(path: Path) -> Iterator[Flags]:
    flags = Flags(load_settings(flags_file=path).flags)
    yield flags
    flags.close()


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("flag_sets_total", {"outcome": outcome}) or 0.0


def test_without_a_file_the_flags_are_as_they_ship_and_nothing_runs() -> None:
    before = threading.active_count()
    flags = Flags(load_settings().flags)
    assert threading.active_count() == before
    found = flags.features(A)
    assert [getattr(found, name) for name in FLAGS] == [getattr(ALL_ON, name) for name in FLAGS]
    assert found.variants == {name: "off" if name == "early_exit" else "on" for name in FLAGS}
    assert flags.warnings() == []
    flags.close()


def test_a_file_decides_by_tenant_and_names_the_variants(flags: Flags) -> None:
    assert (flags.features(A).rerank, flags.features(B).rerank) == (False, True)
    assert (flags.features(A).variants["rerank"], flags.features(B).variants["rerank"]) == ("off", "on")
    assert flags.features(A).generation


def test_what_was_found_is_kept_for_the_caller(flags: Flags) -> None:
    assert flags.features(A) is flags.features(Scope("a", frozenset({"g"})))
    assert flags.features(A) is not flags.features(Scope("a", subject="key:1"))


def test_a_change_is_live_by_itself_and_at_once_for_callers_that_were_just_there(flags: Flags, path: Path) -> None:
    assert flags.features(B).generation
    path.write_bytes(flags_with("generation", default=False))
    wait_until(lambda: not flags.features(B).generation)
    assert flags.features(A).rerank
    watcher = flags._watcher
    assert watcher is not None
    path.write_bytes(flags_with("vector", default=False))
    watcher.look()
    assert not flags.features(B).vector


def test_a_file_with_an_older_time_counts(flags: Flags, path: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.json"
    older.write_bytes(flags_with("generation", default=False))
    os.utime(older, (1_000_000_000, 1_000_000_000))
    older.replace(path)
    wait_until(lambda: not flags.features(B).generation)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def no_flags(path: Path) -> None:
    path.write_bytes(b'{"flags": {}}')


def misspell(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"rerank"', b'"rerenk"'))


def wrong_type(path: Path) -> None:
    path.write_bytes(flags_with(default="true"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "spoil",
    [empty, halve, no_flags, misspell, wrong_type, folder, pipe, dangling, Path.unlink],
    ids=lambda f: f.__name__,
)
def test_a_spoilt_file_changes_nothing_and_is_told(
    flags: Flags, path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    refused, applied = counted("refused"), counted("applied")
    good = path.read_bytes()
    spoil(path)
    wait_until(lambda: flags.warnings() != [])
    assert (flags.features(A).rerank, flags.features(B).rerank) == (False, True)
    (warning,) = flags.warnings()
    assert "is invalid" in warning
    assert str(path.parent) not in warning
    # the file stays as it is for some looks: that is said once
    watcher = flags._watcher
    assert watcher is not None
    watcher.look()
    watcher.look()
    assert counted("refused") == refused + 1
    assert [record.levelno for record in caplog.records if record.name == "braid.flags"] == [logging.WARNING]
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(good)
    wait_until(lambda: flags.warnings() == [])
    assert (flags.features(A).rerank, flags.features(B).rerank) == (False, True)
    assert counted("applied") == applied + 1


def test_a_file_that_is_linked_elsewhere_is_followed(flags: Flags, path: Path, tmp_path: Path) -> None:
    """As Kubernetes changes a mounted file."""
    (tmp_path / "v2.json").write_bytes(flags_with("generation", default=False))
    link = tmp_path / "link"
    link.symlink_to("v2.json")
    link.replace(path)
    wait_until(lambda: not flags.features(B).generation)


@pytest.mark.parametrize("spoil", [empty, no_flags, Path.unlink], ids=lambda f: f.__name__)
def test_a_start_with_a_file_that_can_not_be_used_is_refused(path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(path)
    before = threading.active_count()
    for start in (Flags, check_flags):
        with pytest.raises(ConfigurationError, match=r"BRAID_FLAGS_FILE=.*flags\.json.*validate"):
            start(load_settings(flags_file=path).flags)
    assert threading.active_count() == before


def test_all_flags_of_one_answer_are_of_one_file(flags: Flags, path: Path, tmp_path: Path) -> None:
    """Two files are swapped while callers ask: an answer never has one flag of the one and one of the other."""
    versions = [flags_with(rules=OFF_FOR_A)]
    off = GOOD | {"flags": {name: {"default": False} for name in FLAGS}}
    versions.append(json.dumps(off).encode())
    done = threading.Event()
    mixed: list[object] = []
    seen: set[bool] = set()

    def ask(number: int) -> None:
        count = 0
        while not done.is_set():
            count += 1
            found = flags.features(Scope("b", subject=f"key:{number}-{count}"))
            seen.add(found.vector)
            if len({found.lexical, found.vector, found.learned_fusion, found.generation}) != 1:
                mixed.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    watcher = flags._watcher
    assert watcher is not None
    for number in range(40):
        (tmp_path / "next.json").write_bytes(versions[number % 2])
        (tmp_path / "next.json").replace(path)
        watcher.look()
    done.set()
    for thread in threads:
        thread.join()
    assert seen == {True, False}
    assert not mixed


def test_two_are_independent_and_closing_one_leaves_nothing(path: Path, tmp_path: Path) -> None:
    other = shutil.copy(path, tmp_path / "other.json")
    Path(other).write_bytes(flags_with())
    before = threading.active_count()
    first, second = Flags(load_settings(flags_file=path).flags), Flags(load_settings(flags_file=other).flags)
    assert (first.features(A).rerank, second.features(A).rerank) == (False, True)
    first.close()
    assert second.features(A).rerank
    second.close()
    wait_until(lambda: threading.active_count() == before)


def test_a_flag_is_never_anything_but_true_or_false(flags: Flags) -> None:
    client = api.get_client(flags._domain)
    for found in (
        client.get_string_details("rerank", "x"),
        client.get_integer_details("rerank", 1),
        client.get_float_details("rerank", 1.5),
        client.get_object_details("rerank", {}),
    ):
        assert found.error_code == ErrorCode.TYPE_MISMATCH


def test_the_evaluation_says_why(flags: Flags, path: Path) -> None:
    def reason(flag: str, tenant: str) -> object:
        return api.get_client(flags._domain).get_boolean_details(flag, True, context_of(tenant, None)).reason

    assert reason("vector", "a") == Reason.STATIC
    assert (reason("rerank", "a"), reason("rerank", "b")) == (Reason.TARGETING_MATCH, Reason.DEFAULT)
    path.write_bytes(flags_with(rules=[{"percent": 100, "value": False}]))
    wait_until(lambda: not flags.features(B).rerank)
    assert reason("rerank", "b") == Reason.SPLIT


def test_a_flagd_server_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_FLAGD", "localhost:8015")
    with pytest.raises(ConfigurationError, match=r"BRAID_FLAGD was removed.*BRAID_FLAGS_FILE"):
        load_settings()
