"""A cross-encoder: how relevant each document is to a query. By ONNX Runtime and `tokenizers`; no torch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.batching import plan_batches
from reranker.errors import InferenceError, ModelFolderError
from reranker.model_folder import MODEL_FILE, load_settings
from reranker.session import ON_GPU, RUNTIME_ERRORS, WantedProvider, first_line, open_session, run
from reranker.tokenizing import Pair, PairTokenizer, Tokenized

Logits = npt.NDArray[np.float32]

TOKENS_PER_THREAD = 512
"""Padded tokens of a batch per CPU thread: larger ones are no faster, and new work joins only between batches."""
TOKENS_ON_GPU = 16_384

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_INPUT_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_EXPECTED = (
    "expected the inputs input_ids, attention_mask and, if it has them, token_type_ids, all int64 or int32, and "
)
_EXPECTED += "one output of logits, (n, 1)"


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring one query's documents gave, and where the time went (milliseconds)."""

    logits: Logits
    """Shape (n,), in the order of the documents; `ModelSettings.probability` makes probabilities of them."""
    truncated: int
    """Documents of which something was cut."""
    tokenize_ms: float
    compute_ms: float
    queue_ms: float = 0.0
    """Waited for other callers' work; 0 without a scheduler."""
    tokens: int = 0
    """Of all pairs, special tokens included, padding not."""
    query_truncated: bool = False


