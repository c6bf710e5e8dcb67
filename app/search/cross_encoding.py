"""Cross-encoders as rerankers: one in this process, or one behind ``POST /v1/rerank``."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.breaker import Trial
from app.config.retrieval import RerankerSettings
from app.deadline import Deadline
from app.errors import ConfigurationError, DeadlineExceeded, Overloaded, RerankerError, RerankerUnavailable
from app.model_server import ModelServer, ServerBusy, ServerError, ServerSilent, ServerUnreachable
from app.passage import embedding_text
from app.search.reranking import Scores, Subject, TextScores
from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError as BadModel
from reranker.errors import DeadlinePassed, InferenceError
from reranker.errors import Overloaded as QueueFull
from reranker.model_folder import ModelSettings, load_settings, model_file
from reranker.scheduler import MicroBatcher

DEPTH = 20
_WEIGHT = 0.5
"""Weight for a server that does not report a measured one for its model."""
_BLOCK = 5
_REMOTE_BLOCK = 10
_CONNECT_S = 0.25
_LARGEST_ANSWER = 4 * 1024 * 1024


class _Scoring:
    """A cross-encoder's scoring of one query."""

    def __init__(self, owner: _CrossEncoderReranker, query: str) -> None:
        self._owner = owner
        self._query = query
        self._block = owner.block

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """Return equal blocks; blocks scored before the time is up count."""
        whole, rest = divmod(len(subjects), self._block)
        return [self._block] * whole + ([rest] if rest else [])

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Return probabilities of relevance, shape (n,)."""
        texts = [embedding_text(item.hit.title, item.hit.section_heading, item.hit.text) for item in subjects]
        return self._owner.score_texts(self._query, texts, deadline).scores

    def upper_bound(self, fused: float) -> float:
        """Return the model's calibrated bound."""
        return self._owner.upper_bound(fused)


class _CrossEncoderReranker(ABC):
    """The parts that both cross-encoders share."""

    calibrated = True
    reads_tokens = False
    depth = DEPTH
    block: int
    """Passages that are scored at once."""

    def encode_query(self, text: str) -> None:
        """Return None: a cross-encoder has no vectors."""
        return

    def reads(self, tokens: bytes | None) -> bool:
        """Return False: a cross-encoder reads texts."""
        return False

    def begin(self, query: str, encoded: object | None) -> _Scoring:
        return _Scoring(self, query)

    @abstractmethod
    def score_texts(
        self, query: str, texts: Sequence[str], deadline: Deadline, *, max_tokens: int | None = None
    ) -> TextScores:
        """Return the probability that each text is relevant; at most `max_tokens` of it are read.

        Raises:
            DeadlineExceeded, Overloaded, RerankerError, RerankerUnavailable.
        """

    @abstractmethod
    def upper_bound(self, fused: float) -> float:
        """Return the upper bound of the probability of a passage with this normalised fused score; 1 if unknown."""


class LocalCrossEncoder(_CrossEncoderReranker):
    """A cross-encoder in this process, shared by all requests through one bounded queue. Thread-safe."""

    block = _BLOCK

    def __init__(self, reranker: RerankerSettings) -> None:
        """Load the model of `reranker_model`.

        Raises:
            ConfigurationError: the folder is unusable; the message says what was expected.
        """
        assert reranker.model is not None  # noqa: S101 - checked by the caller
        try:
            model = CrossEncoder(reranker.model, threads=reranker.threads, provider=reranker.provider)
        except BadModel as error:
            raise ConfigurationError(f"BRAID_RERANKER_MODEL: {error.detail}") from error
        self.name = f"cross-encoder/{model.name}"
        self._settings: ModelSettings = model.settings
        self.weight = model.settings.weight
        self._batcher = MicroBatcher(model)

    def score_texts(
        self, query: str, texts: Sequence[str], deadline: Deadline, *, max_tokens: int | None = None
    ) -> TextScores:
        try:
            left = deadline.remaining_s("rerank")
            scored = self._batcher.score(query, texts, timeout_s=left, max_document_tokens=max_tokens)
        except DeadlinePassed as error:
            raise DeadlineExceeded(f"timeout_ms={deadline.budget_ms} was spent in the reranker") from error
        except QueueFull as error:
            raise Overloaded(error.detail, retry_after_s=error.retry_after_s) from error
        except InferenceError as error:
            raise RerankerError(error.detail) from error
        return TextScores(self._settings.probability(scored.logits), scored.truncated)

    def upper_bound(self, fused: float) -> float:
        return float(self._settings.upper_bound(np.array([fused]))[0])

    def close(self) -> None:
        """Stop the thread; waiting work is finished first, within a second."""
        self._batcher.close(timeout_s=1.0)


