"""Choice of the service's reranker."""

from __future__ import annotations

from app.calibration import calibration_for
from app.config import Settings
from app.config.retrieval import RerankerSettings
from app.embedding.text_encoder import TextEncoder
from app.embedding.token_vectors import TokenVectors, token_vectors_for
from app.errors import ConfigurationError
from app.search.cross_encoding import LocalCrossEncoder, RemoteCrossEncoder, check_model
from app.search.late_interaction import LateInteraction
from app.search.reranking import Reranker


def load_reranker(settings: Settings, encoder: TextEncoder) -> Reranker | None:
    """Return the reranker of `settings`, or None.

    Raises:
        ConfigurationError: the cross-encoder's folder is unusable, or late interaction is not available.
    """
    wanted = settings.reranker.kind
    if wanted == "none":
        return None
    if wanted != "late-interaction":
        if settings.reranker.model is not None:
            return LocalCrossEncoder(settings.reranker)
        if settings.reranker.url is not None:
            return RemoteCrossEncoder(settings.reranker)
    codec = _codec(settings, encoder)
    if codec is not None and (settings.index.token_vectors or wanted == "late-interaction"):
        return LateInteraction(encoder, codec, stored=settings.index.token_vectors)
    if wanted == "late-interaction":
        raise ConfigurationError(
            f"BRAID_RERANKER=late-interaction: there is no token projection for the embedding model {encoder.name!r}; "
            f"make one with `braid calibrate` (docs/calibration.md), or configure a cross-encoder"
        )
    return None


def check_reranker(reranker: RerankerSettings) -> None:
    """Raise ConfigurationError for an unusable cross-encoder folder, before anything is started."""
    if reranker.model is not None and reranker.kind not in ("none", "late-interaction"):
        check_model(reranker.model)


def _codec(settings: Settings, encoder: TextEncoder) -> TokenVectors | None:
    if not encoder.gives_tokens:
        return None
    return token_vectors_for(calibration_for(settings.embedding, encoder.name), encoder.dimension)
