"""An encoder elsewhere: any server that speaks OpenAI's ``POST /v1/embeddings``.

Such a server can be given another model overnight, and nothing in its answers would tell. So the vectors of a few fixed
texts (`REFERENCE_TEXTS`) are kept with the index's model and compared with the server's: by `check`, which queries
repeat every `_TRUSTED_S` seconds, and, while indexing, by a reference text sent with each batch of passages, so that no
passage gets a vector of another model.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Self, TypeVar

import numpy as np
import numpy.typing as npt
import stamina
from tokenizers import Tokenizer

from app.addresses import openai_base
from app.config import Settings
from app.config.retrieval import EmbeddingSettings
from app.deadline import Deadline
from app.embedding.encoder import load_tokenizer
from app.embedding.model_folder import (
    DEFAULT_MAX_TOKENS,
    NO_PREFIX,
    NO_PREFIXES,
    Prefixes,
    folder_conventions,
    model_rules,
    tokenizer_folder,
)
from app.errors import EncoderError, EncoderUnavailable
from app.model_server import ModelServer, ServerBusy, ServerError, ServerRefused, ServerSilent, ServerUnreachable
from reranker.runtime.tokenizing import replace_surrogates

Vectors = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]
Kept = TypeVar("Kept")
Kind = Literal["query", "passage"]

REFERENCE_TEXTS = (
    "The ferry leaves the harbour at noon and returns before dark.",
    "Replace the filter cartridge after 500 hours of operation; see section 4.2.",
    "Der Vertrag endet mit Ablauf des dritten Jahres.",
    "def total(prices): return sum(prices) * 1.19",
)
"""Texts whose vectors identify a model. Changing one makes all kept vectors useless."""
SAME_MODEL = 0.99
"""Minimum cosine of two vectors of a reference text. The same weights in fp16 or bf16, on other hardware or in another
batch reach .999; int8 has a median of .988 to fp32, and other models are far away (docs/embedding.md)."""
_BATCH = 32
"""Texts of one request: what text-embeddings-inference takes at most unless told otherwise."""
_TRUSTED_S = 60.0
"""Seconds for which a comparison holds."""
_RETRIED_S = 2.0
"""Seconds for which a failed comparison is not repeated."""
_CONNECT_S = 1.0
_TIMEOUT_S = 10.0
"""Seconds of a call that has no deadline."""
_BATCH_TIMEOUT_S = 60.0
"""The same while indexing: a server on a few busy cores takes so long for a batch."""
_PATIENCE_S = 60.0
"""Seconds for which indexing waits for a server that is away, as for OpenSearch."""
_LARGEST_ANSWER = 32 * 1024 * 1024
"""Several times a batch of 4,096 dimensions as decimal numbers."""
_CHARACTERS_PER_TOKEN = 32
"""More than a model's window holds."""
_REMEDIES = {
    400: "the text or the batch may be too long for it: lower BRAID_EMBEDDING_MAX_TOKENS, or let the server cut texts",
    401: "check BRAID_EMBEDDING_KEY",
    403: "check BRAID_EMBEDDING_KEY",
    404: "check BRAID_EMBEDDING_URL and BRAID_EMBEDDING_MODEL, which is the model's name there",
    413: "the text or the batch is too long for it: lower BRAID_EMBEDDING_MAX_TOKENS, or raise the server's limits",
    422: "it may not know BRAID_EMBEDDING_MODEL, or a text is too long for it: lower BRAID_EMBEDDING_MAX_TOKENS",
}


@dataclass(slots=True)
class _Knowledge:
    """Knowledge of the server's vectors, shared by all views of an encoder."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by the one comparison under way."""
    dimension: int | None = None
    reference: Vectors | None = None
    compared_at: float = float("-inf")
    problem: str | None = None
    """The result of the last comparison; None: as expected."""

    @property
    def compared(self) -> bool:
        """Return whether the last comparison still holds."""
        return time.monotonic() - self.compared_at < (_TRUSTED_S if self.problem is None else _RETRIED_S)


