"""Cross-encoders as rerankers: one in this process, or one behind ``POST /v1/rerank``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx2 as httpx
import numpy as np
import orjson

from app.breaker import Breaker, BreakerOpen, Trial
from app.config import Settings
from app.deadline import Deadline
from app.errors import ConfigurationError, DeadlineExceeded, Overloaded, RerankerError, RerankerUnavailable
from app.passage import embedding_text
from app.search.reranking import Rated, Scores, Subject
from reranker.cross_encoder import CrossEncoder
from reranker.errors import ConfigurationError as BadModel
from reranker.errors import DeadlinePassed, InferenceError
from reranker.errors import Overloaded as QueueFull
from reranker.model_folder import ModelSettings, load_settings
from reranker.scheduler import MicroBatcher

DEPTH = 20
_WEIGHT = 0.5
"""Of a server that does not say what was measured for its model."""
_BLOCK = 5
_REMOTE_BLOCK = 10
_CONNECT_S = 0.25
_REST_S = 2.0
"""How long a server is left alone that could not be reached, or failed `_FAILURES` times on end."""
_FAILURES = 3
_FAIR_S = 0.1
"""Silence for less says nothing about the server: the caller had no more time."""
_AWAY = frozenset({502, 503, 504})
_LARGEST_ANSWER = 4 * 1024 * 1024


class _Scorer(Protocol):
    """Scores texts against a query."""

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> Rated: ...

    def upper_bound(self, fused: float) -> float: ...


class _Scoring:
    """One query's way through a cross-encoder."""

    def __init__(self, owner: _Scorer, query: str, block: int) -> None:
        self._owner = owner
        self._query = query
        self._block = block

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """Equal blocks; what is scored before the time is up counts."""
        whole, rest = divmod(len(subjects), self._block)
        return [self._block] * whole + ([rest] if rest else [])

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Probabilities of relevance, shape (n,)."""
        texts = [embedding_text(item.hit.title, item.hit.section_heading, item.hit.text) for item in subjects]
        return self._owner.score_texts(self._query, texts, deadline).scores

    def upper_bound(self, fused: float) -> float:
        """As calibrated with the model."""
        return self._owner.upper_bound(fused)


class LocalCrossEncoder:
    """A cross-encoder in this process, shared by all requests through one bounded queue. Thread-safe."""

    calibrated = True
    reads_tokens = False
    depth = DEPTH

    def __init__(self, settings: Settings) -> None:
        """Load the model of `reranker_model`.

        Raises:
            ConfigurationError: the folder is unusable; says what was expected.
        """
        assert settings.reranker_model is not None  # noqa: S101 - checked by the caller
        try:
            model = CrossEncoder(
                settings.reranker_model, threads=settings.reranker_threads, provider=settings.reranker_provider
            )
        except BadModel as error:
            raise ConfigurationError(f"BRAID_RERANKER_MODEL: {error.detail}") from error
        self.name = f"cross-encoder/{model.name}"
        self._settings: ModelSettings = model.settings
        self.weight = model.settings.weight
        self._batcher = MicroBatcher(model)

    def encode_query(self, text: str) -> None:
        """A cross-encoder has no vectors."""
        return

    def begin(self, query: str, encoded: object | None) -> _Scoring:
        return _Scoring(self, query, _BLOCK)

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> Rated:
        """Probability that each text is relevant.

        Raises:
            DeadlineExceeded, Overloaded, RerankerError.
        """
        try:
            scored = self._batcher.score(query, texts, timeout_s=deadline.remaining_s("rerank"))
        except DeadlinePassed as error:
            raise DeadlineExceeded(f"timeout_ms={deadline.budget_ms} was spent in the reranker") from error
        except QueueFull as error:
            raise Overloaded(error.detail, retry_after_s=error.retry_after_s) from error
        except InferenceError as error:
            raise RerankerError(error.detail) from error
        return Rated(self._settings.probability(scored.logits), scored.truncated)

    def upper_bound(self, fused: float) -> float:
        """Of the probability of a passage with this normalised fused score."""
        return float(self._settings.upper_bound(np.array([fused]))[0])

    def close(self) -> None:
        """End its thread; what waits is finished first, for a second at most."""
        self._batcher.close(timeout_s=1.0)


class RemoteCrossEncoder:
    """A server that speaks ``POST /v1/rerank``; Braid's own also says what its model was measured with. Thread-safe.

    A server that is away is left alone for `_REST_S`, so that searches do not wait for it one after the other; the
    first request after that tries again.
    """

    calibrated = True
    reads_tokens = False
    depth = DEPTH

    def __init__(self, settings: Settings) -> None:
        headers = {"Content-Type": "application/json"}
        if settings.reranker_key is not None:
            headers["Authorization"] = f"Bearer {settings.reranker_key.get_secret_value()}"
        self._client = httpx.Client(base_url=(settings.reranker_url or "").rstrip("/"), headers=headers)
        self._lock = threading.Lock()
        self._breaker = Breaker("the reranker's server", failures=_FAILURES, rest_s=_REST_S, label="reranker")
        self._info: ModelSettings | None = None
        self._asked = False
        with contextlib.suppress(RerankerUnavailable, httpx.TimeoutException):  # it may come later
            self._learn(httpx.Timeout(_CONNECT_S), Trial())

    @property
    def name(self) -> str:
        return f"cross-encoder/{self._info.name if self._info else 'remote'}"

    @property
    def weight(self) -> float:
        return self._info.weight if self._info else _WEIGHT

    def encode_query(self, text: str) -> None:
        """A cross-encoder has no vectors."""
        return

    def begin(self, query: str, encoded: object | None) -> _Scoring:
        return _Scoring(self, query, _REMOTE_BLOCK)

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> Rated:
        """Probability that each text is relevant.

        Raises:
            DeadlineExceeded, Overloaded, RerankerError, RerankerUnavailable.
        """
        left = deadline.remaining_s("rerank")
        try:
            with self._breaker.calling() as call:
                return self._score(query, texts, left, call)
        except BreakerOpen as error:
            raise RerankerUnavailable("the reranker's server could not be reached a moment ago") from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded(f"timeout_ms={deadline.budget_ms} was spent in the reranker") from error

    def _score(self, query: str, texts: Sequence[str], left: float, call: Trial) -> Rated:
        body: dict[str, Any] = {"query": query, "documents": list(texts), "return_documents": False}
        timeout = httpx.Timeout(left, connect=min(left, _CONNECT_S))
        self._learn(timeout, call)
        if self._info is not None:  # our own server drops what would come too late
            body["timeout_ms"] = max(1, int(left * 1000))
        answer = self._send("POST", "/v1/rerank", timeout, call, orjson.dumps(body))
        return _read_answer(answer, len(texts))

    def upper_bound(self, fused: float) -> float:
        """As its server says; 1 where it does not."""
        return float(self._info.upper_bound(np.array([fused]))[0]) if self._info else 1.0

    def close(self) -> None:
        """Let the connections go."""
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
            raise RerankerUnavailable("the connection to the reranker's server broke") from error
        if response.status_code in _AWAY:
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
            raise RerankerError("the reranker's server answered with something that is no JSON") from error

    def _learn(self, timeout: httpx.Timeout, call: Trial) -> None:
        """What the server says of its model, asked once; another maker's server says nothing that we know."""
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
    """Look at the folder's files without loading the weights. Raises ConfigurationError."""
    try:
        load_settings(folder)
    except BadModel as error:
        raise ConfigurationError(f"BRAID_RERANKER_MODEL: {error.detail}") from error


def _read_answer(answer: Any, count: int) -> Rated:
    """Scores in the order of the documents. Raises RerankerError where any is missing or no number."""
    scores = np.full(count, np.nan)
    try:
        for item in answer["results"]:
            index = item["index"]
            if not isinstance(index, int) or not 0 <= index < count:
                raise ValueError(index)
            scores[index] = float(item["relevance_score"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RerankerError("the reranker's server answered with something that is no list of scores") from error
    if not np.isfinite(scores).all():
        raise RerankerError("the reranker's server left out scores, or gave some that are no numbers")
    truncated = answer.get("truncated")
    return Rated(scores, truncated if isinstance(truncated, int) else None)


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.1, float(response.headers.get("Retry-After", "1")))
    except ValueError:  # a date is allowed, too
        return 1.0
