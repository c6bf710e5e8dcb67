"""Encoder of text to vectors: tokenise, run the ONNX model, pool, normalise. No torch, no transformers."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from app.config import Settings
from app.deadline import Deadline
from app.embedding.conventions import Conventions
from app.embedding.model_folder import (
    DEFAULT_MAX_TOKENS,
    NO_PREFIXES,
    TOKENIZER_FILE,
    Prefixes,
    folder_conventions,
    model_file,
    model_folder,
    model_rules,
)
from app.embedding.providers import open_session
from app.errors import ConfigurationError, EncoderError
from reranker.runtime.batching import plan_batches
from reranker.runtime.model_files import MODEL_FILE
from reranker.runtime.session import RUNTIME_ERRORS, Provider
from reranker.runtime.tokenizing import replace_surrogates

Vectors = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]
Kept = TypeVar("Kept")

TOKENS_PER_THREAD = 512
"""Padded tokens of a batch per CPU thread: larger batches are no faster, and a query shares the
cores with one batch."""
TOKENS_ON_GPU = 16_384
ALONE = 1
"""A budget that leaves every text a batch of its own."""
_DYNAMIC = b"DynamicQuantize"

_LEAST_SHARE = 0.9
"""Smallest share of the table's rows that a tokenizer of the same model uses."""

