"""Is anything lost, doubled or undone where several write a document? `python benchmarks/writers.py`: writers.md."""

from __future__ import annotations

import argparse
import collections
import json
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import harness

sys.path.insert(0, str(harness.ROOT))

from app.config import load_settings
from app.dev.node import start_cluster
from tests.writers.arena import Arena
from tests.writers.mutants import SAFEGUARDS
from tests.writers.oracle import Violation
from tests.writers.plans import plans, traces
from tests.writers.rounds import Outcome, Plan, play
from tests.writers.users import play_users


class Tally:
    """What was played, and what was found. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.rounds: collections.Counter[str] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()
        self.pairs: set[tuple[str, ...]] = set()
        self.faults: collections.Counter[str] = collections.Counter()
        self.looks = 0
        self.violations: list[str] = []

    def add(self, plan: Plan, outcome: Outcome) -> None:
        """One round."""
        with self._lock:
            self.rounds[plan.kind] += 1
            self.pairs.add(tuple(op.kind for op in plan.ops[:2]))
            self.looks += outcome.looks
            self.faults.update(fault.how for _, fault in plan.faults)
            for op, answer in zip(plan.ops, outcome.answers, strict=True):
                self.answers[f"{op.kind}: {answer}"] += 1
            if sum(self.rounds.values()) % 50 == 0:
                print(sum(self.rounds.values()), "rounds", file=sys.stderr, flush=True)

    def fail(self, plan: Plan, error: Exception) -> None:
        """One round that found something, or could not be played."""
        told = "\n".join((f"{type(error).__name__}: {error}", str(plan), *getattr(error, "__notes__", ())))
        print(told, file=sys.stderr, flush=True)
        with self._lock:
            self.rounds[plan.kind] += 1
            self.violations.append(told)


def proof(url: str, todo: list[Plan], workers: int) -> dict[str, Any]:
    """All rounds, some at the same time, each document in one of them."""
    tally, begun, waiting = Tally(), time.monotonic(), iter(todo)
    lock = threading.Lock()

    def work() -> None:
        with Arena(url) as arena:
            while True:
                with lock:
                    plan = next(waiting, None)
                if plan is None:
                    return
                try:
                    tally.add(plan, play(arena, plan))
                except Exception as error:  # noqa: BLE001 - it is told, counted, and ends in the exit code
                    tally.fail(plan, error)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "rounds": sum(tally.rounds.values()),
        "violations": len(tally.violations),
        "first_violations": tally.violations[:3],
        "by_kind": dict(tally.rounds.most_common()),
        "pairs_of_kinds": len(tally.pairs),
        "states_checked": tally.looks,
        "killed": sum(count for name, count in tally.answers.items() if name.endswith("killed")),
        "requests_held_back": dict(tally.faults.most_common()),
        "answers": dict(tally.answers.most_common()),
        "seconds": round(time.monotonic() - begun),
    }


def without(url: str, name: str, seed: int, most: int) -> dict[str, Any]:
    """After how many rounds the lack of a safeguard is noticed, and as what."""
    number = 0
    with Arena(url, without=name) as arena:
        for number, plan in enumerate([*traces(name), *plans(most, seed)], 1):
            try:
                play(arena, plan)
            except Violation as error:
                return {"removed": SAFEGUARDS[name], "noticed_in_round": number, "as": str(error), "plan": str(plan)}
    return {"removed": SAFEGUARDS[name], "noticed_in_round": None, "rounds": number}


def kept() -> dict[str, Any]:
    """The figures of the last run, without what `write_result` adds."""
    path = harness.RESULTS / "writers.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: found[name] for name in ("proof", "without", "as_users_run_it") if name in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="0: keep the figures of the last run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="rounds at the same time")
    parser.add_argument("--users", type=int, default=20, help="rounds through `braid serve` and `braid ingest`")
    parser.add_argument("--without", choices=[*SAFEGUARDS, "each", "none"], default="each")
    parser.add_argument("--opensearch-url", help="a node to use in place of one of its own")
    asked = parser.parse_args()
    with ExitStack() as stack:
        url = asked.opensearch_url
        if url is None:
            folder = stack.enter_context(harness.open_folder())
            url = stack.enter_context(start_cluster(load_settings().machine, data_dir=folder)).url
        figures: dict[str, Any] = {"seed": asked.seed, **({} if asked.rounds else kept())}
        if asked.rounds:
            figures["proof"] = proof(url, plans(asked.rounds, asked.seed), asked.workers)
        names = {"each": list(SAFEGUARDS), "none": []}.get(asked.without, [asked.without])
        figures.setdefault("without", {})
        figures["without"] |= {name: without(url, name, asked.seed, 60) for name in names}
        if asked.users:
            up = stack.enter_context(harness.braid_up(env={"BRAID_WORKERS": "2"}))
            urls = up["url"], up["opensearch_url"]
            figures["as_users_run_it"] = play_users(*urls, Path(up["data"]), asked.users, asked.seed)
    harness.write_result("writers", "benchmarks/writers.md", figures)
    missed = [name for name, found in figures["without"].items() if found["noticed_in_round"] is None]
    bad = figures.get("proof", {}).get("violations", 0) + figures.get("as_users_run_it", {}).get("violations", 0)
    return 1 if bad or missed else 0


if __name__ == "__main__":
    sys.exit(main())
