"""Pure functions that build the search bodies; each has a golden test. Nothing here talks to a cluster.

The order of the legs is fixed: lexical first, dense second; the weights in the pipelines follow it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.querytext import QueryText
from app.store.filters import Clause
from app.tuning import Boosts

LINEAR_PIPELINE = "braid-hybrid-linear"
RRF_PIPELINE = "braid-hybrid-rrf"
OUTSIDE = "outside"
"""The count of a leg's hits that the other leg does not match: what both match together is then the sum of two."""
CODES = "codes"
"""The counts of hits that hold each identifier of the query as it is written, and under `EXACT` the first of them."""
EXACT = "exact"
MOST_EXACT = 20
"""Passages that an identifier may stand in and still single them out."""
WORDS = "words"
"""The counts of hits that hold each word that is checked for typing errors."""

TOKEN_VECTORS = "token_vectors"  # noqa: S105 - no secret
"""The packed vectors of a passage's tokens: doc values only, outside `_source`."""

Body = dict[str, Any]

_RETURNED_FIELDS = (
    "document_id",
    "title",
    "section_heading",
    "text",
    "source_id",
    "source_type",
    "uri",
    "page",
    "pages",
    "position",
    "timestamp",
    "topic_tags",
    "language",
    "content_hash",
)
_SLOP = 3
"""Places by which two query words may stand further apart than in the query and still count as a phrase."""
_FUZZY_BOOST = 0.6
"""A corrected word is a guess: it counts less than one that is there as typed."""
_VERSION = re.compile(r"v?(\d+(?:\.\d+)+\S*)")


def lexical_match(query: QueryText, filters: Sequence[Clause], corrected: Sequence[str] = ()) -> Body:
    """Which passages the lexical leg matches, without what only ranks them: for counting."""
    return {"bool": {"must": [_must(query, corrected)], "filter": list(filters)}}


def lexical_leg(query: QueryText, boosts: Boosts, filters: Sequence[Clause], corrected: Sequence[str] = ()) -> Body:
    """BM25 over `content` (title, section heading and text in one analysed field), and what else speaks for a passage.

    Args:
        query: taken apart by `read_query`.
        boosts: of matches in the title and heading, of neighbouring words, identifiers and quoted phrases.
        filters: of the request and its scope.
        corrected: words that the collection lacks, to be matched with typing errors.
    """
    should: list[Body] = [
        {"match": {field: {"query": query.text, "boost": boost}}}
        for field, boost in (("title", boosts.title), ("section_heading", boosts.heading))
        if boost
    ]
    if boosts.phrase:
        should += [_phrase(pair, _SLOP, boosts.phrase) for pair in query.pairs]
    if boosts.codes:
        should += [_code(code, boost=boosts.codes) for code in query.codes]
    if boosts.quoted:
        should += [_phrase(phrase, 0, boosts.quoted) for phrase in query.phrases]
    found = lexical_match(query, filters, corrected)
    if should:
        found["bool"]["should"] = should
    return found


def vector_leg(vector: Sequence[float], k: int, filters: Sequence[Clause]) -> Body:
    """The `k` nearest passages of each shard among those that pass the filter (which k-NN applies while searching)."""
    return {"knn": {"embedding": {"vector": list(vector), "k": k, "filter": {"bool": {"filter": list(filters)}}}}}


def hybrid_query(
    query: QueryText, boosts: Boosts, vector: Sequence[float], depth: int, filters: Sequence[Clause]
) -> Body:
    """Both legs, each with the same filter: a filter around `hybrid` would leak or starve results on 2.19.

    `depth` is the number of candidates that each leg gives per shard; it stays the same on every page.
    """
    return {
        "hybrid": {
            "queries": [lexical_leg(query, boosts, filters), vector_leg(vector, depth, filters)],
            "pagination_depth": depth,
        }
    }


def search_body(query: Body, *, size: int, timeout_ms: int) -> Body:
    """A whole search body that answers with passages; vectors never leave the cluster."""
    return {
        "query": query,
        "size": size,
        "_source": list(_RETURNED_FIELDS),
        "track_total_hits": True,
        "timeout": f"{timeout_ms}ms",
    }


def leg_body(query: Body, *, size: int, timeout_ms: int, counts: Mapping[str, Body] | None = None) -> Body:
    """A leg's search body: ids and scores only, from doc values, so that no document is opened to rank it.

    Equal scores are ordered by id, so that the list does not depend on shards. `counts` are aggregations.
    """
    body: Body = {
        "query": query,
        "size": size,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["passage_id", "document_id"],
        "sort": [{"_score": "desc"}, {"passage_id": "asc"}],
        "track_total_hits": True,
        "timeout": f"{timeout_ms}ms",
    }
    if counts:
        body["aggs"] = dict(counts)
    return body


