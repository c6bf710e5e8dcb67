"""Highlights: the words of a hit that the lexical leg matched, as HTML in which our ``<mark>`` is the only tag.

The lexical leg matches the combined field `content`, which is not stored; its parts `text`, `title` and
`section_heading` are analysed the same way. So the leg's own query is run against each of them (`require_field_match`
off), and OpenSearch marks the words as it matched them: stems, corrected spellings, without stop words.
"""

from __future__ import annotations

from app.store.queries import Body

_FRAGMENT_CHARACTERS = 160
_FRAGMENTS = 3
_MOST_CHARACTERS = 20_000
"""Maximum characters of a field that are read. Without it, a field longer than `index.highlight.max_analyzed_offset` (a
million) would make the whole search fail; our own passages have at most 6,000."""


def highlight_body(lexical: Body) -> Body:
    """Return the `highlight` part of a search body, marking what `lexical` (a `lexical_leg` or `lexical_match`)
    matches.

    Fragments are sentences of the text or parts of them, about 160 characters each, in the order of the text; title and
    heading are complete. The document's own text is escaped, so that tags in it are text.
    """
    return {
        "type": "unified",
        "encoder": "html",
        "pre_tags": ["<mark>"],
        "post_tags": ["</mark>"],
        "fragment_size": _FRAGMENT_CHARACTERS,
        "number_of_fragments": _FRAGMENTS,
        "no_match_size": 0,
        "require_field_match": False,
        "max_analyzer_offset": _MOST_CHARACTERS,
        "highlight_query": _remove_filters(lexical),
        "fields": {"text": {}, "title": {"number_of_fragments": 0}, "section_heading": {"number_of_fragments": 0}},
    }


def read_highlight(raw: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return field -> its fragments of one hit's `highlight`; fields without matches are missing."""
    return {field: tuple(fragments) for field, fragments in raw.items()}


def _remove_filters(query: Body) -> Body:
    """Remove filters: names of tenants and sources are not words of the query, and must not be marked."""
    if set(query) != {"bool"}:
        return query
    return {"bool": {occur: part for occur, part in query["bool"].items() if occur not in ("filter", "must_not")}}
