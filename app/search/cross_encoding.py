"""Cross-encoders as rerankers: one in this process, or one behind ``POST /v1/rerank``."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import orjson

from app.breaker import Breaker, BreakerOpen, Trial
from app.config.retrieval import RerankerSettings
from app.deadline import Deadline
from app.errors import ConfigurationError, DeadlineExceeded, Overloaded, RerankerError, RerankerUnavailable
from app.passage import embedding_text
from app.search.reranking import Scores, Subject, TextScores
from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError as BadModel
from reranker.errors import DeadlinePassed, InferenceError
from reranker.errors import Overloaded as QueueFull
from reranker.model_folder import ModelSettings, load_settings
from reranker.scheduler import MicroBatcher

DEPTH = 20
_WEIGHT = 0.5
"""Weight for a server that does not report a measured one for its model."""
_BLOCK = 5
_REMOTE_BLOCK = 10
_CONNECT_S = 0.25
_REST_S = 2.0
"""Seconds without calls to a server that was unreachable, or failed `_FAILURES` times in a row."""
_FAILURES = 3
_FAIR_S = 0.1
"""Seconds of silence below which the server is not to blame: the caller had no more time."""
_UNAVAILABLE = frozenset({502, 503, 504})
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
    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> TextScores:
        """Return the probability that each text is relevant.

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

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> TextScores:
        try:
            scored = self._batcher.score(query, texts, timeout_s=deadline.remaining_s("rerank"))
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

    An unavailable server is not called for `_REST_S`, so that searches do not wait for it one after the other; the
    first request after that tries again.
    """

    block = _REMOTE_BLOCK

    def __init__(self, reranker: RerankerSettings) -> None:
        headers = {"Content-Type": "application/json"}
        if reranker.key is not None:
            headers["Authorization"] = f"Bearer {reranker.key.get_secret_value()}"
        self._client = httpx.Client(base_url=(reranker.url or "").rstrip("/"), headers=headers)
        self._lock = threading.Lock()
        self._breaker = Breaker("the reranker's server", failures=_FAILURES, rest_s=_REST_S, label="reranker")
        self._info: ModelSettings | None = None
        self._asked = False
        with contextlib.suppress(RerankerUnavailable, httpx.TimeoutException):  # it may become available later
            self._learn(httpx.Timeout(_CONNECT_S), Trial())

    @property
    def name(self) -> str:
        return f"cross-encoder/{self._info.name if self._info else 'remote'}"

    @property
    def weight(self) -> float:
        return self._info.weight if self._info else _WEIGHT

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> TextScores:
        left = deadline.remaining_s("rerank")
        try:
            with self._breaker.calling() as call:
                return self._score(query, texts, left, call)
        except BreakerOpen as error:
            raise RerankerUnavailable(
                "the reranker's server was unreachable a moment ago: try again in a few seconds"
            ) from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"timeout_ms={deadline.budget_ms} was spent in the reranker") from error

    def _score(self, query: str, texts: Sequence[str], left: float, call: Trial) -> TextScores:
        body: dict[str, Any] = {"query": query, "documents": list(texts), "return_documents": False}
        timeout = httpx.Timeout(left, connect=min(left, _CONNECT_S))
        self._learn(timeout, call)
        if self._info is not None:  # our own server drops what would come too late
            body["timeout_ms"] = max(1, int(left * 1000))
        answer = self._send("POST", "/v1/rerank", timeout, call, orjson.dumps(body))
        return _read_answer(answer, len(texts))

    def upper_bound(self, fused: float) -> float:
        return float(self._info.upper_bound(np.array([fused]))[0]) if self._info else 1.0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, path: str, timeout: httpx.Timeout, call: Trial, content: bytes | None = None) -> Any:
        try:
            response = self._client.request(method, path, content=content, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            call.gone()
            raise RerankerUnavailable("the reranker's server can't be reached: see BRAID_RERANKER_URL") from error
        except httpx.TimeoutException:
            if (timeout.read or 0.0) >= _FAIR_S:
                call.failed()
            raise
        except httpx.HTTPError as error:
            call.failed()
            raise RerankerUnavailable("the connection to the reranker's server was interrupted") from error
        if response.status_code in _UNAVAILABLE:
            call.failed()
        else:
            call.ok()
        if response.status_code == 429:
            raise Overloaded("the reranker's queue is full", retry_after_s=_retry_after(response))
        if response.status_code != 200 or len(response.content) > _LARGEST_ANSWER:
            raise RerankerError(f"the reranker's server answered {response.status_code}")
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise RerankerError("the reranker's server returned invalid JSON") from error

    def _learn(self, timeout: httpx.Timeout, call: Trial) -> None:
        """Read the server's description of its model, once; another maker's server has none that we know."""
        with self._lock:
            if self._asked:
                return
            self._asked = True
        try:
            found = self._send("GET", "/info", timeout, call)
            self._info = ModelSettings(name=found["model"], weight=found["weight"], bound=found.get("bound"))
        except (RerankerUnavailable, httpx.TimeoutException):
            self._asked = False
            raise
        except (RerankerError, Overloaded, KeyError, TypeError, ValueError):
            return


def check_model(folder: Path) -> None:
    """Check the folder's files without loading the weights. Raises ConfigurationError."""
    try:
        load_settings(folder)
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


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.1, float(response.headers.get("Retry-After", "1")))
    except ValueError:  # a date is allowed, too
        return 1.0
