"""An encoder that needs no model: what is proven of writers has nothing to do with what their vectors say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

DIMENSION = 8
_WORD = re.compile(r"\w+|[^\w\s]")


class WordEncoder:
    """Counts words as tokens; a text's vector is made of its hash. An `app.ingest.cutting.Encoder`."""

    name = "words"
    gives_tokens = False
    max_tokens = 256
    passage_prefix = ""

    def __init__(self, dimension: int = DIMENSION) -> None:
        self.dimension = dimension

    def encode_passages(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]:
        """A vector for each text, always the same one."""
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        phases = np.arange(1, self.dimension + 1, dtype=np.float32)
        rows = np.cos(np.asarray(seeds, dtype=np.float64)[:, None] * phases).astype(np.float32)
        return np.asarray(rows, dtype=np.float32)

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], bytes], /
    ) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        """It has no vectors of tokens."""
        raise NotImplementedError

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]:
        """Where its words are."""
        return [match.span() for match in _WORD.finditer(text)]
