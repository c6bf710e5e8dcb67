"""Queries and judgements of the user: files, vectors, and the model that encodes what has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.embedding.text_encoder import TextEncoder
from app.errors import BraidError, InvalidInput
from app.evaluation.dataset import JudgedSet, measurable, read_queries
from app.evaluation.findings import Findings, shown
from app.evaluation.judgements import read_judgements
from app.ingest.records import BadLine, read_records, record_id
from app.inspection.findings import Finding, Severity, skipped
from app.inspection.subject import Subject, Vector

_VECTOR_NAMES = ("vector", "embedding")
_ALIKE = 0.4
"""Mean cosine between stored vectors and the model's of the same texts, below which another model made them: vectors of
two models are unrelated, those of one model for slightly different texts (a title, a prefix) are much alike."""
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries by id, vectors of those that have one, judgements if there are any, and what is wrong with the files."""

    queries: Mapping[str, str]
    vectors: Mapping[str, Vector]
    judged: JudgedSet | None = None
    findings: tuple[Finding, ...] = field(default=())


def read_query_set(queries: Path, qrels: Path | None, dimension: int | None) -> QuerySet:
    """Read a file of queries (JSON Lines with ``_id``, ``text`` and maybe ``vector``, or TSV), and judgements.

    Raises:
        InvalidInput: a file is unreadable or holds nothing usable, or a vector is wrong; file and line are named.
    """
    for path in filter(None, (queries, qrels)):
        if not path.is_file():
            raise InvalidInput(f"{shown(str(path))}: there is no such file")
    problems = Findings()
    texts = read_queries(queries, problems)
    vectors = {} if ".tsv" in queries.name else _read_vectors(queries, dimension)
    judged = None
    if qrels is not None:
        measured, kept = measurable(texts, read_judgements(qrels, problems), qrels.name, problems)
        judged = JudgedSet(queries.stem, measured, kept, None, None, qrels.stem, ())
    found = tuple(
        Finding(Severity.NOTE, f"Files of queries: {item.kind}", f"{item.count}: {item.detail}", "correct the files")
        for item in problems.all()
    )
    return QuerySet({key: text.strip() for key, text in texts.items() if text.strip()}, vectors, judged, found)


def _read_vectors(path: Path, dimension: int | None) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for row in read_records(path):
        if isinstance(row, BadLine):
            continue  # `read_queries` reports it
        number, fields = row
        query = record_id(fields)
        given = next((fields[name] for name in _VECTOR_NAMES if name in fields), None)
        if query is None or given is None or query in found:
            continue
        where = f"{path.name} line {number}: the vector"
        try:
            vector = np.asarray(given, np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{where} is not a list of numbers") from error
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise InvalidInput(f"{where} is not a list of finite numbers")
        if dimension is not None and len(vector) != dimension:
            raise InvalidInput(f"{where} has {len(vector)} dimensions, the index {dimension}")
        found[query] = vector
    return found


def complete_vectors(
    given: QuerySet, subject: Subject, encoder: Callable[[], TextEncoder]
) -> tuple[Mapping[str, Vector], list[Finding]]:
    """Return the vectors of the queries, encoded by Braid's model where the file has none, and why some are missing.

    The model is used only if its vectors of sampled texts resemble the stored ones.
    """
    lacking = [key for key in given.queries if key not in given.vectors]
    if not lacking or subject.vector is None:
        return given.vectors, []
    reason = ""
    try:
        model = encoder()
        if model.dimension != subject.vector.dimension:
            reason = f"the model {model.name} has {model.dimension} dimensions, the index {subject.vector.dimension}"
        elif (alike := _likeness(model, subject)) is None:
            reason = "no sampled document has both text and vector, so it is unknown which model made the vectors"
        elif alike < _ALIKE:
            reason = (
                f"another model than {model.name} made the vectors of the index: for the same texts, the mean cosine "
                f"between both is {alike:.2f}"
            )
        else:
            texts = [given.queries[key] for key in lacking]
            made = dict(zip(lacking, model.encode_queries(texts), strict=True))
            return {**given.vectors, **made}, []
    except BraidError as error:
        reason = error.detail
    remedy = 'put vectors into the file of queries: {"_id": "1", "text": "...", "vector": [...]}'
    return given.vectors, [skipped(f"Dense search of {len(lacking)} queries", reason, remedy)]


def _likeness(model: TextEncoder, subject: Subject) -> float | None:
    """Return the mean cosine between stored vectors and the model's vectors of the same texts."""
    both = [item for item in subject.sample if item.vector is not None and item.text.strip()][:_COMPARED]
    if not both:
        return None
    made = model.encode_passages([item.text for item in both])
    stored = np.stack([item.vector for item in both if item.vector is not None])
    norms = np.linalg.norm(made, axis=1) * np.linalg.norm(stored, axis=1)
    return float(((made * stored).sum(axis=1) / np.maximum(norms, 1e-9)).mean())