class RemoteEncoder:
    """The encoder behind BRAID_EMBEDDING_URL. Thread-safe. Nothing is sent before the first call.

    It has no token vectors: late interaction needs a model in this process.
    """

    gives_tokens = False

    def __init__(
        self,
        embedding: EmbeddingSettings,
        tokenizer: Tokenizer,
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        prefixes: Prefixes = NO_PREFIXES,
        indexing: bool = False,
    ) -> None:
        """Create the client.

        Args:
            tokenizer: counts tokens, for passages and for the cut at `max_tokens`. Where it is not the model's own,
                the server must cut what is still too long.
            max_tokens: maximum tokens of a text, including special tokens; longer texts are cut.
            prefixes: put before queries and passages here; a server with ``input_type`` adds its own.
            indexing: see `load_text_encoder`.
        """
        self.name = embedding.id
        self.max_tokens = max_tokens
        self.passage_prefix = prefixes.passage
        self._room = max_tokens - tokenizer.num_special_tokens_to_add(False)
        self.provider = "behind BRAID_EMBEDDING_URL"
        self._tokenizer = tokenizer
        self._prefixes = prefixes
        self._sends_type = embedding.send_input_type
        self._indexing = indexing
        self._deadline: Deadline | None = None
        self._known = _Knowledge()
        self._server = ModelServer(
            openai_base(embedding.url or ""),
            embedding.key,
            name="the embedding server",
            label="encoder",
            connect_s=_CONNECT_S,
            largest_answer=_LARGEST_ANSWER,
        )

    @property
    def dimension(self) -> int:
        """Dimensions of the vectors: of the kept reference, else the server is asked once. Raises EncoderError."""
        if self._known.dimension is None:
            self._known.dimension = self.encode_reference().shape[1]
        return self._known.dimension

    @property
    def problem(self) -> str | None:
        """Return what the last comparison with the reference found wrong; None: nothing, or there was none yet."""
        return self._known.problem

    @property
    def has_reference(self) -> bool:
        """Return whether there are vectors to compare with."""
        return self._known.reference is not None

    def within(self, deadline: Deadline) -> Self:
        """Return a view whose calls end by `deadline`; it shares connections and knowledge."""
        view = copy.copy(self)
        view._deadline = deadline
        return view

    def expect(self, reference: Vectors) -> None:
        """Compare with these vectors of `REFERENCE_TEXTS`, shape (n, dimension), from now on."""
        known = self._known
        if known.reference is None or not np.array_equal(known.reference, reference):
            known.reference, known.dimension = reference, reference.shape[1]
            known.compared_at, known.problem = float("-inf"), None

    def encode_reference(self) -> Vectors:
        """Return the server's vectors of `REFERENCE_TEXTS`, shape (n, dimension), as it embeds passages; an unavailable
        server is not waited for.

        Raises:
            EncoderError.
        """
        texts = [self._prefixes.passage + text for text in REFERENCE_TEXTS]
        return self._ask_once(texts, "passage", self._left_s(_TIMEOUT_S))

    def check(self) -> None:
        """Compare the server's vectors with the reference, unless that was done a moment ago or is being done.

        Raises:
            EncoderError: they differ; the message has the remedy. Without a reference nothing is compared.
            EncoderUnavailable: the server did not answer.
        """
        known = self._known
        # the first comparison is waited for, a later one is left to the thread that is at it
        if known.reference is not None and not known.compared and known.lock.acquire(timeout=self._waiting_s()):
            try:
                if not known.compared:
                    self._compare(self.encode_reference(), known.reference)
            finally:
                known.lock.release()
        if known.problem is not None:
            raise EncoderError(known.problem)

    def encode_query(self, text: str) -> Vectors:
        """Return the unit vector, shape (dimension,), of one query.

        Raises:
            EncoderUnavailable: the server can't be reached, is too slow or busy.
            EncoderError: it refused, its answer is unusable, or its vectors are not those of the index's model.
        """
        vector: Vectors = self.encode_queries([text])[0]
        return vector

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, shape (n, dimension), of many queries. Raises as `encode_query`."""
        self.check()
        return self._embed(texts, "query")

    def encode_passages(self, texts: Sequence[str], /) -> Vectors:
        """Return unit vectors, shape (n, dimension), in the order of `texts`. Raises as `encode_query`."""
        if not self._indexing:
            self.check()
        return self._embed(texts, "passage")

    def encode_query_with_tokens(self, text: str) -> tuple[Vectors, Vectors, TokenIds]:
        """Raise EncoderError: the API returns no token vectors."""
        return self._refuse_tokens()

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[Vectors, TokenIds], Kept], /
    ) -> tuple[Vectors, list[Kept]]:
        """Raise EncoderError: the API returns no token vectors."""
        return self._refuse_tokens()

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]:
        """Return the start and end of each token of `text`, in characters, without special tokens."""
        encoded = self._tokenizer.encode(replace_surrogates(text), add_special_tokens=False)
        offsets: list[tuple[int, int]] = encoded.offsets
        return offsets

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _refuse_tokens(self) -> NoReturn:
        raise EncoderError(
            f"the embedding server of {self.name!r} returns no token vectors: late interaction needs a model in the "
            "service (leave BRAID_EMBEDDING_URL out), or use a cross-encoder"
        )

    def _embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        prefix = self._prefixes.query if kind == "query" else self._prefixes.passage
        whole = [self._cut(prefix + text) for text in texts]
        reference = self._known.reference if self._indexing and kind == "passage" else None
        size = _BATCH if reference is None else _BATCH - 1
        found = []
        for start in range(0, len(whole), size):
            batch = whole[start : start + size]
            if reference is None:
                found.append(self._ask(batch, kind))
                continue
            vectors = self._ask([*batch, self._prefixes.passage + REFERENCE_TEXTS[0]], kind)
            self._compare(vectors[-1:], reference[:1])
            if self._known.problem is not None:
                raise EncoderError(self._known.problem)
            found.append(vectors[:-1])
        return np.concatenate(found) if found else np.empty((0, self.dimension), np.float32)

    def _cut(self, text: str) -> str:
        """Return the text, cut to the tokens that the model reads: a server may refuse longer ones."""
        text = replace_surrogates(text)
        if len(text) <= self._room:  # no token is shorter than a character
            return text
        text = text[: self.max_tokens * _CHARACTERS_PER_TOKEN]
        offsets = self.token_offsets(text)
        return text if len(offsets) <= self._room else text[: offsets[self._room - 1][1]]

    def _compare(self, vectors: Vectors, reference: Vectors) -> None:
        """Compare vectors of the same texts and keep the result."""
        known = self._known
        likeness = float((vectors * reference).sum(axis=1).min())
        alike = likeness >= SAME_MODEL
        known.problem = None if alike else self._other_vectors(f"a cosine of {likeness:.3f} for a reference text")
        known.compared_at = time.monotonic()

    def _ask(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return the unit vectors of one batch; while indexing, an unavailable server is waited for."""
        if not self._indexing:
            return self._ask_once(texts, kind, self._left_s(_TIMEOUT_S))
        for attempt in stamina.retry_context(
            on=EncoderUnavailable, attempts=None, timeout=self._left_s(_PATIENCE_S), wait_initial=0.2, wait_max=5.0
        ):
            with attempt:
                return self._ask_once(texts, kind, self._left_s(_BATCH_TIMEOUT_S))
        raise AssertionError("retry_context returns or raises")  # pragma: no cover

    def _ask_once(self, texts: Sequence[str], kind: Kind, timeout_s: float) -> Vectors:
        body: dict[str, object] = {"model": self.name, "input": list(texts), "encoding_format": "float"}
        if self._sends_type:
            body["input_type"] = kind
        with _own_errors(), self._server.calling() as call:
            answer = self._server.send("POST", "/embeddings", call, timeout_s=timeout_s, body=body)
        vectors = _read_vectors(answer, len(texts))
        known = self._known
        if known.dimension not in (None, vectors.shape[1]):
            known.problem = self._other_vectors(f"{vectors.shape[1]} dimensions, not {known.dimension}")
            known.compared_at = time.monotonic()
            raise EncoderError(known.problem)
        return vectors

    def _other_vectors(self, found: str) -> str:
        return (
            f"the embedding server answers other vectors than those kept for {self.name!r} ({found}): it has another "
            "model, precision or prompt. Start the earlier one again; or give the new one another "
            'BRAID_EMBEDDING_MODEL, and make a new index (docs/embedding.md, "An encoder elsewhere")'
        )

    def _left_s(self, most_s: float) -> float:
        if self._deadline is None:
            return most_s
        left = self._deadline.at - time.monotonic()
        if left <= 0:
            raise EncoderUnavailable("no time was left to ask the embedding server: retry with a larger timeout_ms")
        return min(left, most_s)

    def _waiting_s(self) -> float:
        """Return how long to wait for a comparison that another thread has begun."""
        return 0.0 if self._known.compared_at > 0 else self._left_s(_TIMEOUT_S)


