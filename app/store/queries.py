"""Search bodies, built by pure functions with golden tests. Nothing here talks to a cluster.

The order of the legs is fixed: lexical first, dense second; the weights in the pipelines follow it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from app.languages import EAST_ASIAN
from app.querytext import MAX_TERMS, QueryText, widen
from app.store.filters import Clause
from app.store.languages import BIGRAMS, CONTENT, FOLDED
from app.store.passages import READ_FIELDS, TOKEN_VECTORS
from app.tuning import Boosts, Normalization

LINEAR_PIPELINE = "braid-hybrid-linear"
RRF_PIPELINE = "braid-hybrid-rrf"
LEXICAL = "lexical"
"""Name of the lexical leg in an explained `hybrid` query."""
MOST_EXACT = 20
"""Maximum number of passages with an identifier for which it singles them out."""
COUNTED = 1000
"""Matches up to which a total is exact. Beyond, Lucene skips passages that can't be among the best: counting all, and
sorting by anything but the score, makes it visit each match (benchmarks/lexical_leg.md)."""
TIES = 20
"""Passages that a leg reads beyond its candidates: where no more than these have the last candidate's score, which of
them are candidates does not depend on the copy of the shard."""

Body = dict[str, Any]

_FOLDED_BOOST = 0.23
"""Weight of the words with their endings and without accents (benchmarks/languages.md)."""
_OWN_BOOST = 1 - _FOLDED_BOOST
"""Weight of the language's own field: in all, scores are on the scale of one field, which the weight model knows."""
_SLOP = 3
"""Additional distance at which two adjacent query words still count as a phrase."""
_FUZZY_BOOST = 0.6
"""Weight of a corrected word: less than a verbatim one, since it is a guess."""
_OTHER_SPELLING_BOOST = 0.8
"""Weight of a word that a passage has with other accents or in another width: less than as it is written."""
_JOINED = re.compile(r"([^\W\d_]+)[-_.]?(\d+)")
_VERSION = re.compile(r"v?(\d+(?:\.\d+)+\S*)")


def lexical_match(query: QueryText, filters: Sequence[Clause], corrected: Sequence[str] = ()) -> Body:
    """Return the clause for the passages that the lexical leg matches, without ranking: for counting."""
    return {"bool": {"must": [_must(query, corrected)], "filter": list(filters)}}


def lexical_leg(query: QueryText, boosts: Boosts, filters: Sequence[Clause], corrected: Sequence[str] = ()) -> Body:
    """Return BM25 over `content` (title, section heading and text in one analysed field), or over the fields of the
    query's languages, identifiers and quotes.

    Args:
        boosts: weights of identifiers and quoted phrases; those of `refinement` are not used.
        corrected: words missing from the collection, to be matched with typing errors.
    """
    should: list[Body] = []
    if boosts.codes:
        should += [_code(code, boost=boosts.codes) for code in query.codes]
    if boosts.quoted:
        should += [_phrase(_field(query, phrase), phrase, 0, boosts.quoted) for phrase in query.phrases]
    found = lexical_match(query, filters, corrected)
    if should:
        found["bool"]["should"] = should
    return found


def refinement(query: QueryText, boosts: Boosts) -> list[Body]:
    """Return the clauses whose scores are added for the best passages only: words of the title and the heading, and
    neighbouring words. Scored on all matches, they took half of the lexical leg's processor time.
    """
    found: list[Body] = [
        {"match": {field: {"query": query.text, "boost": boost}}}
        for field, boost in (("title", boosts.title), ("section_heading", boosts.heading))
        # OpenSearch rejects queries of more than 1,024 clauses, and counts the terms of all parts of `hybrid_query`
        if boost and query.terms * (len(_ways(query)) + 2) <= MAX_TERMS
    ]
    if boosts.phrase:
        pairs = [(_field(query, pair), pair) for pair in query.pairs]
        # what stands between two punctuation marks is no word
        found += [_phrase(field, pair, _SLOP, boosts.phrase) for field, pair in pairs if field != BIGRAMS]
    return found


