from __future__ import annotations

import contextlib
import copy
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError, InvalidInput
from app.features import ALL_ON, Features
from app.gateway.flag_file import FLAGS, bucket, parse, read, read_usable, shipped
from app.gateway.flags import context_of
from tests.unit.gateway.flag_files import GOOD


def with_flag(**changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    data["flags"]["rerank"] |= changes
    return data


def problems(data: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(data if isinstance(data, bytes) else json.dumps(data).encode())
    return caught.value.detail


def value(data: dict[str, Any], tenant: str, subject: str | None = None) -> bool:
    flag = parse(json.dumps(data).encode()).flags["rerank"]
    return flag.decide("rerank", tenant, context_of(tenant, subject).targeting_key or "")[0]


def test_what_ships_is_what_the_code_has() -> None:
    assert {field.name for field in fields(Features)} == {*FLAGS, "variants"}
    assert {name: flag.default for name, flag in shipped().flags.items()} == {n: getattr(ALL_ON, n) for n in FLAGS}
    assert parse(shipped().dump()) == shipped()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xff\xfe", "not JSON"),
        (shipped().dump()[:-200], "not JSON"),
        (b"[]", '"flags"'),
        (b"null", '"flags"'),
        (b"{}", '"flags"'),
        (b'{"flags": []}', '"flags"'),
        (b'{"flags": {}}', "flags.lexical is missing"),
        (b'{"flags": {}, "flags": {}}', "'flags' occurs twice"),
        (b'{"flags": {"lexical": NaN}}', "NaN"),
        (b'{"flags": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"flags": {"lexical": ' + b"9" * 5000 + b"}}", "not JSON"),
    ],
)
def test_what_is_no_file_of_flags_is_refused(content: bytes, said: str) -> None:
    assert said in problems(content)


@pytest.mark.parametrize("name", FLAGS)
def test_each_flag_must_be_there(name: str) -> None:
    data = copy.deepcopy(GOOD)
    del data["flags"][name]
    assert problems(data).startswith(f"flags.{name} is missing")


def test_a_flag_that_is_not_ours_is_refused() -> None:
    data = copy.deepcopy(GOOD)
    data["flags"]["rernak"] = {"default": True}
    assert "flags.rernak is not a flag" in problems(data)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"default": "on"}, "default Input should be a valid boolean, not 'on'"),
        ({"default": 1}, "default Input should be a valid boolean"),
        ({"default": None}, "default Input should be a valid boolean"),
        ({"defualt": True}, "defualt Extra inputs"),
        ({"rules": {}}, "rules Input should be a valid list"),
        ({"rules": ["on"]}, "rules.0 "),
        ({"rules": [{"value": False}]}, 'names neither "tenants" nor "percent"'),
        ({"rules": [{"tenants": ["a"]}]}, "rules.0.value Field required"),
        ({"rules": [{"tenants": ["a"], "value": "off"}]}, "rules.0.value Input should be a valid boolean"),
        ({"rules": [{"tenants": [], "value": False}]}, "rules.0.tenants List should have at least 1 item"),
        ({"rules": [{"tenants": "a", "value": False}]}, "rules.0.tenants Input should be a valid list"),
        ({"rules": [{"tenants": ["a b"], "value": False}]}, "rules.0.tenants.0 String should match pattern"),
        ({"rules": [{"tenant": ["a"], "value": False}]}, "rules.0.tenant Extra inputs"),
        ({"rules": [{"percent": 101, "value": True}]}, "less than or equal to 100, not '101'"),
        ({"rules": [{"percent": -1, "value": True}]}, "greater than or equal to 0, not '-1'"),
        ({"rules": [{"percent": "10", "value": True}]}, "rules.0.percent Input should be a valid number"),
        ({"rules": [{"percent": True, "value": True}]}, "rules.0.percent Input should be a valid number"),
    ],
)
def test_a_flag_that_is_wrong_is_refused(changes: dict[str, Any], said: str) -> None:
    found = problems(with_flag(**changes))
    assert found.startswith("flags.rerank.")
    assert said in found
    assert '{"default": true, "rules": [' in found


def test_everything_that_is_wrong_is_in_the_problems() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(b'{"flags": {"lexical": {"default": "ON"}, "x": {"default": true}}}')
    assert {item.loc[:2] for item in caught.value.problems} == {("flags", name) for name in (*FLAGS, "x")}
    assert "and 6 more" in caught.value.detail


@pytest.mark.parametrize("key", ["state", "variants", "defaultVariant", "targeting"])
def test_a_flagd_file_is_refused_with_an_example(key: str) -> None:
    found = problems({"flags": {"rerank": {key: {}}}})
    assert "it is a flagd file, which Braid no longer reads" in found
    assert '"rerank": {"default": true, "rules": [' in found


def test_the_first_rule_that_matches_decides() -> None:
    off_for_a, on_for_both = {"tenants": ["a"], "value": False}, {"tenants": ["a", "b"], "value": True}
    data = with_flag(rules=[off_for_a, on_for_both, {"percent": 100, "value": False}])
    assert [value(data, tenant) for tenant in ("a", "b", "c")] == [False, True, False]
    assert value(with_flag(rules=[{"percent": 0, "value": False}]), "a") is True
    some = with_flag(default=False, rules=[{"tenants": ["a"], "percent": 50, "value": True}])
    assert 60 < sum(value(some, "a", f"key:{number}") for number in range(200)) < 140
    assert not any(value(some, "b", f"key:{number}") for number in range(200))


def test_a_part_of_the_callers_stays_the_same_and_only_grows() -> None:
    def chosen(percent: float) -> set[str]:
        data = with_flag(default=False, rules=[{"percent": percent, "value": True}])
        return {caller for caller in (f"key:{number}" for number in range(400)) if value(data, "a", caller)}

    few, more = chosen(20), chosen(40)
    assert few == chosen(20)
    assert few < more
    assert 40 < len(few) < 120


def test_the_place_of_a_caller_never_changes_and_differs_between_flags() -> None:
    """A new value here would give flags to other callers after an update."""
    assert bucket("rerank", "acme/key:7f3a") == pytest.approx(72.270726)
    assert bucket("rerank", "acme/key:7f3a") != bucket("vector", "acme/key:7f3a")


def test_callers_of_two_tenants_are_never_one_key() -> None:
    assert context_of("a", "key:b").targeting_key != context_of("ab", "key:").targeting_key
    assert context_of("a", None).targeting_key == "a/"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.text() | st.sampled_from(["default", "rules", "tenants", "percent", "value", "state"]), x
)))  # fmt: skip
def test_whatever_stands_where_a_flag_should_is_taken_or_refused(anything: Any) -> None:
    for data in (
        {**GOOD, "flags": {**GOOD["flags"], "rerank": anything}},
        with_flag(rules=anything),
        with_flag(rules=[anything]),
    ):
        # nothing else may come out of it
        with contextlib.suppress(InvalidInput):
            parse(json.dumps(data).encode())


def test_reading_says_why_it_can_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read(tmp_path / "none.json")
    with pytest.raises(InvalidInput, match=r"not a file|Is a directory"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="not a file"):
        read(tmp_path / "pipe")
    (tmp_path / "big.json").write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(InvalidInput, match="larger than"):
        read(tmp_path / "big.json")
    with pytest.raises(ConfigurationError, match=r"BRAID_FLAGS_FILE=.*big\.json"):
        read_usable(tmp_path / "big.json")
