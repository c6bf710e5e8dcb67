"""Nobody learns of what it may not see, by any way: random people, documents and requests against the real service.

`BRAID_TEST_LEAK_CASES` requests (150), from `BRAID_TEST_LEAK_SEED` (0), the same each time; ``benchmarks/leaks.py``
asks 10,000. A failure is made small by hypothesis, and told with the steps that lead to it.
"""

from __future__ import annotations

import pytest

from tests.live.leak.run import LeakRun, run_machine
from tests.live.leak.world import World

pytestmark = pytest.mark.live


@pytest.mark.timeout(900)
def test_nobody_learns_of_what_it_may_not_see(world: World) -> None:
    run = LeakRun()
    run_machine(world, run)
    tally = world.tally
    assert tally.total >= run.leak_cases
    # a test in which nothing is ever found, changed or cached would find no leak
    assert tally.shown > tally.total / 10
    assert sum(tally.changes.values()) > tally.total / 50
    assert tally.cache["exact"] > 0