def vector_leg(vector: Sequence[float], k: int, filters: Sequence[Clause]) -> Body:
    """Return the query for the `k` nearest passages of each shard that pass the filter (k-NN
    applies it during search).
    """
    return {"knn": {"embedding": {"vector": list(vector), "k": k, "filter": {"bool": {"filter": list(filters)}}}}}


def hybrid_query(
    query: QueryText,
    boosts: Boosts,
    vector: Sequence[float],
    depth: int,
    filters: Sequence[Clause],
    *,
    named: bool = False,
) -> Body:
    """Return both legs, each with the same filter: a filter around `hybrid` would leak or starve results on 2.19.

    `depth` is the number of candidates of each leg per shard; it stays the same on every page. The refinement is part
    of the lexical leg: a `rescore` would score the passages of both legs. With `named`, hits say whether the lexical
    leg matches them, without which their explanation can't be read.
    """
    lexical = lexical_leg(query, boosts, filters)
    if clauses := refinement(query, boosts):
        lexical["bool"]["should"] = [*clauses, *lexical["bool"].get("should", ())]
    if named:
        lexical["bool"]["_name"] = LEXICAL
    return {"hybrid": {"queries": [lexical, vector_leg(vector, depth, filters)], "pagination_depth": depth}}


def search_body(query: Body, *, size: int, timeout_ms: int, exact_total: bool = False) -> Body:
    """Return a complete search body that returns passages; vectors never leave the cluster."""
    return {
        "query": query,
        "size": size,
        "_source": list(READ_FIELDS),
        "track_total_hits": exact_total or COUNTED,
        "timeout": f"{timeout_ms}ms",
    }


def leg_body(
    query: Body, *, size: int, timeout_ms: int, refined_by: Sequence[Body] = (), exact_total: bool = False
) -> Body:
    """Return a leg's search body: ids and scores only, from doc values, so that ranking opens no document.

    Equal scores come in any order: `responses.read_leg` orders them. The best passages are `refined_by` clauses whose
    scores are added: all `size` passages, so that their scores are comparable, and no more: the first hundred were the
    same with 200, at half as much again of the leg's processor time (benchmarks/lexical_leg.md).
    """
    body: Body = {
        "query": query,
        "size": size,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["passage_id", "document_id"],
        "track_total_hits": exact_total or COUNTED,
        "timeout": f"{timeout_ms}ms",
    }
    if refined_by:
        # the filter leads, so that the clauses are tried on the best passages and not searched for their own matches
        clauses: Body = {"bool": {"filter": [{"match_all": {}}], "should": list(refined_by)}}
        body["rescore"] = {
            "window_size": size,
            "query": {"rescore_query": clauses, "score_mode": "total"},
        }
    return body


def lexical_searches(
    query: QueryText,
    boosts: Boosts,
    filters: Sequence[Clause],
    *,
    depth: int,
    timeout_ms: int,
    checked: Sequence[str],
    corrected: Sequence[str] = (),
    unfolded: Sequence[str] = (),
) -> list[Body]:
    """Return the searches of the lexical leg: its ranking; the first passages with each identifier of the query, as
    they score in the ranking; whether any passage has each of the `checked` words, or of the `corrected` ones a word
    spelled alike; each of the query's `folded` words with other accents; any of the `unfolded` ones so. They are
    separate, because an aggregation in the first would make Lucene visit each match.
    """

    def ranked(size: int, *more: Clause) -> Body:
        leg = lexical_leg(query, boosts, [*filters, *more], corrected)
        return leg_body(leg, size=size, timeout_ms=timeout_ms, refined_by=refinement(query, boosts))

    there = [_known(query, word) for word in checked]
    there += [{"match": {_field(query, word): _fuzzy(word)}} for word in corrected]
    there += [_other_spelling(query, word) for word in query.folded]
    if unfolded:
        there.append(_either([_other_spelling(query, word) for word in unfolded]))
    return [
        ranked(depth + TIES),
        *(ranked(MOST_EXACT, _code(code)) for code in query.codes),
        *(_any(clause, filters) for clause in there),
    ]


