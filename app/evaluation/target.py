"""The target of an evaluation: index, tenant and models, its search calls, and the queries' vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from app.calibration import Calibration, calibration_for
from app.config import Settings
from app.deadline import Deadline
from app.embedding.text_encoder import TextEncoder
from app.errors import BraidError, InvalidInput
from app.querytext import QueryText, read_query
from app.search.request import MAX_QUERY_CHARACTERS, SearchRequest
from app.search.reranking import Reranker
from app.search.stages import SearchCall
from app.search.trace import Trace
from app.store.client import Cluster
from app.store.filters import Scope, clauses
from app.tuning import Tuning


@dataclass(frozen=True, slots=True)
class EvaluationTarget:
    """Index, tenant and models to evaluate."""

    cluster: Cluster
    tenant: str
    encoder: TextEncoder
    settings: Settings
    shards: int
    ignore_identical: bool = False
    reranker: Reranker | None = None

    @property
    def calibration(self) -> Calibration | None:
        """The encoder's calibration, if it has one."""
        return calibration_for(self.settings.embedding, self.encoder.name)

    @property
    def default_reranker(self) -> Reranker | None:
        """Reranker of a search that does not say whether it wants one."""
        return self.reranker if self.settings.rerank.default else None


def evaluation_call(
    text: str,
    *,
    tenant: str,
    tuning: Tuning,
    depth: int,
    timeout_ms: int,
    query: QueryText | None = None,
    lexical_factor: float = 1.0,
) -> SearchCall:
    """Return a search of all passages of a tenant for the stages of the service.

    Args:
        text: the query; a query beyond the service's limit is cut, since it would be rejected.
        tuning: provides the boosts of the lexical leg.
        query: the analysed text; None: it is analysed here.
        lexical_factor: brings lexical scores to the scale of the weight model (`store.score_check`).

    Raises:
        InvalidInput: the service rejects the query.
    """
    text = text[:MAX_QUERY_CHARACTERS]
    try:
        request = SearchRequest(query=text, size=1)
    except ValidationError as error:
        raise InvalidInput(f"the service rejects this query: {error.errors(include_url=False)[0]['msg']}") from error
    return SearchCall(
        request=request,
        query=query or read_query(text),
        tuning=tuning,
        deadline=Deadline.after(timeout_ms),
        filters=clauses(Scope(tenant)),
        depth=depth,
        lexical_factor=lexical_factor,
    )


def require_whole(trace: Trace) -> None:
    """Raise PartialAnswer if a stage was degraded."""
    if trace.degraded:
        raise PartialAnswer("; ".join(item.reason for item in trace.degraded))


class PartialAnswer(BraidError):
    """Some shards failed, or time ran out: such a ranking must not be measured."""

    title = "Answered in part"
    kind = "partial-answer"


def query_vectors(queries: Mapping[str, str], encoder: TextEncoder) -> dict[str, npt.NDArray[np.float32]]:
    """Return the vector of each query."""
    return dict(zip(queries, encoder.encode_queries(list(queries.values())), strict=True))
