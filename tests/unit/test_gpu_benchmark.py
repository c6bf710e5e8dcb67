"""`benchmarks/gpu.py` on a machine without a GPU: it says so, and what it measures runs on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.config import Settings
from app.provision.models import ensure_model
from reranker.quantize import convert_fp16
from tests.reranker_model import write_cross_encoder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a few short texts in place of many."""
    # for good: onnxruntime's tools add a folder of their own to the path, which `syspath_prepend` would take away again
    sys.path.append(str(BENCHMARKS))
    import gpu as script

    for name, value in {
        "BATCHES": (1, 2),
        "TEXTS": 16,
        "QUERIES": 2,
        "PAIRS": 4,
        "TOKENS": 20,
        "VOCABULARY": 40,
    }.items():
        monkeypatch.setattr(script, name, value)
    return script


@pytest.fixture
def folders(gpu: ModuleType, model_folder: Path, embedded_settings: Settings, tmp_path: Path) -> Any:
    """The real encoder and a tiny cross-encoder; `make_folders` takes half a minute."""
    int8 = ensure_model("all-MiniLM-L6-v2", "int8", embedded_settings.machine)
    pairs = write_cross_encoder(tmp_path / "pairs")
    convert_fp16(pairs, tmp_path / "pairs-fp16")
    return {
        "encoder": {"fp32": model_folder, "int8": int8},
        "cross-encoder": {"fp32": pairs, "fp16": tmp_path / "pairs-fp16"},
    }


def test_without_a_gpu_it_says_so(model_folder: Path, gpu: ModuleType) -> None:
    if gpu.unusable(model_folder / "model.onnx", "cuda") is None:
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not run: the provider 'cuda' is not usable here")


def test_every_way_runs_on_the_cpu(gpu: ModuleType, folders: Any, tmp_path: Path) -> None:
    found = gpu.measure("cpu", folders, tmp_path, gpu.Clock(5, 0.0))
    served = found["as served"]
    for precision, least in {"fp32": 0.99999, "int8": 0.9}.items():
        assert served["encoder"][precision]["smallest_cosine"] >= least
        assert served["encoder"][precision]["query"]["texts_per_second"] > 0
    for precision, most in {"fp32": 1e-4, "fp16": 0.1}.items():
        assert served["cross-encoder"][precision]["largest_difference"] < most
        assert served["cross-encoder"][precision]["pairs"]["ms"]["n"] == 2
    for kind, by_precision in folders.items():
        for precision in by_precision:
            cells = found["by batch"][kind][precision]
            assert {*cells} == {"1", "2"}, cells
            assert cells["2"]["bound"]["texts_per_second"] > 0
    assert found["tensorrt"] == "not run: no GPU"


def test_what_is_late_or_fails_is_said(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.Clock(0, 1).cell(lambda: None, 1) == "not run: the time was up"
    said = gpu.attempt(lambda: gpu.encoder_served(tmp_path, "cpu", [], gpu.Clock(1, 0), None))
    assert said.startswith("failed: ConfigurationError: ")
