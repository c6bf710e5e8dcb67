"""Does anybody learn of what it may not see? `python benchmarks/leaks.py`. Method: leaks.md."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack

import harness

sys.path.insert(0, str(harness.ROOT))

from tests.live.leak.run import LeakRun, run_machine
from tests.live.leak.world import Tally, open_world


def figures(tally: Tally, run: LeakRun, seconds: float, leak: str | None) -> dict[str, object]:
    """What goes into the file of results."""
    return {
        "cases": tally.total,
        "leaks": 0 if leak is None else 1,
        "first_leak": leak,
        "seed": run.leak_seed,
        "seconds": round(seconds),
        "by_endpoint": dict(tally.cases.most_common()),
        "by_status": {str(status): count for status, count in sorted(tally.statuses.items())},
        "answers_by_cache": dict(tally.cache.most_common()),
        "hits_after_changes": tally.hits_after_changes,
        "passages_shown": tally.shown,
        "changes": dict(tally.changes.most_common()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--opensearch-url", help="a node to use in place of one of its own")
    parser.add_argument("--redis-url")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # broken off, it leaves what it has so far
    run = LeakRun(leak_cases=asked.cases, leak_seed=asked.seed)
    with ExitStack() as stack:
        urls = asked.opensearch_url, asked.redis_url
        if not all(urls):
            up = stack.enter_context(harness.braid_up())
            urls = up["opensearch_url"], up["redis_url"]
        world = stack.enter_context(open_world(*urls))
        started, leak = time.monotonic(), None
        try:
            run_machine(world, run, progress=lambda tally: print(f"{tally.total} cases", file=sys.stderr))
        except KeyboardInterrupt:
            print("broken off", file=sys.stderr)
        except AssertionError as error:
            leak = f"{error}\n" + "\n".join(getattr(error, "__notes__", []))
        harness.write_result(
            "leaks", "benchmarks/leaks.md", figures(world.tally, run, time.monotonic() - started, leak)
        )
    return 0 if leak is None else 1


if __name__ == "__main__":
    sys.exit(main())
