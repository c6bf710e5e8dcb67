"""An ONNX Runtime session on the best provider that this machine has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort  # type: ignore[import-untyped]

from app.errors import ConfigurationError
from reranker.session import RUNTIME_ERRORS, first_line, session_options

log = logging.getLogger(__name__)

Provider = Literal["cuda", "openvino", "cpu"]

_NAMES: dict[Provider, str] = {
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_OPTIONS: dict[Provider, dict[str, str]] = {
    # no TF32: vectors made on a GPU are those that a CPU makes
    "cuda": {"use_tf32": "0"},
    # on CPUs with bf16 OpenVINO may lower the precision on its own
    "openvino": {"device_type": "CPU", "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'},
    "cpu": {},
}
_PACKAGES: dict[Provider, str] = {"cuda": "onnxruntime-gpu", "openvino": "onnxruntime-openvino", "cpu": "onnxruntime"}


def open_session(
    model: Path, *, wanted: Literal["auto", "cuda", "openvino", "cpu"], threads: int
) -> tuple[Any, Provider]:
    """Load `model` and say on which provider it runs: the `wanted` one, or for ``auto`` CUDA > OpenVINO > CPU.

    A build of ONNX Runtime may name a provider whose driver is missing and then silently run on the CPU: what the
    session reports is what counts.

    Raises:
        ConfigurationError: the wanted provider can't be used here, or the file is no ONNX model.
    """
    candidates: tuple[Provider, ...] = ("cuda", "openvino", "cpu") if wanted == "auto" else (wanted,)
    available = ort.get_available_providers()
    for candidate in candidates:
        if _NAMES[candidate] not in available:
            continue
        try:
            session = ort.InferenceSession(
                model, session_options(threads), providers=[(_NAMES[candidate], _OPTIONS[candidate])]
            )
        except RUNTIME_ERRORS as error:
            if candidate == "cpu":
                raise ConfigurationError(f"ONNX Runtime can't load {model.name}: {first_line(error)}") from error
            log.warning("the embedding model can't run on %s: %s", candidate, first_line(error))
            continue
        if session.get_providers()[0] == _NAMES[candidate]:
            return session, candidate
    raise ConfigurationError(
        f"BRAID_EMBEDDING_PROVIDER={wanted} can't be used here (found: {', '.join(available)}): install "
        f"{_PACKAGES[candidates[0]]} in place of onnxruntime, with its drivers, or set it to auto or cpu"
    )