def folds_all(query: QueryText) -> bool:
    """Return whether all words are matched without accents anyway."""
    return FOLDED in _ways(query)


def _any(clause: Clause, filters: Sequence[Clause]) -> Body:
    """Return the search that ends with the first match. Without a timeout of its own it may be cached."""
    return {"query": {"bool": {"filter": [clause, *filters]}}, "size": 0, "track_total_hits": 1}


def count_body(lexical: Body, ids: Sequence[str], filters: Sequence[Clause]) -> Body:
    """Return the search that counts the passages that match `lexical`, or have one of `ids` and pass the filters."""
    either = [lexical, {"bool": {"filter": [{"ids": {"values": list(ids)}}, *filters]}}]
    query = {"bool": {"should": either, "minimum_should_match": 1}}
    return {"query": query, "size": 0, "track_total_hits": True}


def fetch_body(
    ids: Sequence[str],
    filters: Sequence[Clause],
    *,
    timeout_ms: int,
    vectors: bool = False,
    highlight: Body | None = None,
) -> Body:
    """Return a body for the passages of `ids` that pass the filter; their `vectors` are for the service's own use."""
    body = search_body(_visible(ids, filters), size=len(ids), timeout_ms=timeout_ms)
    body["track_total_hits"] = False
    if vectors:
        body["_source"] = [*body["_source"], "embedding"]
    if highlight is not None:
        body["highlight"] = highlight
    return body


def tokens_body(ids: Sequence[str], filters: Sequence[Clause], *, timeout_ms: int) -> Body:
    """Return a body for the packed token vectors of `ids` that pass the filter.

    From doc values alone: with their texts, fifty passages cost the cluster three times as much.
    """
    return {
        "query": _visible(ids, filters),
        "size": len(ids),
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["passage_id", TOKEN_VECTORS],
        "track_total_hits": False,
        "timeout": f"{timeout_ms}ms",
    }


def _visible(ids: Sequence[str], filters: Sequence[Clause]) -> Body:
    return {"bool": {"filter": [{"ids": {"values": list(ids)}}, *filters]}}


def linear_pipeline(alpha: float, normalization: Normalization = "min_max") -> Body:
    """Return an inline search pipeline: normalisation, weighted arithmetic mean; `alpha` is the dense share."""
    weights = [round(1.0 - alpha, 6), round(alpha, 6)]
    combination = {"technique": "arithmetic_mean", "parameters": {"weights": weights}}
    processor = {"normalization": {"technique": normalization}, "combination": combination}
    return {"phase_results_processors": [{"normalization-processor": processor}]}


def rrf_pipeline(rank_constant: int) -> Body:
    """Return an inline search pipeline that fuses by reciprocal ranks."""
    combination = {"technique": "rrf", "rank_constant": rank_constant}
    return {"phase_results_processors": [{"score-ranker-processor": {"combination": combination}}]}


def with_explanation(pipeline: Body) -> Body:
    """Return a pipeline that also shows each leg's score, in a request with `explain`."""
    return {**pipeline, "response_processors": [{"hybrid_score_explanation": {}}]}


def _must(query: QueryText, corrected: Sequence[str]) -> Body:
    """Return the clause for any word, an identifier in any spelling, or a corrected word. Identifiers score in
    `lexical_leg`.
    """
    ways = _stop_words(query) if query.stop_words else _text(query)
    ways += [_code(code, boost=0.0) for code in query.codes]
    ways += [_phrase(_field(query, words), words, 0, 1.0) for words in query.apart]
    ways += [_other_spelling(query, word) for word in query.folded]
    if corrected:
        words = " ".join(corrected)
        ways.append({"match": {_field(query, words): {**_fuzzy(words), "boost": _FUZZY_BOOST}}})
    return ways[0] if len(ways) == 1 else _either(ways)


def _either(clauses: Sequence[Body]) -> Body:
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}


