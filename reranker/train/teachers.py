"""Teachers: each scores the candidates of a query; higher is more relevant, on any scale."""

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
"""Share of late interaction in the builtin teacher, beside the fused score (measured on SciFact and NFCorpus)."""
_REMOTE_TIMEOUT_S = 120.0
_ATTEMPTS = 4


class Teacher(Protocol):
    """Scores all candidates of a query."""

    name: str

    def scores(self, ranking: Ranking) -> Scores:
        """Return a score for each candidate, (n,), finite."""
        ...


@dataclass
class BuiltinTeacher:
    """Mean of the first stage's score and late interaction over embedding models, each min-max scaled."""

    encoders: Sequence[LateInteraction]
    late_share: float = LATE_SHARE

    def __post_init__(self) -> None:
        self.name = "builtin: fused + late interaction over " + " and ".join(item.name for item in self.encoders)

    def scores(self, ranking: Ranking) -> Scores:
        texts = ranking.texts
        late = np.mean([min_max(encoder.scores(ranking.query, texts)) for encoder in self.encoders], axis=0)
        fused = min_max(np.array(ranking.scores, np.float64))
        found: Scores = (1.0 - self.late_share) * fused + self.late_share * late
        return found


class LabelTeacher:
    """Teacher without scores: only judgements teach."""

    name = "judgements alone"

    def scores(self, ranking: Ranking) -> Scores:
        return np.zeros(len(ranking.candidates))


class OnnxTeacher:
    """A cross-encoder in our model format, run by our runtime."""

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        """Load the model. Raises ModelFolderError."""
        from reranker.cross_encoder import CrossEncoder

        self._model = CrossEncoder(folder, threads=threads)
        self.name = f"cross-encoder {self._model.name}"

    def scores(self, ranking: Ranking) -> Scores:
        scored = self._model.score(ranking.query, ranking.texts)
        return np.asarray(scored.logits, np.float64)


class TorchTeacher:
    """A Hugging Face sequence classifier with one label, run by torch."""

    def __init__(self, folder: Path, *, max_tokens: int = 256, threads: int = 2) -> None:
        """Load the model. Raises ModelFolderError."""
        import torch

        from reranker.train.scoring import TorchScorer
        from reranker.train.students import load_classifier

        torch.set_num_threads(threads)
        self._scorer = TorchScorer(load_classifier(folder), folder, max_tokens=max_tokens)
        self.name = f"cross-encoder {folder.resolve().name}"

    def scores(self, ranking: Ranking) -> Scores:
        return self._scorer.logits(ranking.query, ranking.texts)


class RemoteTeacher:
    """A server with ``POST /v1/rerank`` (Cohere's and Jina's form)."""

    def __init__(self, url: str, *, key: str | None = None, model: str | None = None) -> None:
        """Accept `url` with or without ``/v1/rerank``; `key` is sent as a bearer token and never logged."""
        self._url = url if url.rstrip("/").endswith("rerank") else url.rstrip("/") + "/v1/rerank"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(timeout=_REMOTE_TIMEOUT_S, headers=headers)
        self._model = {"model": model} if model else {}
        self.name = f"remote reranker{f' {model}' if model else ''}"

    def scores(self, ranking: Ranking) -> Scores:
        body = {
            **self._model,
            "query": ranking.query,
            "documents": ranking.texts,
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
                f"{self._url}: {int((~np.isfinite(found)).sum())} of {len(found)} documents have no score"
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
        raise InferenceError(f"{self._url}: the teacher does not answer ({reason}): repeat the command to resume")


def teacher_of(
    named: str, *, encoders: Sequence[Path], key: str | None, threads: int, max_tokens: int
) -> Callable[[], Teacher]:
    """Return a function that opens the teacher `named`: ``builtin``, ``labels``, a URL or a model folder.

    Raises:
        ConfigurationError: `named` is none of these, or builtin without an encoder.
    """
    if named == "builtin":
        if not encoders:
            raise ConfigurationError("the builtin teacher needs the folder of an embedding model: --encoder FOLDER")
        return lambda: BuiltinTeacher([LateInteraction(path, threads=threads) for path in encoders])
    if named == "labels":
        return LabelTeacher
    if named.startswith(("http://", "https://")):
        return lambda: RemoteTeacher(named, key=key)
    folder = Path(named)
    if (folder / "model.onnx").is_file():
        return lambda: OnnxTeacher(folder, threads=threads)
    if (folder / "config.json").is_file():
        return lambda: TorchTeacher(folder, max_tokens=max_tokens, threads=threads)
    raise ConfigurationError(
        f"--teacher {named}: expected `builtin`, `labels`, the URL of a rerank server, or a folder with "
        "model.onnx (ours) or config.json and weights (Hugging Face's)"
    )
