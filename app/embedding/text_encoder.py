"""The encoder as its callers see it, wherever it runs, and the choice of the one that the settings describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from app.config import Settings
from app.deadline import Deadline
from app.embedding.encoder import load_encoder
from app.embedding.remote import load_remote_encoder

Vectors = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]
Kept = TypeVar("Kept")


class TextEncoder(Protocol):
    """Texts to unit vectors: `app.embedding.encoder.Encoder` in this process, or `remote.RemoteEncoder`."""

    @property
    def name(self) -> str:
        """The name that the store records as `embedding_model`."""
        ...

    @property
    def dimension(self) -> int:
        """Dimensions of the vectors. Raises EncoderError while a server that must be asked for them is away."""
        ...

    @property
    def max_tokens(self) -> int:
        """Maximum tokens of a text, including special tokens; longer texts are cut."""
        ...

    @property
    def passage_prefix(self) -> str:
        """Prefix of each passage; it takes some of `max_tokens`."""
        ...

    @property
    def gives_tokens(self) -> bool:
        """Return whether the model returns token vectors."""
        ...

    @property
    def provider(self) -> str:
        """Place where the model runs, for people."""
        ...

    def within(self, deadline: Deadline) -> Self:
        """Return the encoder for work that must end by `deadline`."""
        ...

    def encode_query(self, text: str) -> Vectors: ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...

    def encode_passages(self, texts: Sequence[str], /) -> Vectors: ...

    def encode_query_with_tokens(self, text: str) -> tuple[Vectors, Vectors, TokenIds]: ...

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[Vectors, TokenIds], Kept], /
    ) -> tuple[Vectors, list[Kept]]: ...

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]: ...


def load_text_encoder(settings: Settings, *, indexing: bool = False) -> TextEncoder:
    """Return the encoder of `settings`: the server of BRAID_EMBEDDING_URL if it is set, else the model.

    Args:
        indexing: the passages go into an index: a server is waited for, and each batch of its vectors is compared.

    Raises:
        ConfigurationError: the model, or the tokenizer of a server's model, is missing or broken. A server is not
            asked yet.
    """
    if settings.embedding.url is not None:
        return load_remote_encoder(settings, indexing=indexing)
    return load_encoder(settings)