def load_remote_encoder(settings: Settings, *, indexing: bool = False) -> RemoteEncoder:
    """Return the encoder behind BRAID_EMBEDDING_URL.

    Raises:
        ConfigurationError: there is no tokenizer to count with, or nothing says which prefixes the model needs.
    """
    embedding = settings.embedding
    if embedding.send_input_type:  # the server adds the model's own prefixes
        own = {"query": embedding.query_prefix, "passage": embedding.passage_prefix}
        settings = settings.with_values(**{f"embedding_{kind}_prefix": text or NO_PREFIX for kind, text in own.items()})
    rules = model_rules(settings, folder_conventions(settings))
    return RemoteEncoder(
        embedding,
        load_tokenizer(tokenizer_folder(settings)),
        max_tokens=rules.max_tokens,
        prefixes=rules.prefixes,
        indexing=indexing,
    )


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except (ServerUnreachable, ServerSilent, ServerBusy) as error:
        raise EncoderUnavailable(f"the embedding server {error}: see BRAID_EMBEDDING_URL and its log") from error
    except ServerRefused as error:
        remedy = _REMEDIES.get(error.status, "see its log")
        kind = EncoderUnavailable if error.status in (502, 503, 504) else EncoderError
        raise kind(f"the embedding server {error}: {remedy}") from error
    except ServerError as error:
        raise EncoderError(f"the embedding server {error}: BRAID_EMBEDDING_URL must speak OpenAI's API") from error


