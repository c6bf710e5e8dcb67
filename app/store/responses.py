"""Parsing of search responses: hits, totals, partial failures, and scores that must never be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.errors import StoreError
from app.passage import Candidate, Hit
from app.querytext import QueryText
from app.store.highlights import read_highlight
from app.store.passages import read_hit, read_token_vectors
from app.store.queries import LEXICAL, MOST_EXACT


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a request to OpenSearch; `failed_shards` of `shards` returned nothing."""

    took_ms: int
    timed_out: bool
    shards: int
    failed_shards: int

    @property
    def is_whole(self) -> bool:
        """Return whether nothing can be missing."""
        return not self.failed_shards and not self.timed_out


@dataclass(frozen=True, slots=True)
class Total:
    """Number of matches: all of them (`eq`), or at least so many (`gte`)."""

    value: int
    relation: Literal["eq", "gte"] = "eq"


@dataclass(frozen=True, slots=True)
class RetrievedPassages:
    """Passages of one request, best first, and the `total` of matches.

    `vectors` and `highlights` are by passage id, if requested and available.
    """

    hits: tuple[Hit, ...]
    total: Total
    outcome: Outcome
    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    highlights: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leg:
    """Ranking of one leg, best first.

    `exact`: identifier -> number of passages that contain it (at most `queries.COUNTED`), and the first of them; if
    they are few, they are among the candidates, however low they rank. `missing`: words of the query that occur in no
    passage visible to the caller. `corrected`: those of them that were matched with typing errors. `folded`: words that
    passages have with other accents or in another width, which were matched, too; `folds`: whether they have any of
    those that were not. `stop_words`: the query was matched as one of stop words alone.
    """

    candidates: tuple[Candidate, ...]
    total: Total
    outcome: Outcome
    exact: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    folds: bool = False
    stop_words: bool = False


def read_response(response: dict[str, Any]) -> RetrievedPassages:
    """Parse a search response to passages.

    Raises:
        StoreError: a score is negative. A `hybrid` query without a pipeline returns delimiter scores (-9.549512E9,
            -4.4224404E9) and doubled hits; real scores of our queries are never negative.
    """
    hits, vectors, highlights = [], {}, {}
    for raw in response["hits"]["hits"]:
        score = float(raw["_score"] or 0.0)
        if score < 0:
            raise StoreError(
                "OpenSearch answered a hybrid query with delimiter scores: its search pipeline did not run; "
                "run `braid templates apply`"
            )
        hit = read_hit(raw, score)
        if "_explanation" in raw:
            lexical, dense = _leg_scores(raw)
            hit = replace(hit, lexical=lexical, dense=dense)
        hits.append(hit)
        if "embedding" in raw["_source"]:
            vectors[raw["_id"]] = np.asarray(raw["_source"]["embedding"], np.float32)
        if "highlight" in raw:
            highlights[raw["_id"]] = read_highlight(raw["highlight"])
    return RetrievedPassages(tuple(hits), read_total(response), read_outcome(response), vectors, highlights)


def read_tokens(response: dict[str, Any]) -> dict[str, bytes]:
    """Parse the response to `queries.tokens_body`: passage id -> packed token vectors, of those that have them."""
    packed = {raw["fields"]["passage_id"][0]: read_token_vectors(raw) for raw in response["hits"]["hits"]}
    return {key: item for key, item in packed.items() if item is not None}


def read_leg(response: dict[str, Any], depth: int) -> Leg:
    """Parse a leg's response to its best `depth` candidates; equal scores are ordered by id.

    Raises:
        StoreError: a passage has no `passage_id`: it was not written through the ingest pipeline.
    """
    return Leg(tuple(_candidates(response)[:depth]), read_total(response), read_outcome(response))


def read_lexical(
    responses: Sequence[dict[str, Any]],
    query: QueryText,
    words: Sequence[str],
    depth: int,
) -> Leg:
    """Parse the responses to `queries.lexical_searches`; `words` are those that were checked or corrected.

    Raises:
        StoreError: as `read_leg`.
    """
    codes = query.codes
    leg = read_leg(responses[0], depth)
    known = {item.id for item in leg.candidates}
    exact: dict[str, tuple[int, tuple[str, ...]]] = {}
    named: dict[str, Candidate] = {}
    for code, response in zip(codes, responses[1 : 1 + len(codes)], strict=True):
        first = _candidates(response)
        count = read_total(response).value
        exact[code] = (count, tuple(item.id for item in first))
        if count <= MOST_EXACT:
            named |= {item.id: item for item in first if item.id not in known}
    there = [read_total(response).value > 0 for response in responses[1 + len(codes) :]]
    folded = there[len(words) : len(words) + len(query.folded)]
    return replace(
        leg,
        candidates=(*leg.candidates, *_in_order(named.values())),
        outcome=worst_outcome(responses),
        exact=exact,
        missing=tuple(word for word, found in zip(words, there, strict=False) if not found),
        folded=tuple(word for word, found in zip(query.folded, folded, strict=True) if found),
        folds=any(there[len(words) + len(query.folded) :]),
        stop_words=query.stop_words,
    )


def _leg_scores(raw: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the scores of both legs of an explained hit; None: it is not among the leg's candidates.

    The explanation has a part for each leg that matches the hit: its normalised score, 0 beyond the leg's candidates,
    made from its own.
    """
    found = [
        float(part["details"][0]["value"]) if part["value"] > 0 else None for part in raw["_explanation"]["details"]
    ]
    if len(found) == 1:
        found.insert(1 if LEXICAL in raw.get("matched_queries", ()) else 0, None)
    return found[0], found[1]


def _candidates(response: dict[str, Any]) -> list[Candidate]:
    return _in_order(_candidate(raw) for raw in response["hits"]["hits"])


def _in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda item: (-item.score, item.id))


def _candidate(raw: dict[str, Any]) -> Candidate:
    fields = raw.get("fields", {})
    if "passage_id" not in fields:
        raise StoreError(
            "a passage has no passage_id: it was indexed without the ingest pipeline braid-passages; "
            "index it again through the alias braid-passages-write"
        )
    return Candidate(fields["passage_id"][0], fields["document_id"][0], float(raw["_score"]))


def read_total(response: dict[str, Any]) -> Total:
    """Parse the number of matches; a partial answer is a lower bound."""
    hits = response["hits"]
    total = hits.get("total", {"value": len(hits["hits"]), "relation": "gte"})
    if not read_outcome(response).is_whole:
        return Total(int(total["value"]), "gte")
    return Total(int(total["value"]), total.get("relation", "eq"))


def read_outcome(response: dict[str, Any]) -> Outcome:
    """Parse the outcome of the request."""
    shards = response.get("_shards", {})
    return Outcome(
        took_ms=int(response.get("took", 0)),
        timed_out=bool(response.get("timed_out", False)),
        shards=int(shards.get("total", 1)),
        failed_shards=int(shards.get("failed", 0)),
    )


def worst_outcome(responses: Sequence[dict[str, Any]]) -> Outcome:
    """Parse the outcome of searches that ran side by side."""
    outcomes = [read_outcome(response) for response in responses]
    return Outcome(
        took_ms=max(item.took_ms for item in outcomes),
        timed_out=any(item.timed_out for item in outcomes),
        shards=outcomes[0].shards,
        failed_shards=max(item.failed_shards for item in outcomes),
    )
