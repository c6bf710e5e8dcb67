"""The quick part of the check: `make check` runs it. `python -m tests.protocol` explores more configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.ingest import protocol
from tests.protocol.configurations import NOTICED_BY, Configuration, configuration, quick_configurations
from tests.protocol.explorer import TooManyStates, explore
from tests.protocol.state import Operation
from tests.protocol.steps import SAFEGUARDS, STEPS, Protocol
from tests.protocol.today import Today, configurations_of_today

PAGE = Path(__file__).parents[2] / "docs" / "write-protocol.md"


@pytest.mark.parametrize("case", list(quick_configurations()), ids=lambda case: case.name)
def test_no_interleaving_violates_the_specification(case: Configuration) -> None:
    exploration = explore(Protocol(case))
    assert not exploration.counterexamples, "\n".join(
        found.describe() for found in exploration.counterexamples.values()
    )
    assert exploration.states > len(case.operations), "nothing was explored"


@pytest.mark.parametrize("safeguard", list(SAFEGUARDS))
def test_each_safeguard_is_missed_when_it_is_removed(safeguard: str) -> None:
    kind, case, variant = NOTICED_BY[safeguard]
    small = configuration(case, variant)
    assert not explore(Protocol(small)).counterexamples
    assert explore(Protocol(small, frozenset({safeguard})), limit=10_000).counterexamples.keys() == {kind}


def test_the_protocol_before_heads_loses_documents_and_restores_rights() -> None:
    found = [explore(Today(case), go_on=True).counterexamples for case in configurations_of_today()]
    assert "LOST" in found[0]
    assert found[1].keys() >= {"LOST", "RESTORED"}


def test_a_counterexample_names_processes_steps_and_outcomes() -> None:
    kind, case, variant = NOTICED_BY["fence"]
    found = explore(Protocol(configuration(case, variant), frozenset({"fence"}))).counterexamples[kind]
    assert {label.step for label in found.trace} <= {*STEPS, ""}
    assert found.describe().splitlines()[:3] == [
        "RESTORED: a put that names no acl turned hr into public",
        "  1. A put intent: head := (-1, -1) for public, pending [(0, 2)], garbage []",
        "  2. A put stage: index (0, 2)#0 for public, version 2",
    ]


def test_twins_that_begin_in_one_order_show_what_both_orders_show() -> None:
    case = configuration("public put put", "1")
    reduced, whole = Protocol(case), Protocol(case)
    assert reduced.twins == {1}
    whole.twins = frozenset()
    assert explore(reduced).states < explore(whole).states
    for name in ("fence", "refresh-before-answer"):
        reduced, whole = Protocol(case, frozenset({name})), Protocol(case, frozenset({name}))
        whole.twins = frozenset()
        traces = [[len(found.trace) for found in explore(each).counterexamples.values()] for each in (reduced, whole)]
        assert traces[0] == traces[1] != []


def test_an_exploration_without_end_is_stopped() -> None:
    endless = Protocol(configuration("public put", "1c"), frozenset({"fence-before-erase"}))
    with pytest.raises(TooManyStates, match=r"more than 1,000 states"):
        explore(endless, limit=1_000)


def test_an_unknown_safeguard_is_named() -> None:
    case = Configuration((Operation("put"),), "")
    with pytest.raises(ValueError, match=r"no such safeguard: luck; there are cas, .*head-check"):
        Protocol(case, frozenset({"luck"}))


def test_the_page_names_each_step_safeguard_and_violation() -> None:
    page = PAGE.read_text(encoding="utf-8")
    kinds = {kind for kind, _, _ in NOTICED_BY.values()}
    missing = [name for name in (*STEPS, *SAFEGUARDS) if f"`{name}`" not in page]
    missing += [kind for kind in kinds if kind not in page]
    assert not missing


def test_the_model_and_the_code_name_the_same_steps() -> None:
    assert protocol.STEPS == STEPS