def outside_count(matched: Body) -> dict[str, Body]:
    """Counts the hits that `matched` does not match."""
    return {OUTSIDE: {"filter": {"bool": {"must_not": [matched]}}}}


def lexical_counts(query: QueryText, checked: Sequence[str]) -> dict[str, Body]:
    """Counts that show whether identifiers were found as they are written, and which words the collection lacks."""
    # a stop word of the language is in no passage, and no typing error
    words = {word: {"query": word, "zero_terms_query": "all"} for word in checked}
    return _counts(query, words)


def corrected_counts(query: QueryText, words: Sequence[str]) -> dict[str, Body]:
    """As `lexical_counts`, for the request that looks for `words` with typing errors: which of them it finds."""
    return _counts(query, {word: _fuzzy(word) for word in words})


def _counts(query: QueryText, words: Mapping[str, Body]) -> dict[str, Body]:
    counts: dict[str, Body] = {}
    if query.codes:
        top = {"size": MOST_EXACT, "_source": False, "docvalue_fields": ["passage_id", "document_id"]}
        counts[CODES] = {
            "filters": {"filters": {code: _code(code) for code in query.codes}},
            "aggs": {EXACT: {"top_hits": top}},
        }
    if words:
        counts[WORDS] = {"filters": {"filters": {word: {"match": {"content": match}} for word, match in words.items()}}}
    return counts


def fetch_body(
    ids: Sequence[str],
    filters: Sequence[Clause],
    *,
    timeout_ms: int,
    vectors: bool = False,
    tokens: bool = False,
    highlight: Body | None = None,
) -> Body:
    """The passages of `ids`, as far as the filter lets them through.

    `vectors`, of the passages and of their `tokens`, are for the service's own use.
    """
    body = search_body(
        {"bool": {"filter": [{"ids": {"values": list(ids)}}, *filters]}}, size=len(ids), timeout_ms=timeout_ms
    )
    body["track_total_hits"] = False
    if vectors:
        body["_source"] = [*body["_source"], "embedding"]
    if tokens:
        body["docvalue_fields"] = [TOKEN_VECTORS]
    if highlight is not None:
        body["highlight"] = highlight
    return body


def linear_pipeline(alpha: float) -> Body:
    """An inline search pipeline: min-max normalisation, weighted arithmetic mean, `alpha` the dense share."""
    return {
        "phase_results_processors": [
            {
                "normalization-processor": {
                    "normalization": {"technique": "min_max"},
                    "combination": {
                        "technique": "arithmetic_mean",
                        "parameters": {"weights": [round(1.0 - alpha, 6), round(alpha, 6)]},
                    },
                }
            }
        ]
    }


def rrf_pipeline(rank_constant: int) -> Body:
    """An inline search pipeline for reciprocal rank fusion (one shard only before OpenSearch 3.5)."""
    return {
        "phase_results_processors": [
            {"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": rank_constant}}}
        ]
    }


def _must(query: QueryText, corrected: Sequence[str]) -> Body:
    """Any word, an identifier in any spelling, a corrected word. Identifiers score in `lexical_leg`, not here."""
    ways: list[Body] = [{"match": {"content": {"query": query.text}}}]
    ways += [_code(code, boost=0.0) for code in query.codes]
    if corrected:
        ways.append({"match": {"content": {**_fuzzy(" ".join(corrected)), "boost": _FUZZY_BOOST}}})
    return ways[0] if len(ways) == 1 else {"bool": {"should": ways, "minimum_should_match": 1}}


def _phrase(words: str, slop: int, boost: float) -> Body:
    return {"match_phrase": {"content": {"query": words, "slop": slop, "boost": boost}}}


def _fuzzy(words: str) -> Body:
    return {"query": words, "fuzziness": "AUTO", "prefix_length": 1}


def _code(code: str, **options: float) -> Body:
    """An identifier as a whole: the index's analyzer would also look for its parts, which near misses share."""
    return {"match": {"content.codes": {"query": _spellings(code), "analyzer": "whitespace", **options}}}


def _spellings(code: str) -> str:
    """An identifier as it may be written: a version is the same with and without its ``v``."""
    version = _VERSION.fullmatch(code)
    return f"{version[1]} v{version[1]}" if version else code
