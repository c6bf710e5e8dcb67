"""Scoring pairs with a torch model: for validation, and for a teacher without an ONNX export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.runtime.batching import plan_batches
from reranker.runtime.tokenizing import Pair, PairTokenizer

if TYPE_CHECKING:
    from torch import Tensor

_TOKENS_A_BATCH = 4096


def pad_pairs(pairs: Sequence[Pair], padding_id: int, with_types: bool) -> dict[str, Tensor]:
    """Return the model's inputs, (n, longest) each."""
    import torch

    longest = max(len(pair) for pair in pairs)
    ids = np.full((len(pairs), longest), padding_id, np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for row, pair in enumerate(pairs):
        ids[row, : len(pair)], types[row, : len(pair)], mask[row, : len(pair)] = pair.ids, pair.types, 1
    found = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return found | ({"token_type_ids": torch.from_numpy(types)} if with_types else {})


def takes_types(model: Any) -> bool:
    """Return whether the model distinguishes query and document by segment ids."""
    return getattr(model.config, "type_vocab_size", 0) > 1


class TorchScorer:
    """A classifier with one label, and its tokenizer."""

    def __init__(self, model: Any, tokenizer_folder: Path, *, max_tokens: int, bf16: bool = False) -> None:
        """Load the tokenizer. Raises ModelFolderError if it is unusable."""
        self._model = model
        self._tokenizer = PairTokenizer(tokenizer_folder, max_tokens=max_tokens)
        self._bf16 = bf16

    def logits(self, query: str, documents: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the logits of one query's documents, (n,)."""
        return self.logits_of_all([(query, documents)])[0]

    def logits_of_all(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[npt.NDArray[np.float64]]:
        """Score several queries with their documents at once, so that batches are full; (n,) each."""
        import torch

        pairs = [pair for query, documents in asked for pair in self._tokenizer.encode(query, documents).pairs]
        found = np.zeros(len(pairs))
        training = self._model.training
        device = next(self._model.parameters()).device
        self._model.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            for batch in plan_batches([len(pair) for pair in pairs], _TOKENS_A_BATCH):
                inputs = pad_pairs([pairs[i] for i in batch], self._tokenizer.padding_id, takes_types(self._model))
                logits = self._model(**{name: value.to(device) for name, value in inputs.items()}).logits
                found[batch] = logits[:, 0].float().cpu().numpy()
        self._model.train(training)
        bounds = np.cumsum([len(documents) for _, documents in asked])[:-1]
        return list(np.split(found, bounds))
