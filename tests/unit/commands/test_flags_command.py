"""`braid flags`: what it writes is a file that services take, and does what it says for real callers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from app.cli import cli
from app.commands import flags as command
from app.config import load_settings
from app.dev import state
from app.errors import ConfigurationError, InvalidInput
from app.gateway import flag_editor
from app.gateway.flag_editor import own_file, with_share
from app.gateway.flag_file import FLAGS, Flag, bucket, shipped
from app.gateway.flags import Flags
from app.store.filters import Scope

BY_HAND = [{"tenants": ["x"], "percent": 100, "value": False}, {"percent": 100, "value": True}]


def set_flag(path: Path, flag: str, value: str, *tenants: str, percent: int = 100) -> str:
    console = Console(file=io.StringIO(), width=200)
    settings = load_settings(flags_file=path)
    command.switch(settings, flag, value == "on", tenants=tenants, percent=percent, console=console)
    return console.file.getvalue()


def is_on(path: Path, flag: str, tenant: str, subject: str | None = None) -> bool:
    flags = Flags(load_settings(flags_file=path).flags)
    found: bool = getattr(flags.features(Scope(tenant, subject=subject)), flag)
    flags.close()
    return found


def share(path: Path, flag: str, tenant: str) -> set[int]:
    """Of 200 callers, those for whom it is on."""
    flags = Flags(load_settings(flags_file=path).flags)
    found = {n for n in range(200) if getattr(flags.features(Scope(tenant, subject=f"key:{n}")), flag)}
    flags.close()
    return found


def test_the_first_set_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    assert "created" in set_flag(path, "rerank", "off")
    assert not is_on(path, "rerank", "a")
    assert is_on(path, "vector", "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["flags.json"]


def test_tenants_are_exceptions_until_everybody_is_set(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    set_flag(path, "rerank", "off", "a", "b")
    set_flag(path, "rerank", "on", "b")
    assert [is_on(path, "rerank", tenant) for tenant in ("a", "b", "c")] == [False, True, True]
    assert set_flag(path, "rerank", "off") == "rerank: off (before: b: on; a: off; else on)\n"
    assert [is_on(path, "rerank", tenant) for tenant in ("a", "b", "c")] == [False, False, False]


def test_a_percentage_grows_and_keeps_the_exceptions_of_tenants(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    set_flag(path, "early_exit", "on", percent=20)
    few = share(path, "early_exit", "a")
    assert 15 < len(few) < 70
    set_flag(path, "early_exit", "on", percent=60)
    assert few < share(path, "early_exit", "a")
    set_flag(path, "early_exit", "off", "a")
    set_flag(path, "early_exit", "off", "b", percent=90)
    assert share(path, "early_exit", "a") == set()
    assert 0 < len(share(path, "early_exit", "b")) < 60
    assert 80 < len(share(path, "early_exit", "c")) < 160


def test_what_else_is_in_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    data = json.loads(shipped().dump())
    data["flags"]["vector"]["rules"] = BY_HAND
    path.write_text(json.dumps(data))
    path.chmod(0o640)
    set_flag(path, "rerank", "on", "a")
    after = json.loads(path.read_bytes())
    assert after["flags"]["rerank"].pop("rules") == [{"tenants": ["a"], "value": True}]
    assert after == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert is_on(path, "rerank", "a")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "flags.json"
    link = tmp_path / "link.json"
    link.symlink_to(real)
    set_flag(link, "rerank", "off")
    assert link.is_symlink()
    assert not is_on(real, "rerank", "a")


def test_rules_by_hand_stay_behind_those_for_tenants(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    data = json.loads(shipped().dump())
    data["flags"]["rerank"]["rules"] = BY_HAND
    path.write_text(json.dumps(data))
    set_flag(path, "rerank", "off", "a")
    assert [is_on(path, "rerank", tenant) for tenant in ("a", "x", "b")] == [False, False, True]
    set_flag(path, "rerank", "on", "x")
    assert [is_on(path, "rerank", tenant) for tenant in ("a", "x", "b")] == [False, True, True]
    assert json.loads(path.read_bytes())["flags"]["rerank"]["rules"][2:] == BY_HAND[1:]


def test_missing_flags_are_added_as_they_ship(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    data = json.loads(shipped().dump())
    del data["flags"]["early_exit"], data["flags"]["near_cache"]
    path.write_text(json.dumps(data))
    set_flag(path, "rerank", "off")
    assert (is_on(path, "early_exit", "a"), is_on(path, "near_cache", "a")) == (False, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"", "empty"),
        (b'{"flags": {"rerank": 7}}', "flags.rerank Input should be"),
        (b'{"flags": {"rerank": {}}}', "flags.rerank.default Field required"),
        (shipped().dump().replace(b'"vector": {', b'"vectro": {', 1), "flags.vectro is not a flag"),
    ],
)
def test_a_broken_file_is_left_as_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "flags.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        set_flag(path, "rerank", "off")
    assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_what_can_not_be_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    with pytest.raises(InvalidInput, match="'rernak' is not a flag; known flags: lexical"):
        set_flag(path, "rernak", "off")
    with pytest.raises(InvalidInput, match="is not a tenant name"):
        set_flag(path, "rerank", "off", "a b")
    with pytest.raises(InvalidInput, match="No such file"):
        set_flag(tmp_path / "none" / "flags.json", "rerank", "off")
    assert not path.exists()
    quiet = Console(quiet=True)
    with pytest.raises(ConfigurationError, match="BRAID_FLAGS_FILE"):
        command.switch(load_settings(), "rerank", False, console=quiet)


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    set_flag(path, "rerank", "on")
    names = [f"t{number}" for number in range(12)]
    threads = [threading.Thread(target=set_flag, args=(path, "rerank", "off", name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rules = json.loads(path.read_bytes())["flags"]["rerank"]["rules"]
    assert rules == [{"tenants": sorted(names), "value": False}]


percents = st.integers(0, 100)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), percents), max_size=6))
def test_what_was_set_last_counts(steps: list[tuple[str, int]]) -> None:
    flag, wanted = Flag(default=True), dict.fromkeys("abcd", 100)
    for tenant, share in steps:
        flag = with_share(flag, [tenant] if tenant else [], share)
        wanted |= dict.fromkeys(tenant or wanted, share)
    for tenant, share in wanted.items():
        for caller in (f"{tenant}/key:{number}" for number in range(20)):
            assert flag.decide("rerank", tenant, caller)[0] == (bucket("rerank", caller) < share)


def test_the_file_of_braid_up_is_made_once_and_completed(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    assert path == tmp_path.resolve() / "flags.json"
    set_flag(path, "rerank", "off")
    data = json.loads(path.read_bytes())
    del data["flags"]["near_cache"]
    path.write_text(json.dumps(data))
    assert own_file(tmp_path) == path
    assert (is_on(path, "rerank", "a"), is_on(path, "near_cache", "a")) == (False, True)


@pytest.mark.parametrize("content", ["{", shipped().dump().decode().replace("true", "1")])
def test_a_broken_file_stops_braid_up_with_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "flags.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"flags\.json: "):
        own_file(tmp_path)


def test_a_flagd_file_that_nobody_changed_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flags.flagd.json").write_text("{}")
    monkeypatch.setattr(flag_editor, "_OLDER_AS_SHIPPED", hashlib.sha256(b"{}").hexdigest())
    assert own_file(tmp_path) == tmp_path / "flags.json"
    assert [item.name for item in tmp_path.iterdir() if item.suffix == ".json"] == ["flags.json"]


def test_a_flagd_file_of_an_older_braid_up_is_named(tmp_path: Path) -> None:
    (tmp_path / "flags.flagd.json").write_text("{}")
    with pytest.raises(
        InvalidInput, match=r"flags\.flagd\.json: .*delete it, and repeat its changes with `braid flags set`"
    ):
        own_file(tmp_path)
    (tmp_path / "flags.json").write_bytes(shipped().dump())
    assert own_file(tmp_path).name == "flags.json"


def test_the_flags_of_a_running_braid_up_are_found(tmp_path: Path) -> None:
    here = state.LocalState("http://127.0.0.1:1", "http://127.0.0.1:2", "redis://127.0.0.1:3/0", os.getpid(), "/x.json")
    state.write(tmp_path, here)
    assert state.with_running(load_settings(data_dir=tmp_path)).flags.file == Path("/x.json")
    own = load_settings(data_dir=tmp_path, flags_file=tmp_path / "own.json")
    assert state.with_running(own).flags.file == tmp_path / "own.json"


def test_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    runner = CliRunner(env={"BRAID_FLAGS_FILE": str(path), "BRAID_DATA_DIR": str(tmp_path)})
    assert runner.invoke(cli, ["flags", "set", "rerank", "off", "--tenant", "a", "--percent", "100"]).exit_code == 0
    shown = runner.invoke(cli, ["flags", "list", "--tenant", "a"])
    assert shown.exit_code == 0
    assert str(path) in shown.stdout.replace("\n", "")
    listed = json.loads(runner.invoke(cli, ["flags", "list", "--tenant", "a", "--json"]).stdout)
    assert [row["flag"] for row in listed["flags"]] == list(FLAGS)
    assert listed["flags"][2] == {
        "flag": "rerank",
        "variant": "off",
        "on": False,
        "rule": "a: off; else on",
        "from": f"the file {path}",
    }
    assert runner.invoke(cli, ["flags", "validate", str(path)]).exit_code == 0
    path.write_text('{"flags": {"rernak": {}}}')
    refused = runner.invoke(cli, ["flags", "validate", str(path)])
    assert refused.exit_code == 1
    assert "rernak" in refused.stdout
    assert "flags.rerank is missing" in refused.stdout