def _read_vectors(answer: Any, count: int) -> Vectors:
    """Return the unit vectors of an answer, shape (count, d), in the order of the texts.

    Raises:
        EncoderError: one is missing, given twice, of another length, not of numbers, not finite, or zero.
    """
    try:
        rows: list[Any] = [None] * count
        for item in answer["data"]:
            index = item["index"]
            if type(index) is not int or not 0 <= index < count or rows[index] is not None:
                raise ValueError(index)
            rows[index] = np.asarray(item["embedding"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise EncoderError(
            "the embedding server returned no list of embeddings: BRAID_EMBEDDING_URL must speak OpenAI's API"
        ) from error
    missing = sum(row is None for row in rows)
    if missing:
        raise EncoderError(f"the embedding server returned {count - missing} vectors for {count} texts: see its log")
    if any(row.ndim != 1 or row.dtype.kind not in "fi" or not row.size for row in rows):
        raise EncoderError("the embedding server returned an embedding that is not a list of numbers: see its log")
    lengths = sorted({row.size for row in rows})
    if len(lengths) > 1:
        raise EncoderError(
            f"the embedding server returned vectors of {lengths[0]} and of {lengths[-1]} dimensions in one answer: "
            "see its log"
        )
    vectors = np.stack(rows).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise EncoderError("the embedding server returned a vector that is not finite or is zero: see its log")
    unit: Vectors = (vectors / norms).astype(np.float32)
    return unit
