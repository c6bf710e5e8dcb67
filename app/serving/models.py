"""Use cases of the service's own models: reranking and embedding of texts. Each waits for its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.deadline import Deadline
from app.embedding.text_encoder import TextEncoder
from app.errors import FeatureDisabled, FieldProblem, InvalidInput
from app.gateway.admission import Admission
from app.search.reranking import Reranker

BATCH = 32
"""Texts that are embedded in one turn."""


@dataclass(frozen=True, slots=True)
class RankedTexts:
    """Result of reranking: `ranking` has (index of the text, score), best first; ties in the order sent.

    `truncated`: number of texts that the model read only in part; None if unknown.
    """

    model: str
    ranking: tuple[tuple[int, float], ...]
    truncated: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """Result of embedding; `vectors`: float32, one row per text."""

    model: str
    vectors: npt.NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class RerankUseCase:
    """Ranks callers' own texts. `timeout_ms` is the default budget. Thread-safe."""

    admission: Admission
    reranker: Reranker | None
    timeout_ms: int

    def run(
        self,
        query: str,
        texts: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        max_tokens: int | None = None,
        timeout_ms: int | None = None,
    ) -> RankedTexts:
        """Rank `texts` by relevance to `query`.

        Args:
            model: model that the caller expects; None: any.
            top_n: number of texts to return; None: all.
            max_tokens: tokens of each text that are read; None: what the model can read.

        Raises:
            FeatureDisabled: the service has no reranker.
            InvalidInput: it has another model.
            Overloaded, DeadlineExceeded, RerankerError, EncoderError.
        """
        deadline = Deadline.after(timeout_ms or self.timeout_ms)
        reranker = self.reranker
        if reranker is None:
            raise FeatureDisabled(
                "this service has no reranker: configure a cross-encoder in BRAID_RERANKER_MODEL or "
                "BRAID_RERANKER_URL, or use an embedding model with token vectors"
            )
        _require_model(model, reranker.name)
        warnings = []
        if top_n is not None and top_n > len(texts):
            warnings.append(f"top_n {top_n} is more than the {len(texts)} documents: all are returned")
        with self.admission.enter(deadline):
            rated = reranker.score_texts(query, texts, deadline, max_tokens=max_tokens)
        order = np.argsort(-rated.scores, kind="stable")[:top_n].tolist()
        ranking = tuple((place, float(rated.scores[place])) for place in order)
        return RankedTexts(reranker.name, ranking, rated.truncated, tuple(warnings))


@dataclass(frozen=True, slots=True)
class EmbedUseCase:
    """Embeds callers' own texts. `timeout_ms` is the budget of a batch of `BATCH` texts. Thread-safe.

    Each batch waits for its turn, so that searches go between the batches of a long list.
    """

    admission: Admission
    encoder: TextEncoder
    timeout_ms: int

    def run(
        self,
        texts: Sequence[str],
        kind: Literal["query", "passage"],
        *,
        model: str | None = None,
        dimensions: int | None = None,
    ) -> EmbeddedTexts:
        """Embed `texts`, one at least.

        Args:
            kind: selects the prefix of models such as e5.
            model: model that the caller expects; None: any.
            dimensions: dimensions that the caller expects; None: the model's.

        Raises:
            InvalidInput: the service has another model, or other dimensions.
            Overloaded, DeadlineExceeded, EncoderError.
        """
        encoder = self.encoder
        _require_model(model, encoder.name)
        if dimensions is not None and dimensions != encoder.dimension:
            message = (
                f"dimensions {dimensions} is not available: the vectors of {encoder.name} have {encoder.dimension}"
            )
            raise InvalidInput(message, problems=[FieldProblem(("body", "dimensions"), message)])
        vectors, tokens = [], 0
        for start in range(0, len(texts), BATCH):
            batch, deadline = texts[start : start + BATCH], Deadline.after(self.timeout_ms)
            timely = encoder.within(deadline)
            encode = timely.encode_queries if kind == "query" else timely.encode_passages
            with self.admission.enter(deadline):
                vectors.append(encode(batch))
                tokens += sum(len(encoder.token_offsets(text)) for text in batch)
        return EmbeddedTexts(encoder.name, np.concatenate(vectors), tokens)


def _require_model(expected: str | None, served: str) -> None:
    """Raise InvalidInput if the caller expects another model than the served one."""
    if expected is not None and expected != served:
        message = (
            f"model {expected!r} is not served: this service has {served!r} "
            "(BRAID_MODEL_ALIASES gives it the names that clients have wired in)"
        )
        raise InvalidInput(message, problems=[FieldProblem(("body", "model"), message)])
