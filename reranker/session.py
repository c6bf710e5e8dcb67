"""An ONNX Runtime session on the best provider that this machine has, and how a batch is run on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped]
import platformdirs
from onnxruntime.capi import onnxruntime_pybind11_state as _state  # type: ignore[import-untyped]

from reranker.errors import ConfigurationError, ModelFolderError

log = logging.getLogger(__name__)

Provider = Literal["tensorrt", "cuda", "openvino", "cpu"]
WantedProvider = Literal["auto", "tensorrt", "cuda", "openvino", "cpu"]

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

ON_GPU: frozenset[Provider] = frozenset({"tensorrt", "cuda"})
_NAMES: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_PACKAGES: dict[Provider, str] = {
    "tensorrt": "onnxruntime-gpu and TensorRT's libraries",
    "cuda": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "cpu": "onnxruntime",
}
# TensorRT builds an engine for minutes at its first start, so `auto` never takes it
_AUTO: tuple[Provider, ...] = ("cuda", "openvino", "cpu")


def open_session(
    model: Path, *, wanted: WantedProvider, threads: int, longest: int, budget_on_gpu: int
) -> tuple[Any, Provider]:
    """Load `model` and say on which provider it runs: the `wanted` one, or for ``auto`` CUDA > OpenVINO > CPU.

    A build of ONNX Runtime may name a provider whose driver is missing and then silently run on the CPU: what the
    session reports is what counts.

    Args:
        model: the ONNX file.
        wanted: provider to use.
        threads: of one inference.
        longest: tokens of the longest pair, for TensorRT's shapes.
        budget_on_gpu: padded tokens of the largest batch, likewise.

    Raises:
        ConfigurationError: the wanted provider can't be used here.
        ModelFolderError: the file is no ONNX model.
    """
    candidates = _AUTO if wanted == "auto" else (wanted,)
    available = ort.get_available_providers()
    for candidate in candidates:
        if _NAMES[candidate] not in available:
            continue
        try:
            session = ort.InferenceSession(
                model, _options(threads), providers=_providers(candidate, model, longest, budget_on_gpu)
            )
        except RUNTIME_ERRORS as error:
            if candidate == "cpu":
                raise ModelFolderError(f"ONNX Runtime can't load {model}: {first_line(error)}") from error
            log.warning("the reranker's model can't run on %s: %s", candidate, first_line(error))
            continue
        if session.get_providers()[0] == _NAMES[candidate]:
            return session, candidate
    raise ConfigurationError(
        f"the reranker's provider {wanted!r} can't be used here (found: {', '.join(available)}): install "
        f"{_PACKAGES[candidates[0]]} in place of onnxruntime, with its drivers, or set it to auto or cpu"
    )


def run(session: Any, provider: Provider, feed: Mapping[str, npt.NDArray[Any]], output: str) -> npt.NDArray[Any]:
    """One batch. On a GPU through IO binding: the inputs are copied there once, and only the logits come back."""
    if provider not in ON_GPU:
        found: npt.NDArray[Any] = session.run([output], dict(feed))[0]
        return found
    return run_bound(session, feed, output, device="cuda")


def run_bound(session: Any, feed: Mapping[str, npt.NDArray[Any]], output: str, *, device: str) -> npt.NDArray[Any]:
    """One batch by IO binding, the inputs on `device`, the output in this machine's memory."""
    binding = session.io_binding()
    for name, values in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), device, 0))
    binding.bind_output(output, "cpu")
    session.run_with_iobinding(binding)
    found: npt.NDArray[Any] = binding.copy_outputs_to_cpu()[0]
    return found


def first_line(error: Exception) -> str:
    """What an error says, cut to one line."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def session_options(threads: int) -> Any:
    """What every session of ours runs with, the embedding model's too."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # every batch has its own shape: plans kept per shape would only grow (benchmarks/encode.md)
    options.enable_mem_pattern = False
    # OpenSearch and others share these cores: waiting threads must not burn them
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _options(threads: int) -> Any:
    options = session_options(threads)
    # int8 weights that use the whole range saturate in AVX2's and AVX-512's u8 x s8 product where the CPU has no VNNI:
    # ONNX Runtime then turns them into u8 (weights of reduced range, as quantize.py makes, stay as they are). It would
    # also do so on a CPU with VNNI, which needs it not and takes twice as long
    options.add_session_config_entry("session.x64quantprecision", "0" if _has_vnni() else "1")
    return options


def _has_vnni() -> bool:
    """Whether this CPU multiplies int8 without saturating; False where nobody can tell."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _providers(provider: Provider, model: Path, longest: int, budget: int) -> list[Any]:
    if provider == "cpu":
        return [_NAMES["cpu"]]
    if provider == "openvino":
        # on CPUs with bf16 OpenVINO may lower the precision on its own
        hint = {"device_type": "CPU", "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'}
        return [(_NAMES["openvino"], hint)]
    # no TF32: scores made on a GPU are those that a CPU makes
    cuda = (_NAMES["cuda"], {"use_tf32": "0"})
    if provider == "cuda":
        return [cuda]
    return [(_NAMES["tensorrt"], _tensorrt(model, longest, budget)), cuda]


def _tensorrt(model: Path, longest: int, budget: int) -> dict[str, str]:
    """One engine for all shapes from a single short pair to the largest batch, kept for the next start."""
    inputs = [node.name for node in ort.InferenceSession(model, providers=[_NAMES["cpu"]]).get_inputs()]

    def shapes(pairs: int, tokens: int) -> str:
        return ",".join(f"{name}:{pairs}x{tokens}" for name in inputs)

    # short pairs make large batches, but a profile is a box: a batch beyond it would build another engine
    pairs = max(1, budget // 8)
    return {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_timing_cache_enable": "1",
        "trt_engine_cache_path": str(Path(platformdirs.user_cache_dir("braid")) / "tensorrt"),
        "trt_profile_min_shapes": shapes(1, 1),
        "trt_profile_opt_shapes": shapes(max(1, budget // longest), longest),
        "trt_profile_max_shapes": shapes(pairs, longest),
    }
