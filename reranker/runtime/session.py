"""ONNX Runtime session on the best available provider, and running a batch on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import platformdirs
import threadpoolctl

from reranker.errors import ConfigurationError, ModelFolderError

try:
    import onnxruntime as ort  # type: ignore[import-untyped]
    from onnxruntime.capi import onnxruntime_pybind11_state as _state  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError(
        "no ONNX Runtime is installed, or two of them have overwritten each other: pip uninstall -y onnxruntime "
        "onnxruntime-gpu onnxruntime-openvino, then pip install 'braid-rag[cpu]' (or [gpu], or [openvino])",
        name="onnxruntime",
    ) from error

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
"""Errors that ONNX Runtime raises; their only common base is `Exception`."""

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
_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
"""Packages of ONNX Runtime: one Python module, so that only the one installed last is whole."""
# TensorRT builds an engine for minutes at its first start, so `auto` never picks it
_AUTO: tuple[Provider, ...] = ("cuda", "openvino", "cpu")


class ProviderUnusable(Exception):
    """No wanted provider runs on this machine."""


def open_session(
    model: Path, *, wanted: WantedProvider, threads: int, longest: int, budget_on_gpu: int
) -> tuple[Any, Provider]:
    """Load a cross-encoder; return the session and its provider.

    Args:
        longest: tokens of the longest pair, for the shapes of TensorRT.
        budget_on_gpu: padded tokens of the largest batch, for the same.

    Raises:
        ConfigurationError: the wanted provider is not usable on this machine.
        ModelFolderError: the file is not an ONNX model.
    """
    try:
        return first_usable(
            model, wanted, _options(threads), lambda name: _providers(name, model, longest, budget_on_gpu)
        )
    except RUNTIME_ERRORS as error:
        raise ModelFolderError(f"ONNX Runtime can't load {model}: {first_line(error)}") from error
    except ProviderUnusable as error:
        raise ConfigurationError(f"the reranker's provider {wanted!r} {error}") from error


def first_usable(
    model: Path, wanted: WantedProvider, options: Any, providers: Callable[[Provider], list[Any]]
) -> tuple[Any, Provider]:
    """Load `model` on the first provider that runs it: `wanted`, or for ``auto`` CUDA > OpenVINO > CPU.

    A build of ONNX Runtime may list a provider whose driver is missing and then silently run on the CPU, so only the
    provider that the session reports counts.

    From now on numpy's products run in one thread each: those around a model are small, and BLAS threads spin between
    them, on cores that the session, OpenSearch and other requests need (a MaxSim took five times its processor time).

    Raises:
        ProviderUnusable: none runs it; the message says what to install.
        One of RUNTIME_ERRORS: the file is not an ONNX model.
    """
    threadpoolctl.threadpool_limits(1, user_api="blas")
    candidates = _AUTO if wanted == "auto" else (wanted,)
    available = ort.get_available_providers()
    for candidate in candidates:
        if _NAMES[candidate] not in available:
            continue
        if candidate in ON_GPU:
            ort.preload_dlls()  # CUDA's libraries may be Python packages, which the loader does not look for
        try:
            session = ort.InferenceSession(model, options, providers=providers(candidate))
        except RUNTIME_ERRORS as error:
            if candidate == "cpu":
                raise
            log.warning("%s can't run on %s: %s", model, candidate, first_line(error))
            continue
        if session.get_providers()[0] == _NAMES[candidate]:
            return session, candidate
    raise ProviderUnusable(
        f"is not usable here (found: {', '.join(available)}): install {_PACKAGES[candidates[0]]} in place of "
        "onnxruntime, with its drivers, or set it to auto or cpu"
    )


def run(session: Any, provider: Provider, feed: Mapping[str, npt.NDArray[Any]], output: str) -> npt.NDArray[Any]:
    """Run one batch. On a GPU with IO binding: inputs are copied there once, and only the logits come back."""
    if provider not in ON_GPU:
        found: npt.NDArray[Any] = session.run([output], dict(feed))[0]
        return found
    return run_bound(session, feed, output, device="cuda")


def run_bound(session: Any, feed: Mapping[str, npt.NDArray[Any]], output: str, *, device: str) -> npt.NDArray[Any]:
    """Run one batch with IO binding: inputs on `device`, output in this machine's memory."""
    binding = session.io_binding()
    for name, values in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), device, 0))
    binding.bind_output(output, "cpu")
    session.run_with_iobinding(binding)
    found: npt.NDArray[Any] = binding.copy_outputs_to_cpu()[0]
    return found


def installed_builds() -> dict[str, str]:
    """Return the installed packages of ONNX Runtime and their versions; more than one is a mistake."""
    found = {}
    for package in _BUILDS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def session_options(threads: int) -> Any:
    """Return the options common to all our sessions, including the embedding model's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # every batch has its own shape, so cached memory plans would only grow (benchmarks/encode.md)
    options.enable_mem_pattern = False
    # OpenSearch and others share these cores, so waiting threads must not spin
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _options(threads: int) -> Any:
    options = session_options(threads)
    # int8 weights that use the whole range saturate in the u8 x s8 product of AVX2 and AVX-512 if the CPU has no VNNI.
    # With this option ONNX Runtime converts them to u8 (weights of reduced range, as quantize.py makes them, stay). It
    # would do so on a CPU with VNNI as well, where that is not needed and takes twice as long.
    options.add_session_config_entry("session.x64quantprecision", "0" if _has_vnni() else "1")
    return options


def _has_vnni() -> bool:
    """Return whether this CPU multiplies int8 without saturating; False if unknown."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def provider_options(provider: Provider) -> tuple[str, dict[str, str]]:
    """Return a provider other than TensorRT as ONNX Runtime wants it, with its options."""
    if provider == "openvino":
        # OpenVINO may lower the precision on its own on CPUs with bf16
        return _NAMES[provider], {"device_type": "CPU", "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'}
    # no TF32: results on a GPU must equal those on a CPU
    return _NAMES[provider], {"use_tf32": "0"} if provider == "cuda" else {}


def _providers(provider: Provider, model: Path, longest: int, budget: int) -> list[Any]:
    if provider == "tensorrt":
        return [(_NAMES["tensorrt"], _tensorrt(model, longest, budget)), provider_options("cuda")]
    return [provider_options(provider)]


def _tensorrt(model: Path, longest: int, budget: int) -> dict[str, str]:
    """Return TensorRT options for one engine for all shapes, from one short pair to the largest
    batch, cached on disk."""
    inputs = [node.name for node in ort.InferenceSession(model, providers=[_NAMES["cpu"]]).get_inputs()]

    def shapes(pairs: int, tokens: int) -> str:
        return ",".join(f"{name}:{pairs}x{tokens}" for name in inputs)

    # short pairs make large batches, but a profile is a box: a batch outside it would build another engine
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
