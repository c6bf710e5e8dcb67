"""Text to vectors: tokenise, run the ONNX model, pool, normalise. No torch, no transformers."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from app.config import Settings
from app.embedding.model_folder import MODEL_FILE, NO_PREFIXES, TOKENIZER_FILE, Prefixes, model_folder, prefixes
from app.embedding.session import Provider, open_session
from app.errors import ConfigurationError, EncoderError
from reranker.batching import plan_batches
from reranker.session import RUNTIME_ERRORS

Vectors = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]
Kept = TypeVar("Kept")

TOKENS_PER_THREAD = 512
"""Padded tokens of a batch per CPU thread: larger ones are no faster, and a query shares the cores with one batch."""
TOKENS_ON_GPU = 16_384

_SURROGATE = re.compile("[\ud800-\udfff]")
_INPUT_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Encoder:
    """A sentence-embedding model. Safe to share between threads; load it after a fork, never before.

    Queries first: `encode_query` never queues. It runs beside the one batch of passages that may be under way, and
    ONNX Runtime gives its calling thread a fair share of the cores; all callers of the batch methods take turns, batch
    by batch. (A gate that held batches back while a query ran was no better: benchmarks/encode.md.)
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        max_tokens: int = 256,
        threads: int = 0,
        provider: Literal["auto", "cuda", "openvino", "cpu"] = "auto",
        prefixes: Prefixes = NO_PREFIXES,
    ) -> None:
        """Load ``model.onnx`` and ``tokenizer.json`` from `folder` and try them once.

        Args:
            folder: the model's files.
            name: what the store records as `embedding_model`.
            max_tokens: texts are cut after so many tokens, special ones included.
            threads: of one inference; 0: one per core that this process may use.
            provider: where to run; ``auto`` takes the best there is.
            prefixes: put in front of queries and passages.

        Raises:
            ConfigurationError: files, provider, model inputs or `max_tokens` don't fit together.
        """
        self.name = name
        self.max_tokens = max_tokens
        self._prefixes = prefixes
        self._splitter = _load_tokenizer(folder)
        self._tokenizer = _load_tokenizer(folder)
        self._tokenizer.enable_truncation(max_tokens)
        threads = threads or len(os.sched_getaffinity(0))
        self.provider: Provider
        self._session, self.provider = open_session(folder / MODEL_FILE, wanted=provider, threads=threads)
        self._budget = TOKENS_ON_GPU if self.provider == "cuda" else TOKENS_PER_THREAD * threads
        self._inputs = _input_types(self._session)
        self._output, self._pooled = _choose_output(self._session)
        self._turn = threading.Lock()
        self.dimension = self._try_out()

    def encode_query(self, text: str) -> Vectors:
        """The unit vector, shape (dimension,), of one query.

        Raises:
            EncoderError: the model failed or gave something other than finite numbers.
        """
        vector: Vectors = self._infer([self._tokenizer.encode(_clean(self._prefixes.query + text))])[0]
        return vector

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (n, dimension), of many queries at once, as for evaluation. Raises as `encode_query`."""
        return self._encode_many(self._prefixes.query, texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (n, dimension), in the order of `texts`. Raises as `encode_query`."""
        return self._encode_many(self._prefixes.passage, texts)

    @property
    def gives_tokens(self) -> bool:
        """Whether the model gives a vector for each token; one that pools by itself gives only the text's."""
        return not self._pooled

    def encode_query_with_tokens(self, text: str) -> tuple[Vectors, Vectors, TokenIds]:
        """`encode_query`'s vector and, of the same inference, the hidden state (n, width) and the n token ids.

        Raises:
            EncoderError: as `encode_query`, or the model gives no vectors of tokens (`gives_tokens`).
        """
        encoding = self._tokenizer.encode(_clean(self._prefixes.query + text))
        vectors, hidden = self._infer_with_tokens([encoding])
        return vectors[0], hidden[0], _ids(encoding)

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[Vectors, TokenIds], Kept]
    ) -> tuple[Vectors, list[Kept]]:
        """`encode_passages`' vectors and, of the same inference, what `keep` makes of each text's tokens.

        Args:
            texts: the passages.
            keep: is given a text's hidden state (n, width) and token ids (n,), batch by batch, so that never more than
                one batch's are in memory. It must copy what it keeps.

        Raises:
            EncoderError: as `encode_query_with_tokens`.
        """
        made: dict[int, Kept] = {}
        vectors = np.empty((len(texts), self.dimension), np.float32)
        encodings = self._tokenizer.encode_batch([_clean(self._prefixes.passage + text) for text in texts])
        for batch in plan_batches([len(encoding) for encoding in encodings], self._budget):
            with self._turn:
                vectors[batch], hidden = self._infer_with_tokens([encodings[i] for i in batch])
            made.update({i: keep(rows, _ids(encodings[i])) for i, rows in zip(batch, hidden, strict=True)})
        return vectors, [made[i] for i in range(len(texts))]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of `text` begins and ends, in characters: whole text, no prefix, no special tokens."""
        offsets: list[tuple[int, int]] = self._splitter.encode(_clean(text), add_special_tokens=False).offsets
        return offsets

    def _encode_many(self, prefix: str, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        if not texts:
            return vectors
        encodings = self._tokenizer.encode_batch([_clean(prefix + text) for text in texts])
        for batch in plan_batches([len(encoding) for encoding in encodings], self._budget):
            with self._turn:
                vectors[batch] = self._infer([encodings[i] for i in batch])
        return vectors

    def _infer(self, encodings: Sequence[Encoding]) -> Vectors:
        output, mask = self._run(encodings)
        return _unit(output.astype(np.float32, copy=False) if self._pooled else _mean(output, mask))

    def _infer_with_tokens(self, encodings: Sequence[Encoding]) -> tuple[Vectors, list[Vectors]]:
        if self._pooled:
            raise EncoderError(
                f"the embedding model {self.name!r} has no output per token: late interaction can't be had with it"
            )
        output, mask = self._run(encodings)
        hidden = output.astype(np.float32, copy=False)
        return _unit(_mean(output, mask)), [hidden[row, : len(encoding)] for row, encoding in enumerate(encodings)]

    def _run(self, encodings: Sequence[Encoding]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """The model's output, and the mask (n, length) of the places that are no padding."""
        length = max(1, *(len(encoding) for encoding in encodings))
        ids = np.zeros((len(encodings), length), np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            # no padding id is needed: padded places are masked in the model and in the mean
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed: dict[str, npt.NDArray[Any]] = {
            key: values[key].astype(kind, copy=False) for key, kind in self._inputs.items()
        }
        try:
            (output,) = self._session.run([self._output], feed)
        except RUNTIME_ERRORS as error:
            raise EncoderError(
                f"ONNX Runtime failed on {len(encodings)} texts of up to {length} tokens ({type(error).__name__}): "
                f"see the log, and check memory and the model's files"
            ) from error
        return output, mask

    def _try_out(self) -> int:
        """Run the longest input once: warms the session up, gives the dimension, and proves `max_tokens`."""
        text = "token " * self.max_tokens
        try:
            return int(self._infer([self._tokenizer.encode(text)]).shape[1])
        except EncoderError as error:
            raise ConfigurationError(
                f"the embedding model {self.name!r} does not run on {self.max_tokens} tokens: "
                f"lower BRAID_EMBEDDING_MAX_TOKENS to what it was made for (often 512), or check its files"
            ) from error


def load_encoder(settings: Settings) -> Encoder:
    """The encoder that `settings` describe.

    Raises:
        ConfigurationError: the model is missing, broken, or can't run as asked for.
    """
    return Encoder(
        model_folder(settings),
        name=settings.embedding_id,
        max_tokens=settings.embedding_max_tokens,
        threads=settings.embedding_threads,
        provider=settings.embedding_provider,
        prefixes=prefixes(settings),
    )


def _clean(text: str) -> str:
    """`text` with lone surrogates replaced one for one (offsets hold): they have no UTF-8 form."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _load_tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:  # the library raises nothing more specific
        raise ConfigurationError(f"{TOKENIZER_FILE} of the embedding model is unusable: {error}") from error
    # published files often cut and pad at 128
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _input_types(session: Any) -> dict[str, npt.DTypeLike]:
    """Name -> numpy type of the model's inputs; ConfigurationError for one that we can't fill."""
    types: dict[str, npt.DTypeLike] = {}
    for node in session.get_inputs():
        if node.name not in ("input_ids", "attention_mask", "token_type_ids") or node.type not in _INPUT_TYPES:
            raise ConfigurationError(
                f"the embedding model wants an input {node.name!r} of {node.type}: "
                f"export it with input_ids, attention_mask and, if it has them, token_type_ids as integers"
            )
        types[node.name] = _INPUT_TYPES[node.type]
    return types


def _choose_output(session: Any) -> tuple[str, bool]:
    """The output to read, and whether it is pooled already.

    `sentence_embedding` is the model's own pooling; BERT's `pooler_output` is not meant as one, so any output per
    token comes before other two-dimensional ones.
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
    """Mean over the tokens that the mask marks: (n, length, d), (n, length) -> (n, d)."""
    weights = mask.astype(np.float32)
    total = np.matmul(weights[:, None, :], hidden.astype(np.float32, copy=False))[:, 0, :]
    mean: Vectors = total / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    return mean


def _unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length one. Raises EncoderError where a row is not finite or has no direction."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise EncoderError("the embedding model gave a vector that is not finite or is zero: check its files")
    unit: Vectors = vectors / norms
    return unit
