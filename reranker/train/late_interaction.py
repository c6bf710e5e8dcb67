"""Late interaction over the token vectors of embedding models: the teacher that needs no labels and no downloads.

A passage's score is the mean over the query's tokens, weighted by how rare they are among the passages seen, of the
greatest cosine with any token of the passage (MaxSim: Khattab, Zaharia, SIGIR 2020).
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
from tokenizers import Encoding, Tokenizer

from reranker.batching import plan_batches
from reranker.errors import ModelFolderError

Vectors = npt.NDArray[np.float16]
_TOKENS_A_BATCH = 1024
_KEPT_BYTES = 2 * 1024**3
"""Of token vectors that are kept for the next query: the same passages are candidates of many."""


class LateInteraction:
    """One embedding model in ONNX. Not thread-safe."""

    def __init__(self, folder: Path, *, max_tokens: int = 256, threads: int = 2) -> None:
        """Load ``model.onnx`` (its first output of three dimensions) and ``tokenizer.json`` of `folder`.

        Raises:
            ModelFolderError: a file is missing, or the model gives no vector for each token.
        """
        for name in ("model.onnx", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ModelFolderError(f"no {name} in {folder}; expected is the folder of an embedding model in ONNX")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        outputs = [item.name for item in self._session.get_outputs() if len(item.shape) == 3]
        if not outputs:
            raise ModelFolderError(f"{folder}/model.onnx gives pooled vectors only; expected is one vector per token")
        self._output = outputs[0]
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._bytes = 0
        self._seen: Counter[int] = Counter()
        self._passages = 0
        self.name = folder.resolve().name
        self.encode_ms = 0.0
        self.encoded = 0

    def scores(self, query: str, passages: Sequence[str]) -> npt.NDArray[np.float64]:
        """A score for each passage, (n,), in -1..1."""
        self.prepare(passages)
        encoding = self._tokenizer.encode(query)
        (hidden,) = self._hidden([encoding])
        inner = _inner(encoding)
        if not inner:
            return np.zeros(len(passages))
        vectors = hidden[inner].astype(np.float32)
        weights = np.array([self._rarity(encoding.ids[index]) for index in inner])
        found = [weights @ (vectors @ self._kept[text].astype(np.float32).T).max(axis=1) for text in passages]
        return np.asarray(found, np.float64) / float(weights.sum())

    def prepare(self, passages: Sequence[str]) -> None:
        """Encode those that are not at hand, in batches of like length."""
        missing = [text for text in dict.fromkeys(passages) if text not in self._kept]
        for text in passages:
            if text in self._kept:
                self._kept.move_to_end(text)
        if not missing:
            return
        began = time.perf_counter()
        encodings = self._tokenizer.encode_batch(missing)
        for batch in plan_batches([len(item) for item in encodings], _TOKENS_A_BATCH):
            for index, hidden in zip(batch, self._hidden([encodings[index] for index in batch]), strict=True):
                self._keep(missing[index], hidden)
                self._seen.update(set(encodings[index].ids))
        self._passages += len(missing)
        self.encode_ms += (time.perf_counter() - began) * 1000
        self.encoded += len(missing)
        while self._bytes > _KEPT_BYTES and len(self._kept) > len(passages):
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes

    def _keep(self, text: str, hidden: Vectors) -> None:
        self._kept[text] = hidden
        self._bytes += hidden.nbytes

    def _rarity(self, token: int) -> float:
        """BM25's idf among the passages seen."""
        count = self._seen[token]
        return math.log(1.0 + (self._passages - count + 0.5) / (count + 0.5))

    def _hidden(self, encodings: Sequence[Encoding]) -> list[Vectors]:
        """Normalised vectors of each text's tokens, (tokens, width) each."""
        longest = max(len(item) for item in encodings)
        ids = np.zeros((len(encodings), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, item in enumerate(encodings):
            ids[row, : len(item)], mask[row, : len(item)] = item.ids, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        hidden /= np.maximum(np.linalg.norm(hidden, axis=2, keepdims=True), 1e-9)
        return [hidden[row, : len(item)].astype(np.float16) for row, item in enumerate(encodings)]


def _inner(encoding: Encoding) -> list[int]:
    """Places of the tokens that are no special ones."""
    return [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
