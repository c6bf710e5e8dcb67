"""Pipelines that the index's settings name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from app.errors import InvalidInput
from app.inspection.findings import Finding, Severity, ok
from app.inspection.subject import Subject

_FUSING = ("normalization-processor", "score-ranker-processor")
_SEARCH = "index.search.default_pipeline"
_NAMED = {
    _SEARCH: ("/_search/pipeline", "search pipeline", "every search of the index fails"),
    "index.default_pipeline": ("/_ingest/pipeline", "ingest pipeline", "every write to the index fails"),
    "index.final_pipeline": ("/_ingest/pipeline", "ingest pipeline", "every write to the index fails"),
}
"""Setting -> where its pipeline is read, what it is, and what its absence does."""


def check_pipelines(subject: Subject) -> Iterator[Finding]:
    """Yield whether the named pipelines exist, and what the search pipeline does to a hybrid query."""
    found: dict[str, dict[str, Any]] = {}
    broken = False
    for index, settings in sorted(subject.settings.items()):
        for setting, (path, kind, effect) in _NAMED.items():
            name = settings.get(setting, "_none")
            if name == "_none" or (kind == "search pipeline" and name in found):
                continue
            answer = subject.reader.find(f"{path}/{quote(name, safe='')}")
            if not answer:
                broken = True
                yield Finding(
                    Severity.CRITICAL,
                    f"A named {kind} does not exist",
                    f"{setting} of {index} names {name!r}: {effect}",
                    f'create it, or set {setting} to "_none"',
                    {"index": index, "setting": setting, "pipeline": name},
                )
            elif kind == "search pipeline":
                found[name] = answer[name]
    if (named := subject.pipeline) and named not in found:
        answer = subject.reader.find(f"/_search/pipeline/{quote(named, safe='')}")
        if not answer:
            raise InvalidInput(f"--pipeline {named!r}: the cluster has no such search pipeline")
        found[named] = answer[named]
    for name, pipeline in found.items():
        yield from judge_pipeline(name, pipeline)
    names = {settings.get(_SEARCH, "_none") for settings in subject.settings.values()}
    if len(names) > 1:
        yield Finding(
            Severity.WARNING,
            "The indexes behind the name have different search pipelines",
            f"{_SEARCH}: {', '.join(sorted(names))}",
            "set the same one for all, or name it in each search (?search_pipeline=...)",
            {"pipelines": sorted(names)},
        )
    if not found and not broken:
        yield Finding(
            Severity.NOTE,
            "No default search pipeline",
            f"{_SEARCH} is not set: a hybrid query that names none is not fused",
            f"set {_SEARCH} to a pipeline with a normalization-processor, or name it in each search",
        )


def judge_pipeline(name: str, pipeline: dict[str, Any]) -> Iterator[Finding]:
    """Yield what the processors of a search pipeline do to a hybrid query."""
    fusing = [kind for part in pipeline.get("phase_results_processors", []) for kind in part if kind in _FUSING]
    filtering = [kind for part in pipeline.get("request_processors", []) for kind in part if kind == "filter_query"]
    if filtering:
        yield Finding(
            Severity.WARNING,
            "The search pipeline filters around the query",
            f"{name} has a filter_query processor: k-NN is filtered after its search, and may find next to nothing",
            "put the filter into each leg: bool.filter, and knn.filter",
        )
    if not fusing:
        yield Finding(
            Severity.WARNING,
            "The search pipeline fuses nothing",
            f"{name} has neither a normalization-processor nor a score-ranker-processor",
            "add one to its phase_results_processors, or name another pipeline in each hybrid search",
        )
    elif not filtering:
        yield ok("The search pipeline fuses", f"{name}: {', '.join(fusing)}")