class RemoteCrossEncoder(_CrossEncoderReranker):
    """A server with ``POST /v1/rerank``; Braid's own also reports the measured settings of its model. Thread-safe.

    An unavailable server is not called for a moment, so that searches do not wait for it one after the other.
    """

    block = _REMOTE_BLOCK

    def __init__(self, reranker: RerankerSettings) -> None:
        self._server = ModelServer(
            reranker.url or "",
            reranker.key,
            name="the reranker's server",
            label="reranker",
            connect_s=_CONNECT_S,
            largest_answer=_LARGEST_ANSWER,
        )
        self._lock = threading.Lock()
        self._info: ModelSettings | None = None
        self._asked = False
        with contextlib.suppress(ServerError):  # it may become available later
            self._learn(_CONNECT_S, Trial())

    @property
    def name(self) -> str:
        return f"cross-encoder/{self._info.name if self._info else 'remote'}"

    @property
    def weight(self) -> float:
        return self._info.weight if self._info else _WEIGHT

    def score_texts(
        self, query: str, texts: Sequence[str], deadline: Deadline, *, max_tokens: int | None = None
    ) -> TextScores:
        left = deadline.remaining_s("rerank")
        try:
            with self._server.calling() as call:
                return self._score(query, texts, left, call, max_tokens)
        except ServerSilent as error:
            raise DeadlineExceeded(f"timeout_ms={deadline.budget_ms} was spent in the reranker") from error
        except ServerBusy as error:
            raise Overloaded("the reranker's queue is full", retry_after_s=error.retry_after_s) from error
        except ServerUnreachable as error:
            raise RerankerUnavailable(f"the reranker's server {error}; see BRAID_RERANKER_URL") from error
        except ServerError as error:
            raise RerankerError(f"the reranker's server {error}") from error

    def _score(self, query: str, texts: Sequence[str], left: float, call: Trial, max_tokens: int | None) -> TextScores:
        body: dict[str, Any] = {"query": query, "documents": list(texts), "return_documents": False}
        if max_tokens is not None:
            body["max_tokens_per_doc"] = max_tokens
        self._learn(left, call)
        if self._info is not None:  # our own server drops what would come too late
            body["timeout_ms"] = max(1, int(left * 1000))
        return _read_answer(self._server.send("POST", "/v1/rerank", call, timeout_s=left, body=body), len(texts))

    def upper_bound(self, fused: float) -> float:
        return float(self._info.upper_bound(np.array([fused]))[0]) if self._info else 1.0

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _learn(self, timeout_s: float, call: Trial) -> None:
        """Read the server's description of its model, once; another maker's server has none that we know."""
        with self._lock:
            if self._asked:
                return
            self._asked = True
        try:
            found = self._server.send("GET", "/info", call, timeout_s=timeout_s)
            self._info = ModelSettings(name=found["model"], weight=found["weight"], bound=found.get("bound"))
        except (ServerUnreachable, ServerSilent):
            self._asked = False
            raise
        except (ServerError, KeyError, TypeError, ValueError):
            return


def check_model(folder: Path) -> None:
    """Check the folder's files without loading the weights. Raises ConfigurationError."""
    try:
        model_file(folder, load_settings(folder))
    except BadModel as error:
        raise ConfigurationError(f"BRAID_RERANKER_MODEL: {error.detail}") from error


def _read_answer(answer: Any, count: int) -> TextScores:
    """Return scores in the order of the documents. Raises RerankerError if one is missing or not a number."""
    scores = np.full(count, np.nan)
    try:
        for item in answer["results"]:
            index = item["index"]
            if not isinstance(index, int) or not 0 <= index < count:
                raise ValueError(index)
            scores[index] = float(item["relevance_score"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RerankerError("the reranker's server returned no list of scores") from error
    if not np.isfinite(scores).all():
        raise RerankerError("the reranker's server omitted scores, or returned invalid ones")
    truncated = answer.get("truncated")
    return TextScores(scores, truncated if isinstance(truncated, int) else None)
