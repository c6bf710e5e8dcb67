"""Results of an evaluation: the set, and each way of searching it."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.evaluation.dataset import JudgedSet
from app.evaluation.measures import Measurement


@dataclass(frozen=True, slots=True)
class WayResult:
    """One way of searching, over all queries of the set.

    `group` is ``single leg``, ``linear``, ``rrf``, ``learned``, ``rerank`` or a custom one; `alpha` is the dense share
    (0..1) if all queries have the same; `seconds` is the time of the whole run, `ms_p50` and `ms_p95` are times of
    single queries; `failed` counts queries that failed or were degraded.
    """

    name: str
    group: str
    alpha: float | None
    measured: Measurement
    seconds: float = 0.0
    ms_p50: float | None = None
    ms_p95: float | None = None
    failed: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All ways over one set; `baseline` is the name of the way that the others are compared with.

    `context` describes the measured system (version, model, candidates, shards, language, date), in the order given.
    """

    dataset: JudgedSet
    ways: tuple[WayResult, ...]
    baseline: str
    context: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [way.name for way in self.ways]
        if len(set(names)) != len(names):
            raise ValueError(f"two ways have the same name: {names}")
        if self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is not one of the ways: {names}")
        for way in self.ways:
            if any(values.keys() != self.dataset.queries.keys() for values in way.measured.per_query.values()):
                raise ValueError(f"the way {way.name!r} was not measured over the queries of the set")
