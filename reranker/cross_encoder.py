"""Cross-encoder: scores the relevance of documents to a query, with ONNX Runtime and `tokenizers`, without torch."""

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

from reranker.errors import InferenceError, ModelFolderError
from reranker.model_folder import load_settings, model_file
from reranker.runtime.batching import plan_batches
from reranker.runtime.model_files import MODEL_FILE
from reranker.runtime.session import ON_GPU, RUNTIME_ERRORS, WantedProvider, first_line, open_session, run
from reranker.runtime.tokenizing import Pair, PairTokenizer, TokenizedPairs

Logits = npt.NDArray[np.float32]

TOKENS_PER_THREAD = 512
"""Padded tokens of a batch per CPU thread: larger batches are no faster, and new work joins only between batches."""
TOKENS_ON_GPU = 16_384

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_INPUT_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_EXPECTED = "expected the inputs input_ids, attention_mask and optionally token_type_ids, all int64 or int32, and "
_EXPECTED += "one output of logits, (n, 1)"


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """Scores of one query's documents and the time spent on them (milliseconds)."""

    logits: Logits
    """Shape (n,), in the order of the documents; `ModelSettings.probability` turns them into probabilities."""
    truncated: int
    """Number of documents that were cut."""
    tokenize_ms: float
    compute_ms: float
    queue_ms: float = 0.0
    """Time spent waiting for other callers' work; 0 without a scheduler."""
    tokens: int = 0
    """Tokens of all pairs, including special tokens, excluding padding."""
    query_truncated: bool = False


class CrossEncoder:
    """A cross-encoder model. Safe to share between threads; load it after a fork, never before.

    Only one batch runs at a time, on all threads: concurrent batches would slow each other down.
    """

    def __init__(self, folder: Path, *, threads: int = 0, provider: WantedProvider = "auto") -> None:
        """Load the model of `folder` and run it once as a test.

        Args:
            folder: see `reranker.model_folder`.
            threads: threads of one inference; 0 means one per core that this process may use.
            provider: execution provider; ``auto`` picks the best one available.

        Raises:
            ModelFolderError: a file is missing, corrupt, or not of a cross-encoder; the message says what was expected.
            ConfigurationError: the provider is not usable on this machine.
        """
        self.settings = load_settings(folder)
        self.name = self.settings.name
        self.max_tokens = self.settings.max_tokens
        self._tokenizer = PairTokenizer(folder, max_tokens=self.max_tokens)
        threads = threads or len(os.sched_getaffinity(0))
        self._session, self.provider = open_session(
            model_file(folder, self.settings),
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
        self.tokens_per_second = self._self_test()
        """Throughput measured once at start; the scheduler's initial estimate."""

    def score(self, query: str, documents: Sequence[str], *, max_document_tokens: int | None = None) -> ScoringResult:
        """Score `documents` against `query`.

        Args:
            query: cut to half of the model's positions.
            documents: any number of any length; cut to the positions that the query leaves.
            max_document_tokens: a lower limit for documents, if any.

        Raises:
            InferenceError: the model failed or gave something other than finite numbers.
        """
        found = self.tokenize(query, documents, max_document_tokens=max_document_tokens)
        logits = np.empty(len(found.pairs), np.float32)
        began = time.perf_counter()
        for batch in plan_batches([len(pair) for pair in found.pairs], self.batch_tokens):
            logits[batch] = self.infer([found.pairs[i] for i in batch])
        return ScoringResult(
            logits,
            found.truncated,
            found.milliseconds,
            (time.perf_counter() - began) * 1000,
            tokens=found.tokens,
            query_truncated=found.query_truncated,
        )

    def tokenize(
        self, query: str, documents: Sequence[str], *, max_document_tokens: int | None = None
    ) -> TokenizedPairs:
        """Return the pairs that `infer` takes; equal to encoding each pair separately."""
        return self._tokenizer.encode(query, documents, max_document_tokens=max_document_tokens)

    def infer(self, pairs: Sequence[Pair]) -> Logits:
        """Return the logits, shape (n,), of one batch, padded to its longest pair.

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
                f"({type(error).__name__}): see the log; check free memory and the model's files"
            ) from error
        if output.size != len(pairs):
            raise InferenceError(
                f"the model returned an output of shape {output.shape} for {len(pairs)} pairs: {_EXPECTED}"
            )
        logits: Logits = output.reshape(len(pairs)).astype(np.float32)
        if not np.isfinite(logits).all():
            raise InferenceError("the reranker's model returned a score that is not finite: check its files")
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

    def _self_test(self) -> float:
        """Run a full batch of the longest pairs to check `max_tokens` and the output; return tokens per second."""
        count = min(8, max(1, self.batch_tokens // self.max_tokens))
        pairs = self.tokenize("query", ["token " * self.max_tokens] * count).pairs
        try:
            self.infer(pairs)  # the first run also warms up the session
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
    """Return name -> numpy type of the model's inputs; raise ModelFolderError for an unknown input."""
    found = {node.name: node.type for node in session.get_inputs()}
    strange = [name for name, kind in found.items() if name not in _INPUTS or kind not in _INPUT_TYPES]
    missing = [name for name in ("input_ids", "attention_mask") if name not in found]
    if strange or missing:
        shown = ", ".join(f"{name} {kind}" for name, kind in found.items())
        raise ModelFolderError(f"{MODEL_FILE} is not of a cross-encoder: {_EXPECTED}; found the inputs {shown}")
    return {name: _INPUT_TYPES[kind] for name, kind in found.items()}


def _logits_output(session: Any) -> str:
    """Return the name of the output to read: ``logits``, or the only output."""
    outputs = {node.name: node.shape for node in session.get_outputs()}
    name = "logits" if "logits" in outputs else next(iter(outputs))
    shape = outputs[name]
    one_label = len(shape) == 1 or (len(shape) == 2 and (shape[1] == 1 or not isinstance(shape[1], int)))
    if not one_label or (len(outputs) > 1 and name != "logits"):
        shown = ", ".join(f"{key} {value}" for key, value in outputs.items())
        raise ModelFolderError(f"{MODEL_FILE} is not of a cross-encoder: {_EXPECTED}; found the outputs {shown}")
    return name
