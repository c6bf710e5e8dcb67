"""Who says what is better: each teacher scores the candidates of a query; higher is more relevant, on any scale."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
import numpy as np
import numpy.typing as npt

from reranker.errors import ConfigurationError, InferenceError
from reranker.measures import min_max
from reranker.rankings import Ranking
from reranker.train.late_interaction import LateInteraction

Scores = npt.NDArray[np.float64]
LATE_SHARE = 0.4
"""Of late interaction in the builtin teacher; the fused score has the rest (DESIGN: measured on SciFact, NFCorpus)."""
_REMOTE_TIMEOUT_S = 120.0
_ATTEMPTS = 4


class Teacher(Protocol):
    """Scores all candidates of a query."""

    name: str

    def scores(self, ranking: Ranking) -> Scores:
        """One for each candidate, (n,), finite."""
        ...


@dataclass
class Builtin:
    """The first stage's own score, and late interaction over one or several embedding models, each min-max scaled."""

    encoders: Sequence[LateInteraction]
    late_share: float = LATE_SHARE

    def __post_init__(self) -> None:
        self.name = "builtin: fused + late interaction over " + " and ".join(item.name for item in self.encoders)

    def scores(self, ranking: Ranking) -> Scores:
        texts = [item.text for item in ranking.candidates]
        late = np.mean([min_max(encoder.scores(ranking.query, texts)) for encoder in self.encoders], axis=0)
        fused = min_max(np.array([item.score for item in ranking.candidates], np.float64))
        found: Scores = (1.0 - self.late_share) * fused + self.late_share * late
        return found


class Labels:
    """Nobody: only what was judged teaches."""

    name = "judgements alone"

    def scores(self, ranking: Ranking) -> Scores:
        return np.zeros(len(ranking.candidates))


class Onnx:
    """A cross-encoder's folder in our format, through the runtime."""

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        """Raises ModelFolderError."""
        from reranker.cross_encoder import CrossEncoder

        self._model = CrossEncoder(folder, threads=threads)
        self.name = f"cross-encoder {self._model.name}"

    def scores(self, ranking: Ranking) -> Scores:
        scored = self._model.score(ranking.query, [item.text for item in ranking.candidates])
        return np.asarray(scored.logits, np.float64)


class Torch:
    """A Hugging Face folder of a sequence classifier with one label, in torch."""

    def __init__(self, folder: Path, *, max_tokens: int = 256, threads: int = 2) -> None:
        """Raises ModelFolderError."""
        import torch

        from reranker.train.scoring import TorchScorer
        from reranker.train.students import load_classifier

        torch.set_num_threads(threads)
        self._scorer = TorchScorer(load_classifier(folder), folder, max_tokens=max_tokens)
        self.name = f"cross-encoder {folder.resolve().name}"

    def scores(self, ranking: Ranking) -> Scores:
        return self._scorer.logits(ranking.query, [item.text for item in ranking.candidates])


class Remote:
    """Any server with ``POST /v1/rerank`` (Cohere's and Jina's form)."""

    def __init__(self, url: str, *, key: str | None = None, model: str | None = None) -> None:
        """`url` may end before or behind ``/v1/rerank``; `key` goes as a bearer token and is written nowhere."""
        self._url = url if url.rstrip("/").endswith("rerank") else url.rstrip("/") + "/v1/rerank"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(timeout=_REMOTE_TIMEOUT_S, headers=headers)
        self._model = {"model": model} if model else {}
        self.name = f"remote reranker{f' {model}' if model else ''}"

    def scores(self, ranking: Ranking) -> Scores:
        body = {
            **self._model,
            "query": ranking.query,
            "documents": [item.text for item in ranking.candidates],
            "top_n": len(ranking.candidates),
        }
        answer = self._post(body)
        found = np.full(len(ranking.candidates), np.nan)
        try:
            for item in answer["results"]:
                found[int(item["index"])] = float(item["relevance_score"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InferenceError(f"{self._url}: expected results with index and relevance_score ({error!r})") from error
        if not np.isfinite(found).all():
            raise InferenceError(
                f"{self._url}: {int((~np.isfinite(found)).sum())} of {len(found)} documents got no score"
            )
        return found

    def _post(self, body: dict[str, Any]) -> Any:
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(2.0**attempt)
            try:
                answer = self._client.post(self._url, json=body)
            except httpx2.HTTPError as error:
                reason = type(error).__name__
                continue
            if answer.status_code == 200:
                return answer.json()
            reason = f"status {answer.status_code}"
            if answer.status_code not in {408, 429, 500, 502, 503, 504}:
                break
        raise InferenceError(
            f"{self._url}: the teacher does not answer ({reason}); run the same command again to go on"
        )


def teacher_of(
    named: str, *, encoders: Sequence[Path], key: str | None, threads: int, max_tokens: int
) -> Callable[[], Teacher]:
    """Opens the teacher that `named` means: ``builtin``, ``labels``, a URL, or a folder (ours, or Hugging Face's).

    Raises:
        ConfigurationError: it is none of these, or builtin without an encoder.
    """
    if named == "builtin":
        if not encoders:
            raise ConfigurationError("the builtin teacher needs the folder of an embedding model: --encoder FOLDER")
        return lambda: Builtin([LateInteraction(path, threads=threads) for path in encoders])
    if named == "labels":
        return Labels
    if named.startswith(("http://", "https://")):
        return lambda: Remote(named, key=key)
    folder = Path(named)
    if (folder / "model.onnx").is_file():
        return lambda: Onnx(folder, threads=threads)
    if (folder / "config.json").is_file():
        return lambda: Torch(folder, max_tokens=max_tokens, threads=threads)
    raise ConfigurationError(
        f"--teacher {named}: expected is `builtin`, `labels`, an address of a rerank server, or a folder with "
        "model.onnx (ours) or config.json and weights (Hugging Face's)"
    )
