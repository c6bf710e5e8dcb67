"""Late interaction over the token vectors of embedding models: a teacher that needs no labels and no downloads.

A passage's score is the mean, over the query's tokens, of the greatest cosine with any token of the passage (MaxSim:
Khattab, Zaharia, SIGIR 2020). Tokens are weighted by their rarity among the passages seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
from cachetools import LRUCache
from tokenizers import Encoding, Tokenizer

from reranker.errors import ModelFolderError
from reranker.runtime.batching import plan_batches

Vectors = npt.NDArray[np.float16]
_TOKENS_A_BATCH = 1024
_KEPT_BYTES = 2 * 1024**3
"""Size limit of the cached token vectors: many queries share candidate passages."""


class LateInteraction:
    """One embedding model in ONNX. Not thread-safe."""

    def __init__(self, folder: Path, *, max_tokens: int = 256, threads: int = 2) -> None:
        """Load ``model.onnx`` (its first output of three dimensions) and ``tokenizer.json`` of `folder`.

        Raises:
            ModelFolderError: a file is missing, or the model returns no token vectors.
        """
        for name in ("model.onnx", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ModelFolderError(f"no {name} in {folder}: expected the folder of an embedding model in ONNX")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        outputs = [item.name for item in self._session.get_outputs() if len(item.shape) == 3]
        if not outputs:
            raise ModelFolderError(f"{folder}/model.onnx returns pooled vectors only: expected one vector per token")
        self._output = outputs[0]
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._kept: LRUCache[str, Vectors] = LRUCache(_KEPT_BYTES, getsizeof=lambda vectors: vectors.nbytes)
        self._seen: Counter[int] = Counter()
        self.encoded = 0
        self.name = folder.resolve().name

    def scores(self, query: str, passages: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return a score for each passage, (n,), in -1..1."""
        self.prepare(passages)
        encoding = self._tokenizer.encode(query)
        (hidden,) = self._hidden([encoding])
        inner = _text_positions(encoding)
        if not inner:
            return np.zeros(len(passages))
        vectors = hidden[inner].astype(np.float32)
        weights = np.array([self._rarity(encoding.ids[index]) for index in inner])
        found = [weights @ (vectors @ self._kept[text].astype(np.float32).T).max(axis=1) for text in passages]
        return np.asarray(found, np.float64) / float(weights.sum())

    def prepare(self, passages: Sequence[str]) -> None:
        """Encode the passages that are not cached, in batches of similar length."""
        missing = [text for text in dict.fromkeys(passages) if text not in self._kept]
        for text in passages:
            self._kept.get(text)  # a cached passage of this query must not make room for another
        if not missing:
            return
        encodings = self._tokenizer.encode_batch(missing)
        for batch in plan_batches([len(item) for item in encodings], _TOKENS_A_BATCH):
            for index, hidden in zip(batch, self._hidden([encodings[index] for index in batch]), strict=True):
                self._kept[missing[index]] = hidden
                self._seen.update(set(encodings[index].ids))
        self.encoded += len(missing)

    def _rarity(self, token: int) -> float:
        """Return BM25's idf of the token among the passages seen."""
        count = self._seen[token]
        return math.log(1.0 + (self.encoded - count + 0.5) / (count + 0.5))

    def _hidden(self, encodings: Sequence[Encoding]) -> list[Vectors]:
        """Return the normalised token vectors of each text, (tokens, width) each."""
        longest = max(len(item) for item in encodings)
        ids = np.zeros((len(encodings), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, item in enumerate(encodings):
            ids[row, : len(item)], mask[row, : len(item)] = item.ids, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        hidden /= np.maximum(np.linalg.norm(hidden, axis=2, keepdims=True), 1e-9)
        return [hidden[row, : len(item)].astype(np.float16) for row, item in enumerate(encodings)]


def _text_positions(encoding: Encoding) -> list[int]:
    """Return the positions of the tokens that are not special."""
    return [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
