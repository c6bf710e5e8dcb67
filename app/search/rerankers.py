"""Which reranker a service has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.config import Settings
from app.deadline import Deadline
from app.embedding.encoder import Encoder
from app.embedding.token_vectors import TokenVectors, token_vectors_for
from app.errors import ConfigurationError
from app.search.cross_encoding import LocalCrossEncoder, RemoteCrossEncoder, check_model
from app.search.late_interaction import LateInteraction
from app.search.reranking import Rated, Reranker


class TextReranker(Reranker, Protocol):
    """A reranker that also takes texts that are not in the store: what ``POST /v1/rerank`` needs."""

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> Rated:
        """Scores in the order of the texts. Raises DeadlineExceeded, EncoderError, RerankerError, Overloaded."""
        ...

    def close(self) -> None: ...


def load_reranker(settings: Settings, encoder: Encoder) -> TextReranker | None:
    """The reranker that `settings` describe; None where there is none.

    Raises:
        ConfigurationError: the cross-encoder's folder is unusable, or late interaction can't be had.
    """
    wanted = settings.reranker
    if wanted == "none":
        return None
    if wanted != "late-interaction":
        if settings.reranker_model is not None:
            return LocalCrossEncoder(settings)
        if settings.reranker_url is not None:
            return RemoteCrossEncoder(settings)
    codec = _codec(encoder)
    if codec is not None and (settings.token_vectors or wanted == "late-interaction"):
        return LateInteraction(encoder, codec, stored=settings.token_vectors)
    if wanted == "late-interaction":
        raise ConfigurationError(
            f"BRAID_RERANKER=late-interaction: there is no token projection for the embedding model {encoder.name!r}; "
            f"use all-MiniLM-L6-v2, make one (docs/late-interaction.md), or name a cross-encoder"
        )
    return None


def check_reranker(settings: Settings) -> None:
    """Raise ConfigurationError where the cross-encoder's folder is not one, before anything is started for it."""
    if settings.reranker_model is not None and settings.reranker not in ("none", "late-interaction"):
        check_model(settings.reranker_model)


def _codec(encoder: Encoder) -> TokenVectors | None:
    return token_vectors_for(encoder.name, encoder.dimension) if encoder.gives_tokens else None
