"""Scores against their formulas: an upgrade changes both legs' scales without an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from app.inspection.findings import Finding, Severity, ok, skipped
from app.inspection.subject import Subject
from app.store.score_check import KnownPassage, SpaceType, bm25_scale, dense_score

_INDEXES = 5
"""Indexes behind the name that are checked: each may have been made by another version."""


def check_dense_scores(subject: Subject) -> Iterator[Finding]:
    """Yield whether an exact k-NN search of each index scores by the formula of its space."""
    field = subject.vector_field
    space: SpaceType | None = next((known for known in get_args(SpaceType) if known == field.space_type), None)
    passages = _known(subject)
    if space is None or not passages:
        reason = f"the space {field.space_type} has no formula here" if space is None else "no vector is in _source"
        yield skipped("Dense scores", reason)
        return
    for passage in passages:
        found = dense_score(subject.reader, passage, field.name, space, "filtered")
        if found is None:
            yield skipped("Dense scores", f"a k-NN search of {passage.index} filtered to {passage.id!r} found nothing")
            continue
        told = (
            f"{passage.index}: {found.score:.4g} for a known passage, the formula of {space} gives {found.expected:.4g}"
        )
        figures = {"index": passage.index, "space": space, "score": found.score, "expected": found.expected}
        if found.fine:
            yield ok("Dense scores follow their formula", told, figures=figures)
        else:
            yield Finding(
                Severity.CRITICAL,
                f"Exact dense scores are not those of {space}" + (f", but of {found.formula}" if found.formula else ""),
                told,
                "an older version made the index, and this one reads its space wrongly (k-NN#3537): POST _reindex into "
                "a new index, a force merge does not help; until then script_score is right",
                figures | {"formula": found.formula},
            )


def check_lexical_scores(subject: Subject) -> Iterator[Finding]:
    """Yield whether BM25 has the factor k1 + 1, which OpenSearch 3.0 dropped."""
    for passage in _known(subject):
        scale = bm25_scale(subject.reader, passage, subject.text_field.name)
        if scale is None:
            yield skipped(
                "Lexical scores", f"{subject.text_field.name} of {passage.index} has no BM25, or no text in _source"
            )
            continue
        made = subject.settings.get(passage.index, {}).get("index.version.created_string", "?")
        told = f"{passage.index}, made by {made}: scores are multiplied by {scale.boost:.3g}, k1 is {scale.k1:g}"
        figures = {"index": passage.index, "factor": scale.boost, "k1": scale.k1}
        if abs(scale.factor - 1) < 0.01:
            yield ok("BM25 has the factor k1 + 1; OpenSearch 3.0 drops it", told, figures=figures)
        else:
            yield Finding(
                Severity.WARNING if made.startswith("2.") else Severity.NOTE,
                f"BM25 scores are {scale.factor:.3g} times smaller than on OpenSearch 2",
                told,
                "divide min_score, thresholds and boosts that were set on 2.x by it, or set the similarity LegacyBM25 "
                "in a new index; fusion by min-max or by rank is not affected",
                figures,
            )


def _known(subject: Subject) -> list[KnownPassage]:
    """Return a passage of each index; without a vector field, one with an empty vector."""
    found: dict[str, KnownPassage] = {}
    for document in subject.sample:
        if document.index not in found and (document.vector is not None or subject.vector is None):
            vector: list[float] = [] if document.vector is None else document.vector.tolist()
            found[document.index] = KnownPassage.of(document.index, document.id, document.text, vector)
    return list(found.values())[:_INDEXES]