def _known(query: QueryText, word: str) -> Body:
    """Return the clause for passages with a word, in any accents; a stop word of the language is in none, but is not a
    typing error.
    """
    plain = {"match": {_field(query, word): {"query": word, "zero_terms_query": "all"}}}
    return _either([plain, {"match": {FOLDED: {"query": word, "operator": "and"}}}])


def _other_spelling(query: QueryText, word: str) -> Body:
    """Return the clause for passages that have a word with other accents or in another width, and not as it is."""
    folded = {"match": {FOLDED: {"query": word, "operator": "and", "boost": _OTHER_SPELLING_BOOST}}}
    plain = {"match": {_field(query, word): {"query": word, "operator": "and", "zero_terms_query": "all"}}}
    return {"bool": {"must": [folded], "must_not": [plain]}}


def _stop_words(query: QueryText) -> list[Body]:
    """Return the clause for the words of a text of stop words, which only the folded field has.

    Where the text has another word after all, that decides what matches.
    """
    scored = [{"match": {field: {"query": query.text}}} for field in (CONTENT, FOLDED)]
    decisive = {"match": {CONTENT: {"query": query.text, "zero_terms_query": "all"}}}
    return [{"bool": {"must": [{"dis_max": {"queries": scored}}], "filter": [decisive]}}]


def _text(query: QueryText) -> list[Body]:
    """Return the clauses for the words of the text, whose scores are added.

    A query in a known language asks the field of that language, and with a small weight the folded one, which has the
    passages of all languages. One that may be in several asks the field of each and the main one, and the best counts.
    """
    ways = _ways(query)
    fields = [way for way in ways if way != FOLDED]
    if FOLDED not in ways:
        return [{"match": {ways[0]: {"query": query.text}}}]
    matches: list[Body] = [{"match": {field: {"query": query.text, "boost": _OWN_BOOST}}} for field in fields]
    found: list[Body] = matches if len(matches) == 1 else [{"dis_max": {"queries": matches}}]
    found.append({"match": {FOLDED: {"query": query.text, "boost": _FOLDED_BOOST}}})
    if BIGRAMS in fields and (others := EAST_ASIAN.sub(" ", query.text)).strip():
        found.append({"match": {CONTENT: {"query": others, "boost": _OWN_BOOST}}})
    return found


def _ways(query: QueryText) -> list[str]:
    """Return the fields that the whole text is matched in: fewer for a text of very many words, of which each is a
    clause in every field.
    """
    fields = [*query.fields, CONTENT] if len(query.fields) > 1 and CONTENT not in query.fields else [*query.fields]
    ways = [*fields, FOLDED] if fields else [CONTENT]
    return ways if query.terms * len(ways) <= MAX_TERMS else ways[:1]


def _field(query: QueryText, words: str) -> str:
    """Return the field where some words of the query are matched on their own."""
    if len(query.fields) != 1 or (query.fields[0] == BIGRAMS and EAST_ASIAN.search(words) is None):
        return CONTENT
    return query.fields[0]


def _phrase(field: str, words: str, slop: int, boost: float) -> Body:
    return {"match_phrase": {field: {"query": words, "slop": slop, "boost": boost}}}


def _fuzzy(words: str) -> Body:
    return {"query": words, "fuzziness": "AUTO", "prefix_length": 1}


def _code(code: str, **options: float) -> Body:
    """Return the clause for a whole identifier: the index's analyzer would also match its parts, which near misses
    share.
    """
    return {"match": {"content.codes": {"query": _spellings(code), "analyzer": "whitespace", **options}}}


def _spellings(code: str) -> str:
    """Return the spellings of an identifier: a version with and without its ``v``, letters and a number with and
    without a mark between them, each also in full width.
    """
    found = [code]
    if version := _VERSION.fullmatch(code):
        found = [version[1], f"v{version[1]}"]
    elif parts := _JOINED.fullmatch(code):
        found += [f"{parts[1]}{mark}{parts[2]}" for mark in ("", "-", "_", ".")]
    return " ".join(dict.fromkeys([*found, *map(widen, found)]))
