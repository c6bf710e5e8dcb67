"""Checks of an inspection, one concept a file; the table is in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.inspection.checks.analyzers import check_analyzers
from app.inspection.checks.coverage import check_coverage
from app.inspection.checks.filters import check_filters
from app.inspection.checks.health import check_health, check_versions
from app.inspection.checks.hybrid import check_fusion, check_hybrid
from app.inspection.checks.judged import check_quality
from app.inspection.checks.mappings import check_mappings
from app.inspection.checks.memory import check_memory
from app.inspection.checks.pipelines import check_pipelines
from app.inspection.checks.recall import check_recall
from app.inspection.checks.scores import check_dense_scores, check_lexical_scores
from app.inspection.checks.storage import check_storage
from app.inspection.findings import Finding
from app.inspection.subject import Subject


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what it does to a subject, and what the subject must have."""

    name: str
    run: Callable[[Subject], Iterator[Finding]]
    needs_text: bool = False
    needs_vector: bool = False
    needs_judgements: bool = False


CHECKS = (
    Check("health", check_health),
    Check("versions", check_versions),
    Check("mappings", check_mappings),
    Check("pipelines", check_pipelines),
    Check("storage", check_storage),
    # before the first search, which would load graphs
    Check("memory", check_memory, needs_vector=True),
    Check("coverage", check_coverage, needs_vector=True),
    Check("analyzers", check_analyzers, needs_text=True),
    Check("lexical scores", check_lexical_scores, needs_text=True),
    Check("dense scores", check_dense_scores, needs_vector=True),
    Check("hybrid", check_hybrid, needs_text=True, needs_vector=True),
    Check("fusion over shards", check_fusion, needs_text=True, needs_vector=True),
    Check("recall", check_recall, needs_vector=True),
    Check("filters", check_filters, needs_vector=True),
    Check("quality", check_quality, needs_text=True, needs_judgements=True),
)