class CrossEncoder:
    """A cross-encoder model. Safe to share between threads; load it after a fork, never before.

    One batch runs at a time, on all threads: batches of several callers side by side would only slow each other down.
    """

    def __init__(self, folder: Path, *, threads: int = 0, provider: WantedProvider = "auto") -> None:
        """Load the model of `folder` and try it once.

        Args:
            folder: see `reranker.model_folder`.
            threads: of one inference; 0: one per core that this process may use.
            provider: where to run; ``auto`` takes the best there is.

        Raises:
            ModelFolderError: a file is missing, corrupt, or not of a cross-encoder; says what was expected.
            ConfigurationError: the provider can't be used here.
        """
        self.settings = load_settings(folder)
        self.name = self.settings.name
        self.max_tokens = self.settings.max_tokens
        self._tokenizer = PairTokenizer(folder, max_tokens=self.max_tokens)
        threads = threads or len(os.sched_getaffinity(0))
        self._session, self.provider = open_session(
            folder / MODEL_FILE,
            wanted=provider,
            threads=threads,
            longest=self.max_tokens,
            budget_on_gpu=TOKENS_ON_GPU,
        )
        self.batch_tokens = TOKENS_ON_GPU if self.provider in ON_GPU else TOKENS_PER_THREAD * threads
        """Padded tokens of one batch."""
        self._inputs = _input_types(self._session)
        self._output = _logits_output(self._session)
        self._turn = threading.Lock()
        self.tokens_per_second = self._try_out()
        """As measured once at start: what a scheduler begins to reckon with."""

    def score(self, query: str, documents: Sequence[str], *, max_document_tokens: int | None = None) -> Scored:
        """Score `documents` against `query`.

        Args:
            query: cut to half of the model's places.
            documents: any number, any length; cut to what the query leaves.
            max_document_tokens: cut documents to this, where it is less.

        Raises:
            InferenceError: the model failed or gave something other than finite numbers.
        """
        found = self.tokenize(query, documents, max_document_tokens=max_document_tokens)
        logits = np.empty(len(found.pairs), np.float32)
        began = time.perf_counter()
        for batch in plan_batches([len(pair) for pair in found.pairs], self.batch_tokens):
            logits[batch] = self.infer([found.pairs[i] for i in batch])
        return Scored(
            logits,
            found.truncated,
            found.milliseconds,
            (time.perf_counter() - began) * 1000,
            tokens=found.tokens,
            query_truncated=found.query_truncated,
        )

    def tokenize(self, query: str, documents: Sequence[str], *, max_document_tokens: int | None = None) -> Tokenized:
        """The pairs that `infer` takes; equal to encoding each pair by itself."""
        return self._tokenizer.encode(query, documents, max_document_tokens=max_document_tokens)

    def infer(self, pairs: Sequence[Pair]) -> Logits:
        """Logits, shape (n,), of one batch, padded to its longest pair.

        Raises:
            InferenceError: as `score`.
        """
        feed = self._feed(pairs)
        try:
            with self._turn:
                output = run(self._session, self.provider, feed, self._output)
        except RUNTIME_ERRORS as error:
            raise InferenceError(
                f"ONNX Runtime failed on {len(pairs)} pairs of up to {max(map(len, pairs))} tokens "
                f"({type(error).__name__}): see the log, and check memory and the model's files"
            ) from error
        if output.size != len(pairs):
            raise InferenceError(
                f"the model gave an output of shape {output.shape} for {len(pairs)} pairs: {_EXPECTED}"
            )
        logits: Logits = output.reshape(len(pairs)).astype(np.float32)
        if not np.isfinite(logits).all():
            raise InferenceError("the reranker's model gave a score that is not finite: check its files")
        return logits

    def _feed(self, pairs: Sequence[Pair]) -> dict[str, npt.NDArray[Any]]:
        longest = max(map(len, pairs))
        ids = np.full((len(pairs), longest), self._tokenizer.padding_id, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, pair in enumerate(pairs):
            ids[row, : len(pair)] = pair.ids
            types[row, : len(pair)] = pair.types
            mask[row, : len(pair)] = 1
        values = dict(zip(_INPUTS, (ids, mask, types), strict=True))
        return {name: values[name].astype(kind, copy=False) for name, kind in self._inputs.items()}

    def _try_out(self) -> float:
        """Run a full batch of the longest pairs: proves `max_tokens` and the output, and gives tokens per second."""
        count = min(8, max(1, self.batch_tokens // self.max_tokens))
        pairs = self.tokenize("query", ["token " * self.max_tokens] * count).pairs
        try:
            self.infer(pairs)  # the first one also warms the session up
            began = time.perf_counter()
            self.infer(pairs)
        except InferenceError as error:
            cause = f" ({first_line(error.__cause__)})" if isinstance(error.__cause__, Exception) else ""
            raise ModelFolderError(
                f"the model {self.name!r} does not run on pairs of {self.max_tokens} tokens: lower max_tokens in "
                f"reranker.json to what it was made for (often 512), or check its files. {error.detail}{cause}"
            ) from error
        return sum(map(len, pairs)) / (time.perf_counter() - began)


def _input_types(session: Any) -> dict[str, npt.DTypeLike]:
    """Name -> numpy type of the model's inputs; ModelFolderError for one that we can't fill."""
    found = {node.name: node.type for node in session.get_inputs()}
    strange = [name for name, kind in found.items() if name not in _INPUTS or kind not in _INPUT_TYPES]
    missing = [name for name in ("input_ids", "attention_mask") if name not in found]
    if strange or missing:
        shown = ", ".join(f"{name} {kind}" for name, kind in found.items())
        raise ModelFolderError(f"{MODEL_FILE} is not of a cross-encoder: {_EXPECTED}; found the inputs {shown}")
    return {name: _INPUT_TYPES[kind] for name, kind in found.items()}


def _logits_output(session: Any) -> str:
    """The output to read: ``logits``, or the only one there is."""
    outputs = {node.name: node.shape for node in session.get_outputs()}
    name = "logits" if "logits" in outputs else next(iter(outputs))
    shape = outputs[name]
    one_label = len(shape) == 1 or (len(shape) == 2 and (shape[1] == 1 or not isinstance(shape[1], int)))
    if not one_label or (len(outputs) > 1 and name != "logits"):
        shown = ", ".join(f"{key} {value}" for key, value in outputs.items())
        raise ModelFolderError(f"{MODEL_FILE} is not of a cross-encoder: {_EXPECTED}; found the outputs {shown}")
    return name
