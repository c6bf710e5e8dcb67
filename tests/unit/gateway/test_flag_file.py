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
from openfeature.exception import GeneralError

from app.errors import ConfigurationError, InvalidInput
from app.features import ALL_ON, Features
from app.gateway.flag_file import FLAGS, SHIPPED, context_of, parse, read, read_usable, resolve, shipped

GOOD: dict[str, Any] = json.loads(SHIPPED.read_bytes())
TENANT_IS_A = {"in": [{"var": "tenant"}, ["a"]]}


def with_flag(**changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    data["flags"]["rerank"] |= changes
    return data


def problems(data: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(data if isinstance(data, bytes) else json.dumps(data).encode())
    return caught.value.detail


def value(data: dict[str, Any], tenant: str, subject: str | None = None) -> bool:
    flags = parse(json.dumps(data).encode())
    return resolve(flags.evaluator(), "rerank", flags.defaults["rerank"], context_of(tenant, subject)).value


def test_what_ships_is_what_the_code_has() -> None:
    assert {field.name for field in fields(Features)} == {*FLAGS, "variants"}
    assert dict(shipped().defaults) == {name: getattr(ALL_ON, name) for name in FLAGS}
    assert not shipped().targeted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xff\xfe", "not JSON"),
        (SHIPPED.read_bytes()[:-200], "not JSON"),
        (b"[]", '"flags"'),
        (b"null", '"flags"'),
        (b"{}", '"flags"'),
        (b'{"flags": []}', '"flags"'),
        (b'{"flags": {}}', "flags.lexical is missing"),
        (b'{"flags": {}, "flags": {}}', "'flags' is there twice"),
        (b'{"flags": {"lexical": NaN}}', "NaN"),
        (b'{"flags": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"flags": {"lexical": ' + b"9" * 5000 + b"}}", "not JSON"),
    ],
)
def test_what_is_no_flagd_file_is_refused(content: bytes, said: str) -> None:
    assert said in problems(content)


@pytest.mark.parametrize("name", FLAGS)
def test_each_flag_must_be_there(name: str) -> None:
    data = copy.deepcopy(GOOD)
    del data["flags"][name]
    assert problems(data).startswith(f"flags.{name} is missing")


def test_a_flag_that_is_not_ours_is_refused_in_a_file_and_left_alone_on_a_server() -> None:
    data = copy.deepcopy(GOOD)
    data["flags"]["rernak"] = {"state": "whatever"}
    assert "flags.rernak is no flag" in problems(data)
    assert "rernak" not in parse(json.dumps(data).encode(), shared=True).definitions


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "enabled"}, "the state 'enabled'"),
        ({"state": None}, "the state"),
        ({"variants": {}}, "must have variants"),
        ({"variants": [True]}, "must have variants"),
        ({"variants": {"on": "yes", "off": False}}, "'on' that is neither true nor false"),
        ({"variants": {"on": 1, "off": 0}}, "neither true nor false"),
        ({"variants": {"on": True, "off": False, "\ud800": True}}, "names are 1 to 64"),
        ({"defaultVariant": "maybe"}, "defaultVariant 'maybe'"),
        ({"defaultVariant": True}, "defaultVariant 'True'"),
        ({"defaultVariant": None}, "defaultVariant 'None'"),
        ({"targetting": {}}, "has 'targetting'"),
        ({"targeting": "on"}, "targeting that is no object"),
        ({"targeting": {"iff": [TENANT_IS_A, "on", "off"]}}, "'iff', which is no operator"),
        ({"targeting": {"if": [{"inn": [{"var": "tenant"}, ["a"]]}, "on", None]}}, "'inn', which is no operator"),
        ({"targeting": {"if": [TENANT_IS_A, "on", None], "in": []}}, "several keys"),
        ({"targeting": {"if": [TENANT_IS_A, "On", None]}}, "ends in 'On'"),
        ({"targeting": {"if": [TENANT_IS_A, None, {"if": [TENANT_IS_A, "on", 1]}]}}, "ends in '1'"),
        ({"targeting": {"fractional": [["on", 10], ["of", 90]]}}, "ends in 'of'"),
        ({"targeting": {"fractional": [["on", 10.5], ["off", 89.5]]}}, "whole numbers"),
        ({"targeting": {"fractional": [["on", -1], ["off", 101]]}}, "whole numbers"),
        ({"targeting": {"fractional": [["on", True], ["off", 1]]}}, "whole numbers"),
        ({"targeting": {"fractional": [["on", 0], ["off", 0]]}}, "whole numbers"),
        ({"targeting": {"fractional": []}}, "whole numbers"),
        ({"targeting": TENANT_IS_A}, "ends in 'true'"),
        ({"targeting": {"$ref": "nobody"}}, "'nobody', which is not in $evaluators"),
        ({"targeting": {"var": "tenant"}}, "can't be evaluated"),
        ({"targeting": {"/": [1, 0]}}, "can't be evaluated"),
        ({"metadata": {"owner": None}}, "metadata"),
    ],
)
def test_a_flag_that_is_wrong_is_refused(changes: dict[str, Any], said: str) -> None:
    found = problems(with_flag(**changes))
    assert found.startswith("flags.rerank ")
    assert said in found


