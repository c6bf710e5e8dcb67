"""What an evaluation searches, and how it embeds the queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.config import Settings
from app.embedding.encoder import Encoder
from app.search.reranking import Reranker
from app.store.client import Cluster


@dataclass(frozen=True, slots=True)
class Where:
    """What is searched: a cluster's view of an index, whose passages, and with which models."""

    cluster: Cluster
    tenant: str
    encoder: Encoder
    settings: Settings
    shards: int
    ignore_identical: bool = False
    reranker: Reranker | None = None

    @property
    def default_reranker(self) -> Reranker | None:
        """That of a search which does not say whether it wants one."""
        return self.reranker if self.settings.rerank_default else None


def query_vectors(queries: Mapping[str, str], encoder: Encoder) -> dict[str, npt.NDArray[np.float32]]:
    """The vector of each query."""
    return dict(zip(queries, encoder.encode_queries(list(queries.values())), strict=True))
