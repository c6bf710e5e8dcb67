"""The model folder of a cross-encoder: its files, and the settings in `reranker.json`.

model.onnx              or onnx/model.onnx: input_ids, attention_mask, optionally token_type_ids; logits, (n, 1)
tokenizer.json          of the `tokenizers` library
config.json             Hugging Face's
tokenizer_config.json   likewise, for model_max_length; optional
reranker.json           ours; optional
MODEL_CARD.md           data, licences, seeds, figures

`optimum-cli export onnx --task text-classification` writes all of it but the last two.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reranker.calibration import Bound, Calibration, Floats, sigmoid
from reranker.errors import ModelFolderError
from reranker.runtime.model_files import MODEL_FILE, find_model_file, onnx_files

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
TOKENIZER_SETTINGS_FILE = "tokenizer_config.json"
SETTINGS_FILE = "reranker.json"
MODEL_CARD_FILE = "MODEL_CARD.md"
DEFAULT_MAX_TOKENS = 256

Precision = Literal["fp32", "int8", "fp16"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelSettings:
    """Settings of a model."""

    name: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=8)] = DEFAULT_MAX_TOKENS
    """Maximum tokens of a pair, including special tokens."""
    file: Annotated[str, Field(min_length=1)] | None = None
    """Path of the ONNX file in the folder, such as ``onnx/model_quantized.onnx``; None: ``model.onnx``, there or in
    ``onnx``."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the reranker in the final score."""
    precision: Precision = "fp32"
    calibration: Calibration | None = None
    bound: Bound | None = None

    def probability(self, logits: npt.NDArray[np.floating]) -> Floats:
        """Return the probability of relevance of each logit, shape (n,): calibrated, or the plain sigmoid."""
        if self.calibration is None:
            return sigmoid(np.asarray(logits, np.float64))
        return self.calibration.probability(logits)

    def upper_bound(self, fused: npt.NDArray[np.floating]) -> Floats:
        """Return the highest expected probability at each normalised fused score, shape (n,); 1
        without a fitted bound."""
        if self.bound is None:
            return np.ones(np.asarray(fused).shape, np.float64)
        return self.bound.probability(fused)


_ADAPTER = TypeAdapter(ModelSettings)


def load_settings(folder: Path) -> ModelSettings:
    """Read the settings of `folder`; without ``reranker.json`` the defaults, limited to what ``config.json`` allows.

    Raises:
        ModelFolderError: a required file is missing, or a JSON file is invalid; the message says where.
    """
    _check_files(folder)
    config = read_json(folder, CONFIG_FILE)
    labels = config.get("num_labels", len(config.get("id2label") or {0: ""}))
    if labels != 1:
        raise ModelFolderError(
            f"{CONFIG_FILE} in {folder} says num_labels {labels}: a reranker returns one score per pair, so export a "
            "model "
            f"that was trained with num_labels 1"
        )
    places = config.get("max_position_embeddings")
    path = folder / SETTINGS_FILE
    if not path.is_file():
        named = read_json(folder, TOKENIZER_SETTINGS_FILE) if (folder / TOKENIZER_SETTINGS_FILE).is_file() else {}
        limits = (places, named.get("model_max_length"))
        most = min(DEFAULT_MAX_TOKENS, *(int(limit) for limit in limits if isinstance(limit, int | float)))
        return ModelSettings(name=folder.resolve().name, max_tokens=most)
    try:
        found = _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelFolderError(f"{SETTINGS_FILE} in {folder} is unusable: {_first_problem(error)}") from error
    if isinstance(places, int) and found.max_tokens > places:
        raise ModelFolderError(
            f"{SETTINGS_FILE} in {folder} says max_tokens {found.max_tokens}, but the model has {places} positions "
            f"(max_position_embeddings): lower it"
        )
    return found


def write_settings(folder: Path, settings: ModelSettings) -> None:
    """Write `settings` to ``reranker.json`` of `folder` atomically."""
    text = json.dumps(_ADAPTER.dump_python(settings, mode="json", exclude_none=True), indent=2, ensure_ascii=False)
    fresh = folder / f".{SETTINGS_FILE}.{os.getpid()}"
    try:
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(folder / SETTINGS_FILE)
    finally:
        fresh.unlink(missing_ok=True)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read the file `name` as a JSON object.

    Raises:
        ModelFolderError: the file is unreadable or not a JSON object.
    """
    try:
        found = json.loads((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{name} in {folder} is unusable: {error}") from error
    if not isinstance(found, dict):
        raise ModelFolderError(f"{name} in {folder} is not a JSON object")
    return found


def model_file(folder: Path, settings: ModelSettings) -> Path:
    """Return the ONNX file: that of `settings`, else ``model.onnx`` in `folder` or in its ``onnx``.

    Raises:
        ModelFolderError: there is none; the message names those that are there.
    """
    if name := find_model_file(folder, settings.file):
        return folder / name
    remedy = "`braid-reranker export` makes one"
    if found := onnx_files(folder):
        remedy = f'say which of {", ".join(found)} it is in {SETTINGS_FILE}, as {{"name": ..., "file": "{found[0]}"}}'
    raise ModelFolderError(f"no {settings.file or MODEL_FILE} in {folder}: {remedy}")


def _check_files(folder: Path) -> None:
    needed = (MODEL_FILE, TOKENIZER_FILE, CONFIG_FILE)
    if not folder.is_dir():
        raise ModelFolderError(f"there is no folder {folder}: expected one with {', '.join(needed)}")
    missing = [name for name in (TOKENIZER_FILE, CONFIG_FILE) if not (folder / name).is_file()]
    if missing:
        raise ModelFolderError(
            f"no {' and no '.join(missing)} in {folder}: a cross-encoder's folder holds {', '.join(needed)} "
            f"(`braid-reranker export` makes one)"
        )


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    shown = "" if first["type"] in {"missing", "json_invalid"} else f" (got {str(first['input'])[:80]!r})"
    return f"{where + ': ' if where else ''}{first['msg']}{shown}"