_Pool = Callable[[npt.NDArray[Any], npt.NDArray[np.int64]], Vectors]
_INPUT_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Encoder:
    """A sentence-embedding model. Safe to share between threads; load it after a fork, never before.

    Queries have priority: `encode_query` never queues. It runs beside the one batch of passages that may be under way,
    and ONNX Runtime gives its calling thread a fair share of the cores. Callers of the batch methods take turns, batch
    by batch. (Holding batches back during a query was no better: benchmarks/encode.md.)
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        threads: int = 0,
        provider: Literal["auto", "cuda", "openvino", "cpu"] = "auto",
        prefixes: Prefixes = NO_PREFIXES,
        pooling: str | None = "mean",
        file: str = MODEL_FILE,
    ) -> None:
        """Load the model and ``tokenizer.json`` from `folder` and run them once as a test.

        Args:
            name: the name that the store records as `embedding_model`.
            max_tokens: maximum tokens of a text, including special tokens; longer texts are cut.
            threads: threads of one inference; 0 means one per core that this process may use.
            provider: execution provider; ``auto`` picks the best one available.
            prefixes: prefixes of queries and passages.
            pooling: how a text's vector is made of its tokens', ``mean`` or ``cls``, unless the model does it; other
                texts and None are refused then.
            file: the ONNX file's path in `folder`.

        Raises:
            ConfigurationError: files, provider, model inputs or `max_tokens` are not compatible.
        """
        self.name = name
        self.max_tokens = max_tokens
        self._prefixes = prefixes
        self._tokenizer = load_tokenizer(folder)
        self._prefix_tokens = {
            prefix: len(self._tokenizer.encode(prefix.rstrip(), add_special_tokens=False))
            for prefix in (prefixes.query, prefixes.passage)
        }
        self._room = max_tokens - self._tokenizer.num_special_tokens_to_add(False)
        threads = threads or len(os.sched_getaffinity(0))
        self.provider: Provider
        self._session, self.provider = open_session(folder / file, wanted=provider, threads=threads)
        self._budget = TOKENS_ON_GPU if self.provider == "cuda" else TOKENS_PER_THREAD * threads
        if _scales_by_batch(folder / file):
            self._budget = ALONE
        self._inputs = _input_types(self._session)
        self._output, self._pooled = _choose_output(self._session)
        self._pool = _mean if self._pooled else _pool(pooling, name)
        self._turn = threading.Lock()
        self.dimension = self._self_test()

    def within(self, deadline: Deadline) -> Self:
        """Return itself: an inference can't be ended, so callers look at the clock between batches."""
        return self

    def encode_query(self, text: str) -> Vectors:
        """Return the unit vector, shape (dimension,), of one query.

        Raises:
            EncoderError: the model failed or returned something other than finite numbers.
        """
        vector: Vectors = self._infer(self._tokenize(self._prefixes.query, [text]))[0]
        return vector

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, shape (n, dimension), of many queries at once, for evaluation.
        Raises as `encode_query`.
        """
        return self._encode_many(self._prefixes.query, texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, shape (n, dimension), in the order of `texts`. Raises as `encode_query`."""
        return self._encode_many(self._prefixes.passage, texts)

    @property
    def vocabulary(self) -> int:
        """Return the number of words of the tokenizer, special ones included."""
        words: int = self._tokenizer.get_vocab_size()
        return words

    @property
    def passage_prefix(self) -> str:
        """Return what is put before each passage; empty for most models."""
        return self._prefixes.passage

    @property
    def gives_tokens(self) -> bool:
        """Return whether the model returns token vectors; a model that pools by itself returns only
        the text's vector.
        """
        return not self._pooled

    def encode_query_with_tokens(self, text: str) -> tuple[Vectors, Vectors, TokenIds]:
        """Return `encode_query`'s vector and, from the same inference, the hidden state (n, width) and the n token ids,
        without those of the model's prefix.

        Raises:
            EncoderError: as `encode_query`, or the model returns no token vectors (`gives_tokens`).
        """
        encodings = self._tokenize(self._prefixes.query, [text])
        vectors, hidden = self._infer_with_tokens(encodings)
        return vectors[0], *self._beyond_prefix(self._prefixes.query, hidden[0], encodings[0])

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[Vectors, TokenIds], Kept]
    ) -> tuple[Vectors, list[Kept]]:
        """Return `encode_passages`' vectors and, from the same inference, the result of `keep` for each text's tokens.

        Args:
            keep: receives a text's hidden state (n, width) and token ids (n,), without those of the model's prefix,
                batch by batch, so that only one batch is in memory. It must copy what it keeps.

        Raises:
            EncoderError: as `encode_query_with_tokens`.
        """
        made: dict[int, Kept] = {}
        vectors = np.empty((len(texts), self.dimension), np.float32)
        encodings = self._tokenize(self._prefixes.passage, texts)
        for batch in plan_batches([len(encoding) for encoding in encodings], self._budget):
            with self._turn:
                vectors[batch], hidden = self._infer_with_tokens([encodings[i] for i in batch])
            for i, rows in zip(batch, hidden, strict=True):
                made[i] = keep(*self._beyond_prefix(self._prefixes.passage, rows, encodings[i]))
        return vectors, [made[i] for i in range(len(texts))]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the start and end of each token of `text`, in characters; without cutting, prefix
        and special tokens.
        """
        offsets: list[tuple[int, int]] = self._tokenizer.encode(
            replace_surrogates(text), add_special_tokens=False
        ).offsets
        return offsets

    def _encode_many(self, prefix: str, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        if not texts:
            return vectors
        encodings = self._tokenize(prefix, texts)
        for batch in plan_batches([len(encoding) for encoding in encodings], self._budget):
            with self._turn:
                vectors[batch] = self._infer([encodings[i] for i in batch])
        return vectors

    def _tokenize(self, prefix: str, texts: Sequence[str]) -> list[Encoding]:
        """Return the tokens of each text behind `prefix`, cut to `max_tokens`, special ones included."""
        plain = [replace_surrogates(prefix + text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        for encoding in encodings:
            encoding.truncate(self._room)
        return [self._tokenizer.post_process(encoding) for encoding in encodings]

    def _infer(self, encodings: Sequence[Encoding]) -> Vectors:
        output, mask = self._run(encodings)
        return _unit(output.astype(np.float32, copy=False) if self._pooled else self._pool(output, mask))

    def _infer_with_tokens(self, encodings: Sequence[Encoding]) -> tuple[Vectors, list[Vectors]]:
        if self._pooled:
            raise EncoderError(
                f"the embedding model {self.name!r} has no output per token: late interaction needs another model"
            )
        output, mask = self._run(encodings)
        hidden = output.astype(np.float32, copy=False)
        return _unit(self._pool(output, mask)), [hidden[row, : len(encoding)] for row, encoding in enumerate(encodings)]

    def _beyond_prefix(self, prefix: str, hidden: Vectors, encoding: Encoding) -> tuple[Vectors, TokenIds]:
        """Return a text's token vectors and ids without the prefix: late interaction must not match its words."""
        ids = _ids(encoding)
        if not prefix:
            return hidden, ids
        first = next((place for place, special in enumerate(encoding.special_tokens_mask) if not special), len(ids))
        kept = np.delete(np.arange(len(ids)), slice(first, first + self._prefix_tokens[prefix]))
        return hidden[kept], ids[kept]

    def _run(self, encodings: Sequence[Encoding]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Return the model's output, and the mask (n, length) of positions that are not padding."""
        length = max(1, *(len(encoding) for encoding in encodings))
        ids = np.zeros((len(encodings), length), np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            # no padding id is needed: padded positions are masked in the model and in the mean
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        return self._run_ids(ids, mask), mask

    def _run_ids(self, ids: TokenIds, mask: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed: dict[str, npt.NDArray[Any]] = {
            key: values[key].astype(kind, copy=False) for key, kind in self._inputs.items()
        }
        try:
            (output,) = self._session.run([self._output], feed)
        except RUNTIME_ERRORS as error:
            raise EncoderError(
                f"ONNX Runtime failed on {ids.shape[0]} texts of up to {ids.shape[1]} tokens ({type(error).__name__}): "
                f"see the log; check free memory and the model's files"
            ) from error
        found: npt.NDArray[Any] = output
        return found

    def _self_test(self) -> int:
        """Run the longest input and the last word once, to warm up the session, learn the dimension and check that
        `max_tokens` and the tokenizer fit.
        """
        last = self._tokenizer.get_vocab_size() - 1
        try:
            self._run_ids(np.array([[last]], np.int64), np.ones((1, 1), np.int64))
        except EncoderError as error:
            raise ConfigurationError(
                f"the embedding model {self.name!r} has no row for word {last} of its {TOKENIZER_FILE}, or does not "
                f"run at all ({error.__cause__}): take model and tokenizer from one folder, whole"
            ) from error
        try:
            return int(self._infer(self._tokenize("", ["token " * self.max_tokens])).shape[1])
        except EncoderError as error:
            raise ConfigurationError(
                f"the embedding model {self.name!r} does not run on {self.max_tokens} tokens: "
                f"lower BRAID_EMBEDDING_MAX_TOKENS to what it was made for (often 512), or check its files"
            ) from error


def load_encoder(settings: Settings) -> Encoder:
    """Return the encoder described by `settings`.

    Raises:
        ConfigurationError: the model is missing, broken, or can't run as configured; nothing says how it pools or which
            prefixes it needs.
    """
    folder, conventions = model_folder(settings), folder_conventions(settings)
    rules = model_rules(settings, conventions)
    encoder = Encoder(
        folder,
        name=settings.embedding.id,
        max_tokens=rules.max_tokens,
        threads=settings.embedding.threads,
        provider=settings.embedding.provider,
        prefixes=rules.prefixes,
        pooling=rules.pooling,
        file=model_file(settings, folder),
    )
    _check_fit(encoder, conventions, folder)
    return encoder


def _check_fit(encoder: Encoder, conventions: Conventions, folder: Path) -> None:
    """Raise ConfigurationError if the tokenizer or the weights are not those that ``config.json`` describes."""
    words, rows = encoder.vocabulary, conventions.vocabulary
    # a table may have some rows more, to a multiple of a round number
    if rows is not None and not _LEAST_SHARE * rows <= words <= rows:
        raise ConfigurationError(
            f"{TOKENIZER_FILE} in {folder} has {words} words, and config.json says vocab_size {rows}: it is another "
            f"model's tokenizer, take the one that the model was trained with"
        )
    width = conventions.dimension
    if width is not None and encoder.gives_tokens and encoder.dimension != width:
        raise ConfigurationError(
            f"the model in {folder} returns {encoder.dimension} numbers a token, and config.json says hidden_size "
            f"{width}: the weights are another model's, export it again"
        )


def _scales_by_batch(model: Path) -> bool:
    """Return whether the model quantises activations when it runs: with one scale for a whole batch, so that a text's
    vector would depend on its neighbours.

    The names of a graph's operators stand in the file as they are, and no other word is like them.
    """
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_DYNAMIC) >= 0


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the folder's tokenizer, without its own cutting and padding. Raises ConfigurationError."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises nothing more specific
        raise ConfigurationError(f"{TOKENIZER_FILE} of the embedding model is unusable: {error}") from error
    # published files often truncate and pad at 128
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _input_types(session: Any) -> dict[str, npt.DTypeLike]:
    """Return name -> numpy type of the model's inputs; raise ConfigurationError for an unknown input."""
    types: dict[str, npt.DTypeLike] = {}
    for node in session.get_inputs():
        if node.name not in ("input_ids", "attention_mask", "token_type_ids") or node.type not in _INPUT_TYPES:
            raise ConfigurationError(
                f"the embedding model has an unknown input {node.name!r} of {node.type}: "
                f"export it with input_ids, attention_mask and, if it has them, token_type_ids as integers"
            )
        types[node.name] = _INPUT_TYPES[node.type]
    return types


def _choose_output(session: Any) -> tuple[str, bool]:
    """Return the output to read, and whether it is already pooled.

    `sentence_embedding` is the model's own pooling. BERT's `pooler_output` is not meant as one, so an output per token
    takes precedence over other two-dimensional ones.
    """
    ranks = {node.name: len(node.shape) for node in session.get_outputs()}
    if ranks.get("sentence_embedding") == 2:
        return "sentence_embedding", True
    for name in ("last_hidden_state", "token_embeddings", *ranks):
        if ranks.get(name) == 3:
            return name, False
    for name, rank in ranks.items():
        if rank == 2:
            return name, True
    raise ConfigurationError(f"the embedding model has no output per token or per text, only {sorted(ranks)}")


def _ids(encoding: Encoding) -> TokenIds:
    return np.array(encoding.ids, np.int64)


def _mean(hidden: npt.NDArray[Any], mask: npt.NDArray[np.int64]) -> Vectors:
    """Return the mean over the tokens that the mask marks: (n, length, d), (n, length) -> (n, d)."""
    weights = mask.astype(np.float32)
    total = np.matmul(weights[:, None, :], hidden.astype(np.float32, copy=False))[:, 0, :]
    mean: Vectors = total / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    return mean


def _first(hidden: npt.NDArray[Any], mask: npt.NDArray[np.int64]) -> Vectors:
    """Return the vector of the first token, BERT's [CLS]: (n, length, d) -> (n, d)."""
    return hidden[:, 0].astype(np.float32, copy=False)


_POOLS: Mapping[str, _Pool] = {"mean": _mean, "cls": _first}


def _pool(pooling: str | None, name: str) -> _Pool:
    """Return the function that `pooling` names; raise ConfigurationError if there is none."""
    if pooling is None:
        raise ConfigurationError(
            f"nothing says how the embedding model {name!r} makes one vector of its tokens': set "
            f"BRAID_EMBEDDING_POOLING to {' or '.join(_POOLS)} as its card says, or put its 1_Pooling/config.json into "
            f"the folder"
        )
    if pooling not in _POOLS:
        raise ConfigurationError(
            f"the embedding model {name!r} makes its vectors by {pooling!r}, which Braid can't do after the model "
            f"({', '.join(_POOLS)}): export it so that it does that by itself, with an output sentence_embedding "
            f"(`optimum-cli export onnx --library-name sentence_transformers`)"
        )
    return _POOLS[pooling]


def _unit(vectors: Vectors) -> Vectors:
    """Scale rows to length one. Raises EncoderError if a row is not finite or has no direction."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise EncoderError("the embedding model returned a vector that is not finite or is zero: check its files")
    unit: Vectors = vectors / norms
    return unit