def test_everything_that_is_wrong_is_in_the_problems() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(b'{"flags": {"lexical": {"state": "ON"}, "x": {}}}')
    assert {item.loc for item in caught.value.problems} == {("flags", name) for name in (*FLAGS, "x")}
    assert "and 7 more" in caught.value.detail


def test_targeting_decides_by_tenant_with_references() -> None:
    data = with_flag(targeting={"if": [{"$ref": "is_a"}, "off", None]})
    data["$evaluators"] = {"is_a": {"$ref": "really"}, "really": TENANT_IS_A}
    assert (value(data, "a"), value(data, "b")) == (False, True)


def test_references_that_go_round_are_refused() -> None:
    data = with_flag(targeting={"if": [{"$ref": "x"}, "off", None]}) | {"$evaluators": {"x": {"!": {"$ref": "x"}}}}
    assert "refers to itself" in problems(data)


def test_a_disabled_flag_is_as_it_ships() -> None:
    data = with_flag(state="DISABLED", defaultVariant="off")
    assert value(data, "a") is True


def test_a_part_of_the_callers_stays_the_same_and_only_grows() -> None:
    def chosen(percent: int) -> set[str]:
        rule = {"fractional": [["on", percent], ["off", 100 - percent]]}
        flags = parse(json.dumps(with_flag(targeting=rule)).encode())
        core = flags.evaluator()
        callers = [f"key:{number}" for number in range(400)]
        return {caller for caller in callers if resolve(core, "rerank", True, context_of("a", caller)).value}

    few, more = chosen(20), chosen(40)
    assert few == chosen(20)
    assert few < more
    assert 40 < len(few) < 120


def test_callers_of_two_tenants_are_never_one_key() -> None:
    assert context_of("a", "key:b").targeting_key != context_of("ab", "key:").targeting_key
    assert context_of("a", None).targeting_key == "a/"


def test_targeting_that_fails_for_one_caller_only_is_an_error_of_flagd() -> None:
    bad_for_z = {"if": [{"==": [{"var": "tenant"}, "z"]}, {"%": [1, 0]}, None]}
    flags = parse(json.dumps(with_flag(targeting=bad_for_z)).encode())
    assert resolve(flags.evaluator(), "rerank", True, context_of("a", None)).value is True
    with pytest.raises(GeneralError):
        resolve(flags.evaluator(), "rerank", True, context_of("z", None))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.text() | st.sampled_from(["if", "in", "fractional", "var", "$ref", "state", "variants", "targeting"]), x
)))  # fmt: skip
def test_whatever_stands_where_a_flag_should_is_taken_or_refused(anything: Any) -> None:
    for data in (
        {**GOOD, "flags": {**GOOD["flags"], "rerank": anything}},
        with_flag(targeting=anything),
        {**GOOD, "$evaluators": anything},
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
