"""Watch of what an upgrade of the cluster changes beneath unchanged templates: the nodes' versions, and scores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.errors import StoreError
from app.store.capabilities import Capabilities, probe
from app.store.client import Cluster
from app.store.score_check import TEXT, VECTOR, ScoreReport, check_scores
from app.store.similarity import SIMILARITY
from app.store.templates import LiveIndexes
from app.tuning import Bm25

_PAUSE_S = 30.0
"""Seconds between two looks at the same indexes."""
_EMPTY_PAUSE_S = 3.0
"""The same while an index has no passage to check, or a check failed."""
_PLAIN_BM25 = (3, 0, 0)
"""First version whose BM25 lacks the factor k1 + 1."""


@dataclass(slots=True)
class ClusterWatch:
    """Remembers the cluster's capabilities and scores; looks again when its indexes change, and now and then.

    Thread-safe; runs within the check of readiness, beside searches and not before them.
    """

    cluster: Cluster
    warnings: tuple[str, ...] = ()
    """Findings in words, with the remedy."""
    lexical_factor: float = 1.0
    """Of `StoreState`; 1 until the first look."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _capabilities: Capabilities | None = None
    _due: float = float("-inf")
    _looked_at: tuple[str, ...] = ()

    def capabilities(self) -> Capabilities:
        """Return the cluster's capabilities. Raises as `probe`."""
        with self._lock:
            if self._capabilities is None:
                self._capabilities = probe(self.cluster)
            return self._capabilities

    def look(self, live: LiveIndexes) -> None:
        """Look at the nodes and at the scores of the indexes behind the read alias, if it is time.

        A failure leaves the last findings in place: the check around it has just shown that the cluster answers.
        """
        indexes = tuple(sorted(str(item["settings"]["index.uuid"]) for item in live.indexes.values()))
        with self._lock:
            if time.monotonic() < self._due and indexes == self._looked_at:
                return
            try:
                self._capabilities = probe(self.cluster)
                reports = [report for name in live.indexes if (report := _report(self.cluster, name)) is not None]
            except StoreError:
                self._due = time.monotonic() + _EMPTY_PAUSE_S
                return
            factors = [report.lexical.factor for report in reports if report.lexical is not None]
            # that of the newest index; without a passage to measure, what the version is known for
            self.lexical_factor = factors[-1] if factors else presumed_factor(self._capabilities, live)
            self.warnings = tuple(warnings_of(self._capabilities, live, reports))
            self._looked_at = indexes
            self._due = time.monotonic() + (_PAUSE_S if len(reports) == len(live.indexes) else _EMPTY_PAUSE_S)


def _report(cluster: Cluster, index: str) -> ScoreReport | None:
    return check_scores(cluster, index, text_field=TEXT, vector_field=VECTOR, space_type="innerproduct")


def warnings_of(capabilities: Capabilities, live: LiveIndexes, reports: list[ScoreReport]) -> Iterator[str]:
    """Yield what an upgrade changed, with the remedy."""
    yield from capabilities.warnings
    for report in reports:
        if report.wrong:
            item = live.indexes[report.passage.index]
            made = created_version(str(item["settings"].get("index.version.created", "")))
            trained = "model_id" in item["mappings"]["properties"][VECTOR]
            remedy = (
                "fields with a trained model stay so on this version: choose another BRAID_VECTOR_VARIANT first, then "
                if trained
                else ""
            )
            yield (
                f"upgraded index: reindex. {report}; it was made by OpenSearch {made}, the cluster has "
                f"{capabilities.version_text}. Remedy: {remedy}`braid reindex` (docs/upgrading.md)"
            )
    scales = {report.passage.index: report.lexical.factor for report in reports if report.lexical is not None}
    if len(set(scales.values())) > 1:
        yield (
            "the indexes behind the alias have BM25 scores of different scales, so the lexical leg prefers some: "
            f"{', '.join(sorted(scales))}; give all the same similarity (docs/upgrading.md)"
        )


def presumed_factor(capabilities: Capabilities, live: LiveIndexes) -> float:
    """Return the factor that brings the newest index's lexical scores to the scale with k1 + 1, by its settings."""
    settings = list(live.indexes.values())[-1]["settings"] if live.indexes else {}
    if capabilities.version < _PLAIN_BM25 or settings.get(f"{SIMILARITY}.type") == "LegacyBM25":
        return 1.0
    return float(settings.get(f"{SIMILARITY}.k1", Bm25().k1)) + 1


def created_version(identifier: str) -> str:
    """Return the version in words of a setting ``index.version.created``, such as 136407927."""
    if not identifier.isdigit():
        return "of an unknown version"
    number = int(identifier) & ~0x08000000  # the bit that tells OpenSearch from Elasticsearch
    return f"{number // 1_000_000}.{number // 10_000 % 100}.{number // 100 % 100}"
