"""Command line of the checker. The exit code is 1 if the outcome is another than `docs/write-protocol.md` says."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.protocol.configurations import NOTICED_BY, all_configurations, configuration, forgetful_configurations
from tests.protocol.explorer import explore_all
from tests.protocol.steps import SAFEGUARDS, Protocol
from tests.protocol.today import Today, configurations_of_today


def main() -> int:
    """Explore what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.protocol", description=__doc__)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--mutants", action="store_true", help="remove each safeguard in turn; each must be missed")
    modes.add_argument("--without", choices=SAFEGUARDS, help="remove one safeguard")
    modes.add_argument("--today", action="store_true", help="explore the protocol that this one replaced")
    modes.add_argument("--forget", action="store_true", help="let OpenSearch forget tombstones (index.gc_deletes)")
    arguments = parser.parse_args()
    if arguments.mutants or arguments.without:
        names = [arguments.without] if arguments.without else list(SAFEGUARDS)
        return int(not all(_is_missed(name) for name in names))
    if arguments.today:
        return int(
            not _explore([Today(each) for each in configurations_of_today()], go_on=True) >= {"LOST", "RESTORED"}
        )
    if arguments.forget:
        others = _explore([Protocol(each) for each in forgetful_configurations()], go_on=True) - {"NATIVE"}
        print(f"fails besides NATIVE: {', '.join(sorted(others)) or 'nothing'}")
        return int(bool(others))
    return int(bool(_explore([Protocol(each) for each in all_configurations()])))


def _is_missed(name: str) -> bool:
    kind, case, variant = NOTICED_BY[name]
    print(f"--- without {name}: {SAFEGUARDS[name]}")
    return kind in _explore([Protocol(configuration(case, variant), frozenset({name}))])


def _explore(protocols: Sequence[Protocol], *, go_on: bool = False) -> set[str]:
    """Explore and print; returns the kinds of violations."""
    began, states, failed = time.perf_counter(), 0, 0
    kinds: set[str] = set()
    for exploration in explore_all(protocols, go_on=go_on):
        found = exploration.counterexamples
        states, failed, kinds = states + exploration.states, failed + bool(found), kinds | found.keys()
        verdict = "FAILS" if found else "ok"
        print(f"{exploration.states:9,} states {exploration.seconds:5.1f} s  {exploration.name}: {verdict}", flush=True)
        for counterexample in found.values():
            print(counterexample.describe())
    seconds = time.perf_counter() - began
    print(f"{states:,} states, {failed} of {len(protocols)} configurations fail, {seconds:.0f} s", flush=True)
    return kinds


if __name__ == "__main__":
    sys.exit(main())
