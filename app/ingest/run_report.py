"""Report of an ingest run: counts, and the working time of each stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from app.ingest.sources.files import Problem


@dataclass(slots=True)
class Stage:
    """Total working time of a stage's `workers`, without waiting for other stages."""

    workers: int = 1
    busy_s: float = 0.0


@dataclass(slots=True)
class IngestReport:
    """Counts of documents, and of the passages written for new or changed ones.

    `failed` has an entry for each file, record or folder that was not ingested; if there is any, the exit code is 1.
    `sync_skipped` says why nothing was removed although requested. `languages` counts the passages of each language, as
    stated by their source or detected.
    """

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    passages: int = 0
    seconds: float = 0.0
    failed: list[Problem] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    sync_skipped: str | None = None
    languages: Counter[str] = field(default_factory=Counter)
    stages: dict[str, Stage] = field(
        default_factory=lambda: {name: Stage() for name in ("parse", "chunk", "encode", "bulk")}
    )

    @property
    def passages_per_second(self) -> float:
        """Passages per second, end to end; 0 if nothing was written."""
        return self.passages / self.seconds if self.seconds else 0.0

    @property
    def bound(self) -> str | None:
        """The busiest stage; None if nothing was written."""
        if not self.passages or not self.seconds:
            return None
        return max(self.stages, key=lambda name: self.stages[name].busy_s / self.stages[name].workers)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "new": self.new,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "deleted": self.deleted,
            "passages": self.passages,
            "seconds": round(self.seconds, 3),
            "passages_per_second": round(self.passages_per_second, 1),
            "bound": self.bound,
            "languages": dict(self.languages.most_common()),
            "stages": {
                name: {"workers": stage.workers, "busy_seconds": round(stage.busy_s, 3)}
                for name, stage in self.stages.items()
            },
            "failed": [
                {"place": problem.place, "reason": problem.reason, "detail": problem.detail} for problem in self.failed
            ],
            "warnings": [{"place": place, "detail": detail} for place, detail in self.warnings],
            "sync_skipped": self.sync_skipped,
        }
