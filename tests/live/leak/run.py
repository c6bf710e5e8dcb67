"""Runs the machine until so many cases were asked."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from pydantic_settings import BaseSettings, SettingsConfigDict

from tests.live.leak.machine import LeakMachine
from tests.live.leak.world import Tally, World

_STEPS = 40
_EXAMPLES = 3
"""Of one call of hypothesis; it is called until there are cases enough."""


class LeakRun(BaseSettings):
    """BRAID_TEST_LEAK_CASES and BRAID_TEST_LEAK_SEED."""

    model_config = SettingsConfigDict(env_prefix="BRAID_")

    leak_cases: int = 150
    leak_seed: int = 0


def run_machine(world: World, run: LeakRun, progress: Callable[[Tally], None] = lambda tally: None) -> None:
    """Ask `run.leak_cases` requests at least. Raises AssertionError with the shortest way to a leak."""
    LeakMachine.world = world
    number = run.leak_seed * 1_000_000
    while world.tally.total < run.leak_cases:
        _run_examples(number)
        number += 1
        progress(world.tally)


def _run_examples(number: int) -> None:
    @seed(number)
    class Seeded(LeakMachine):
        """Hypothesis keeps the seed at the class."""

    run_state_machine_as_test(
        Seeded,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=_STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )
