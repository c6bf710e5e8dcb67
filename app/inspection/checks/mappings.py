"""Size and agreement of the mappings."""

from __future__ import annotations

from collections.abc import Iterator

from app.inspection.fields import all_fields
from app.inspection.findings import Finding, Severity, ok
from app.inspection.subject import Subject

_DEFAULT_LIMIT = 1000
"""OpenSearch's own default of index.mapping.total_fields.limit."""
_CLOSE = 0.8


def check_mappings(subject: Subject) -> Iterator[Finding]:
    """Yield whether the mapping has too many fields, and whether the indexes behind the name agree."""
    counts = {index: sum(1 for _ in all_fields(mapping)) for index, mapping in subject.mappings.items()}
    index, most = max(counts.items(), key=lambda item: item[1])
    limit = int(subject.settings.get(index, {}).get("index.mapping.total_fields.limit", _DEFAULT_LIMIT))
    dynamic = str(subject.mappings[index].get("dynamic", "true"))
    figures = {"fields": counts, "limit": limit, "dynamic": dynamic}
    if most > _CLOSE * min(limit, _DEFAULT_LIMIT):
        yield Finding(
            Severity.WARNING,
            "The mapping has very many fields",
            f"{index} has {most:,} fields (limit {limit:,}, dynamic: {dynamic}): the cluster state grows, and at the "
            "limit writes fail",
            'set dynamic to "strict" or "false", keep free keys in one flat_object field, and reindex',
            figures,
        )
    else:
        yield ok("The mapping is small", f"{most:,} fields of at most {limit:,}, dynamic: {dynamic}", figures=figures)
    for name in (field.name for field in (subject.text, subject.vector) if field is not None):
        forms = {
            str(sorted((key, str(value)) for key, value in dict(all_fields(mapping)).get(name, {}).items()))
            for mapping in subject.mappings.values()
        }
        if len(forms) > 1:
            yield Finding(
                Severity.WARNING,
                "The indexes behind the name map a field differently",
                f"{name} has {len(forms)} definitions in {len(subject.mappings)} indexes: their scores don't compare",
                "reindex into one mapping",
            )
    if subject.text is None or subject.vector is None:
        missing = "no text field" if subject.text is None else "no knn_vector field"
        yield Finding(
            Severity.WARNING,
            "The index is not hybrid",
            f"{subject.name} has {missing} outside nested objects",
            "add the field in a new index, and reindex with an ingest pipeline that fills it",
        )
