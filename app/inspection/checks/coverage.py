"""Documents that a leg can't find, and vectors that don't fit their space."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from app.inspection.findings import Finding, Severity, ok
from app.inspection.subject import Subject

_MISSING, _MUCH = 0.01, 0.1
_UNIT = 1e-3


def check_coverage(subject: Subject) -> Iterator[Finding]:
    """Yield how many documents have a vector and a text, and whether inner products are of unit vectors."""
    field = subject.vector_field
    lacking = {field.name: subject.documents - subject.vectors}
    if subject.text is not None:
        lacking[subject.text.name] = subject.documents - subject.reader.count(
            subject.name, {"exists": {"field": subject.text.name}}
        )
    for name, count in lacking.items():
        share = count / max(1, subject.documents)
        if share > _MISSING:
            yield Finding(
                Severity.CRITICAL if name == field.name and share > 1 - _MUCH else Severity.WARNING,
                "Documents without a value for a leg",
                f"{count:,} of {subject.documents:,} documents ({share:.0%}) have no {name}: that leg never finds them",
                "find them with bool.must_not.exists and index them again; check the ingest pipeline",
                {"field": name, "missing": count, "documents": subject.documents},
            )
    vectors = [document.vector for document in subject.sample if document.vector is not None]
    if not vectors:
        return
    norms = np.linalg.norm(np.stack(vectors), axis=1)
    figures = {"norm_min": float(norms.min()), "norm_max": float(norms.max()), "sampled": len(norms)}
    if field.space_type == "innerproduct" and field.data_type == "float" and np.abs(norms - 1).max() > _UNIT:
        yield Finding(
            Severity.WARNING,
            "Inner products of vectors that are not unit vectors",
            f"lengths from {norms.min():.3f} to {norms.max():.3f} in a sample of {len(norms)}: long vectors win, "
            "whatever the query",
            "normalise vectors before indexing, or use the space cosinesimil, unless the model was trained so",
            figures,
        )
    elif not any(count / max(1, subject.documents) > _MISSING for count in lacking.values()):
        yield ok(
            "Every document has text and vector",
            f"{subject.vectors:,} vectors, lengths {norms.min():.3f} to {norms.max():.3f} in a sample",
            figures=figures,
        )
