"""An ONNX Runtime session on the best provider that this machine has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state as _state  # type: ignore[import-untyped]

from app.errors import ConfigurationError

log = logging.getLogger(__name__)

Provider = Literal["cuda", "openvino", "cpu"]

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    _state.EPFail,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
)
"""What ONNX Runtime raises; its classes have no common base but `Exception`."""

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
                model, _options(threads), providers=[(_NAMES[candidate], _OPTIONS[candidate])]
            )
        except RUNTIME_ERRORS as error:
            if candidate == "cpu":
                raise ConfigurationError(f"ONNX Runtime can't load {model.name}: {_first_line(error)}") from error
            log.warning("the embedding model can't run on %s: %s", candidate, _first_line(error))
            continue
        if session.get_providers()[0] == _NAMES[candidate]:
            return session, candidate
    raise ConfigurationError(
        f"BRAID_EMBEDDING_PROVIDER={wanted} can't be used here (found: {', '.join(available)}): install "
        f"{_PACKAGES[candidates[0]]} in place of onnxruntime, with its drivers, or set it to auto or cpu"
    )


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # every batch has its own shape: plans kept per shape would only grow (benchmarks/encode.md)
    options.enable_mem_pattern = False
    # OpenSearch shares these cores: waiting threads must not burn them
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
