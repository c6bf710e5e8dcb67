"""An inspection: all checks of the table, one by one; what can't be checked is said, and ends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from app.embedding.text_encoder import TextEncoder
from app.errors import BraidError, InvalidInput
from app.evaluation.dataset import sample_queries
from app.inspection.checks import CHECKS, Check
from app.inspection.findings import Finding, Severity, skipped
from app.inspection.queries import QuerySet, complete_vectors
from app.inspection.subject import ProbeQuery, Subject

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of an inspection: the findings, the worst first, and what was inspected."""

    subject: Subject
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def worst(self) -> Severity:
        """The most severe finding's severity."""
        return self.findings[0].severity


def inspect(
    subject: Subject,
    given: QuerySet | None,
    encoder: Callable[[], TextEncoder],
    *,
    checks: Sequence[Check] = CHECKS,
    progress: Progress = lambda name: None,
) -> Inspection:
    """Run the checks.

    Args:
        given: the user's queries and judgements.
        encoder: loads the model for queries without a vector; not called without such queries.
        progress: called with the name of each check.

    Raises:
        InvalidInput: an option does not fit the index (found while a check uses it).
    """
    began = time.monotonic()
    findings: list[Finding] = []
    if given is not None:
        progress("queries")
        judged = given.judged and sample_queries(given.judged, subject.sizes.judged)
        asked = dict(islice(given.queries.items(), subject.sizes.queries)) | (judged.queries if judged else {})
        vectors, problems = complete_vectors(replace(given, queries=asked), subject, encoder)
        subject.given = [ProbeQuery(text, vectors.get(key)) for key, text in asked.items()]
        subject.judged, subject.query_vectors = judged, vectors
        findings += [replace(item, check="queries") for item in (*given.findings, *problems)]
    for check in checks:
        progress(check.name)
        findings += [replace(item, check=check.name) for item in _run(check, subject)]
    order = list(Severity)
    findings.sort(key=lambda item: order.index(item.severity))
    return Inspection(subject, tuple(findings), time.monotonic() - began)


def _run(check: Check, subject: Subject) -> Iterator[Finding]:
    """Yield the findings of a check, or why it was not run (to its end)."""
    if check.needs_judgements and subject.judged is None:
        return
    lacking = [
        kind
        for needed, found, kind in (
            (check.needs_text, subject.text, "text field"),
            (check.needs_vector, subject.vector, "knn_vector field"),
        )
        if needed and found is None
    ]
    if lacking:
        yield skipped(check.name.capitalize(), f"{subject.name} has no {lacking[0]} outside nested objects")
        return
    try:
        yield from check.run(subject)
    except InvalidInput:
        raise
    except BraidError as error:
        yield skipped(check.name.capitalize(), error.detail)
