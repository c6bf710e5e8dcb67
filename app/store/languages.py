"""Text fields of the languages: which field holds a language's own analysis, and its part of the index.

Every passage is in `content`, analysed as `BRAID_LANGUAGE` says, and in `content.folded` without accents. A passage in
another language of `BRAID_LANGUAGES` is also in one field of that language, below `content_in`: the ingest pipeline
copies its words there, so each field holds the passages of its language alone, whose statistics BM25 takes. Chinese,
Japanese and Korean need no field of their own, since `content.bigrams` has nothing of any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.config.retrieval import IndexSettings
from app.languages import ANALYZERS, CJK, SAME, STANDARD, QueryLanguages
from app.store.client import Cluster

CONTENT = "content"
FOLDED = "content.folded"
BIGRAMS = "content.bigrams"
OWN = "content_in"
"""Object with a field for each language; outside `_source`, and filled by the ingest pipeline."""

Json = dict[str, Any]

_OWN_PARTS = ("title", "section_heading", "text")
_COPY = (
    "def given = ctx.language != null ? ctx.language : ctx.detected_language; "
    "if (given instanceof String) { "
    "int dash = given.indexOf('-'); "
    "def field = params.fields.get((dash < 0 ? given : given.substring(0, dash)).toLowerCase(Locale.ROOT)); "
    "if (field != null) { "
    "Map own = new HashMap(); "
    f"own.put(field, [{', '.join(f'ctx.{part}' for part in _OWN_PARTS)}]); "
    f"ctx.{OWN} = own; "
    "} }"
)


def text_fields(index: IndexSettings) -> dict[str, str]:
    """Return language -> the field of its own analysis; empty if the settings name none but that of `content`.

    The language of `content` is among them, since queries in it come, too.
    """
    main = [code for code, analyzer in ANALYZERS.items() if analyzer == index.language != STANDARD]
    found = {code: _field(code, index.language) for code in dict.fromkeys((*main, *index.language_codes))}
    return found if set(found.values()) != {CONTENT} else {}


class QueryFields:
    """Chooses the text fields that the lexical leg of a query asks. Thread-safe; one for a process."""

    def __init__(self, index: IndexSettings) -> None:
        """Load the detector if `index` names several languages of one script."""
        self.all = text_fields(index)
        """Language -> field of an index made with these settings."""
        self._languages = QueryLanguages(self.all)

    def of(self, query: str, there: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Return the fields of the languages that `query` may be in, best first.

        Empty if only the main field is asked: without languages in the settings, in an index that has none, for a query
        in another language.

        Args:
            there: language -> field of the indexes at hand; None: they are as the settings say.
        """
        fields = self.all if there is None else there
        if all(field == CONTENT for field in fields.values()):
            return ()
        return tuple(dict.fromkeys(fields[code] for code in self._languages.guess(query) if code in fields))


def own_languages(index: IndexSettings) -> tuple[str, ...]:
    """Return the languages with a field of their own below `content_in`, sorted."""
    return tuple(sorted(code for code, field in text_fields(index).items() if field.startswith(OWN)))


def add_to_template(template: Json, index: IndexSettings) -> None:
    """Add analyzers and fields of the languages to a body of settings and mappings; without any, nothing changes."""
    languages = own_languages(index)
    if not languages:
        return
    mappings, analyzers = template["mappings"], template["settings"]["index"]["analysis"]["analyzer"]
    mappings["_meta"]["languages"] = list(languages)
    mappings["_source"] = {"excludes": [OWN]}
    fields = {}
    for code in languages:
        analyzers[f"braid_{code}"] = {"type": ANALYZERS[code]}
        fields[code] = {"type": "text", "analyzer": f"braid_{code}", "similarity": "braid_bm25"}
    mappings["properties"][OWN] = {"properties": fields}


def add_to_pipeline(pipeline: Json, index: IndexSettings) -> None:
    """Add the processor that copies a passage's words to the field of its language: the one that its source states, or
    else the detected one.
    """
    languages = own_languages(index)
    if not languages:
        return
    codes = {code: code for code in languages} | {other: code for other, code in SAME.items() if code in languages}
    processor = {
        "tag": "own-language",
        "description": "The words of a passage in the field of its language",
        "lang": "painless",
        "params": {"fields": codes},
        "source": _COPY,
    }
    pipeline["processors"].append({"script": processor})


def languages_of_index(mappings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the languages with fields of their own in an index, sorted."""
    found = mappings.get("_meta", {}).get("languages", ())
    return tuple(sorted([found] if isinstance(found, str) else found))


def available(fields: Mapping[str, str], indexes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return those of the language `fields` that all mappings of `indexes` have; a query must not rely on others."""
    mappings = list(indexes)
    return {code: field for code, field in fields.items() if all(_has(mapping, field) for mapping in mappings)}


def mappings_of(cluster: Cluster) -> list[Json]:
    """Return the mappings of the indexes behind the read alias. Raises StoreError."""
    found = cluster.request("GET", f"/{cluster.read_alias}/_mapping")
    return [item["mappings"] for item in found.values()]


def _field(code: str, main: str) -> str:
    if ANALYZERS[code] == main:
        return CONTENT
    return BIGRAMS if ANALYZERS[code] == CJK else f"{OWN}.{code}"


def _has(mapping: Mapping[str, Any], field: str) -> bool:
    found: Mapping[str, Any] = mapping
    for part in field.split("."):
        found = (found.get("properties") or found.get("fields") or {}).get(part, {})
    return bool(found)
