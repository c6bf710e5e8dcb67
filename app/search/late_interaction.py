"""Late interaction: MaxSim over stored token vectors; passages without them are encoded on the fly."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from app.deadline import Deadline
from app.embedding.text_encoder import TextEncoder
from app.embedding.token_vectors import QueryTokens, TokenVectors
from app.errors import DeadlineExceeded
from app.passage import embedding_text
from app.search.reranking import Scores, Subject, TextScores, Vector

TokenIds = npt.NDArray[np.int64]

NAME = "late-interaction"
_BLOCK = 4
"""Passages per on-the-fly batch: few, so that little time is lost at the deadline."""
_CHARACTERS = 32_768
"""Characters of a text that are tokenised: more than a model's window holds."""
_SPECIAL = 2
_CACHE_BYTES = 32 * 1024 * 1024
_GUESS_S = 0.05
"""Estimated seconds to encode a passage before one was timed."""
_MEMORY = 0.8
_FORGET = 0.95
"""Decay per rejection, so that one slow moment does not stop on-the-fly encoding for good."""


class LateInteraction:
    """The passage encoder as its own reranker. Thread-safe.

    Vectors encoded on the fly are cached by passage id, which identifies the content, and used only for passages that
    the store has just returned with the caller's filters.
    """

    calibrated = False

    def __init__(self, encoder: TextEncoder, codec: TokenVectors, *, stored: bool) -> None:
        """Create the reranker; `stored` tells whether the store keeps token vectors."""
        self.name = f"{NAME}/{encoder.name}"
        self.weight = codec.weight
        self.depth = codec.depth
        self.reads_tokens = stored
        self._encoder = encoder
        self._room = encoder.max_tokens - _SPECIAL
        self._codec = codec
        self._lock = threading.Lock()
        self._made: LRUCache[str, bytes] = LRUCache(_CACHE_BYTES, getsizeof=len)
        self._seconds = _GUESS_S

    def encode_query(self, text: str) -> tuple[Vector, QueryTokens]:
        """Return the query's vector and its tokens' vectors from one inference. Raises EncoderError."""
        vector, hidden, tokens = self._encoder.encode_query_with_tokens(text)
        return vector, self._codec.query(hidden, tokens)

    def begin(self, query: str, encoded: object | None) -> _Scoring:
        """Prepare a query that `encode_query` may have seen. Raises EncoderError."""
        return _Scoring(self, encoded if isinstance(encoded, QueryTokens) else self.encode_query(query)[1])

    def score_texts(
        self, query: str, texts: Sequence[str], deadline: Deadline, *, max_tokens: int | None = None
    ) -> TextScores:
        """Return MaxSim of each text, of which at most `max_tokens` are read; the texts are not in the store.

        Raises:
            DeadlineExceeded: at the measured speed they can't be done in time.
            EncoderError.
        """
        tokens = self.encode_query(query)[1]
        room = min(max_tokens or self._room, self._room)
        truncated = 0
        packed: list[bytes] = []
        for start in range(0, len(texts), _BLOCK):
            part = texts[start : start + _BLOCK]
            read = [self._cut(text[:_CHARACTERS], room) for text in part]
            packed += self._encode(read, deadline, waiting=len(texts) - start)
            truncated += sum(text != whole for text, whole in zip(read, part, strict=True))
        return TextScores(self._codec.score(tokens, packed).astype(np.float64), truncated)

    def reads(self, tokens: bytes | None) -> bool:
        """Return whether stored token vectors are of this model's codec."""
        return self._codec.reads(tokens)

    def packed_tokens(self, subject: Subject) -> bytes | None:
        """Return the packed token vectors of a passage, stored or cached; None if they must be encoded."""
        if self.reads(subject.tokens):
            return subject.tokens
        with self._lock:
            return self._made.get(subject.hit.id)

    def close(self) -> None:
        """Do nothing: the encoder is shared."""

    def score(self, query: QueryTokens, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Return MaxSim of each passage, shape (n,). Raises DeadlineExceeded, EncoderError."""
        packed = [self.packed_tokens(subject) for subject in subjects]
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

    def _cut(self, text: str, tokens: int) -> str:
        offsets = self._encoder.token_offsets(text)
        return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]

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
    """Late interaction's scoring of one query."""

    def __init__(self, owner: LateInteraction, query: QueryTokens) -> None:
        self._owner = owner
        self._query = query

    def blocks(self, subjects: Sequence[Subject]) -> list[int]:
        """Return a single block if nothing must be encoded, which takes a few milliseconds."""
        missing = [place for place, subject in enumerate(subjects) if self._owner.packed_tokens(subject) is None]
        if not missing:
            return [len(subjects)]
        # each block ends after so many passages to encode
        ends = [place + 1 for place in missing[_BLOCK - 1 :: _BLOCK]]
        edges = sorted({*(end for end in ends if end < len(subjects)), len(subjects)})
        return [end - start for start, end in zip([0, *edges], edges, strict=False)]

    def score(self, subjects: Sequence[Subject], deadline: Deadline) -> Scores:
        """Return MaxSim, shape (n,)."""
        return self._owner.score(self._query, subjects, deadline)

    def upper_bound(self, fused: float) -> float:
        """Return 1: MaxSim is not a probability and has no bound."""
        return 1.0
