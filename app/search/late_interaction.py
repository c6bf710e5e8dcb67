"""Late interaction: MaxSim over the token vectors that the store keeps; passages that lack them are encoded anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from app.deadline import Deadline
from app.embedding.token_vectors import QueryTokens, TokenVectors
from app.errors import DeadlineExceeded
from app.passage import embedding_text
from app.search.reranking import Rated, Scores, Subject, Vector

TokenIds = npt.NDArray[np.int64]

NAME = "late-interaction"
_BLOCK = 4
"""Passages encoded at once on the fly: few enough that little time is lost when it runs out."""
_CHARACTERS = 32_768
"""Of a text that are tokenised: more than a model's window holds."""
_SPECIAL = 2
_CACHE_BYTES = 32 * 1024 * 1024
_GUESS_S = 0.05
"""What encoding a passage takes, before one has been timed."""
_MEMORY = 0.8
_FORGET = 0.95
"""For each refusal, so that one slow moment does not end encoding on the fly for good."""


class TokenEncoder(Protocol):
    """What late interaction needs of the embedding model."""

    @property
    def name(self) -> str: ...

    @property
    def max_tokens(self) -> int: ...

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]: ...

    def encode_query_with_tokens(self, text: str, /) -> tuple[Vector, Vector, TokenIds]: ...

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[Vector, TokenIds], bytes], /
    ) -> tuple[Vector, list[bytes]]: ...


class LateInteraction:
    """The passage encoder as its own reranker. Thread-safe.

    What is encoded on the fly is kept by passage id, which names its content, and only ever used for passages that
    the store has just given out under the caller's filters.
    """

    calibrated = False

    def __init__(self, encoder: TokenEncoder, codec: TokenVectors, *, stored: bool) -> None:
        """`stored`: whether the store keeps token vectors."""
        self.name = f"{NAME}/{encoder.name}"
        self.weight = codec.weight
        self.depth = codec.depth
        self.reads_tokens = stored
        self._encoder = encoder
        self._codec = codec
        self._lock = threading.Lock()
        self._made: LRUCache[str, bytes] = LRUCache(_CACHE_BYTES, getsizeof=len)
        self._seconds = _GUESS_S

    def encode_query(self, text: str) -> tuple[Vector, QueryTokens]:
        """The query's vector and its tokens', of one inference. Raises EncoderError."""
        vector, hidden, tokens = self._encoder.encode_query_with_tokens(text)
        return vector, self._codec.query(hidden, tokens)

    def begin(self, query: str, encoded: object | None) -> _Scoring:
        """Prepare for a query that `encode_query` may have seen. Raises EncoderError."""
        return _Scoring(self, encoded if isinstance(encoded, QueryTokens) else self.encode_query(query)[1])

    def score_texts(self, query: str, texts: Sequence[str], deadline: Deadline) -> Rated:
        """MaxSim of each text, none of them in the store.

        Raises:
            DeadlineExceeded: at the speed seen so far they would not be done in time.
            EncoderError.
        """
        tokens = self.encode_query(query)[1]
        truncated = 0
        packed: list[bytes] = []
        for start in range(0, len(texts), _BLOCK):
            part = texts[start : start + _BLOCK]
            read = [text[:_CHARACTERS] for text in part]
            packed += self._encode(read, deadline, waiting=len(texts) - start)
            truncated += sum(map(self._too_long, read))
        return Rated(self._codec.score(tokens, packed).astype(np.float64), truncated)

    def known(self, subject: Subject) -> bytes | None:
        """The packed vectors of a passage's tokens, stored or made before; None where they must be made."""
        if self._codec.reads(subject.tokens):
            return subject.tokens
        with self._lock:
            return self._made.get(subject.hit.id)

    def close(self) -> None:
        """There is nothing to let go: the encoder is others', too."""

    def score(self, query: QueryTokens, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """MaxSim of each passage, shape (n,). Raises DeadlineExceeded, EncoderError."""
        packed = [self.known(subject) for subject in subjects]
        missing = [place for place, item in enumerate(packed) if item is None]
        if missing:
            hits = [subjects[place].hit for place in missing]
            texts = [embedding_text(hit.title, hit.section_heading, hit.text) for hit in hits]
            fresh = self._encode(texts, deadline, waiting=len(texts))
            with self._lock:
                self._made.update({hit.id: item for hit, item in zip(hits, fresh, strict=True) if item})
            for place, item in zip(missing, fresh, strict=True):
                packed[place] = item
        return self._codec.score(query, packed).astype(np.float64)

    def _too_long(self, text: str) -> bool:
        return len(self._encoder.token_offsets(text)) > self._encoder.max_tokens - _SPECIAL

    def _encode(self, texts: Sequence[str], deadline: Deadline, *, waiting: int) -> list[bytes]:
        needed = self._seconds * waiting
        if deadline.remaining_s("rerank") < needed:
            self._seconds *= _FORGET
            raise DeadlineExceeded(
                f"{waiting} texts take about {needed:.1f} s to encode, more than is left of "
                f"timeout_ms={deadline.budget_ms}: send fewer, or allow more time"
            )
        started = time.perf_counter()
        _, packed = self._encoder.encode_passages_with_tokens(texts, self._codec.pack)
        spent = (time.perf_counter() - started) / len(texts)
        self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * spent
        return packed


class _Scoring:
    """One query's way through late interaction."""

    def __init__(self, owner: LateInteraction, query: QueryTokens) -> None:
        self._owner = owner
        self._query = query

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """All at once where nothing has to be encoded: that costs a few milliseconds."""
        missing = [place for place, subject in enumerate(subjects) if self._owner.known(subject) is None]
        if not missing:
            return [len(subjects)]
        # each block ends behind so many passages that have to be encoded
        ends = [place + 1 for place in missing[_BLOCK - 1 :: _BLOCK]]
        edges = sorted({*(end for end in ends if end < len(subjects)), len(subjects)})
        return [end - start for start, end in zip([0, *edges], edges, strict=False)]

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """MaxSim, shape (n,)."""
        return self._owner.score(self._query, subjects, deadline)

    def upper_bound(self, fused: float) -> float:
        """MaxSim is no probability: there is no bound."""
        return 1.0
