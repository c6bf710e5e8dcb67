"""One ONNX Runtime: its three packages are one Python module, so that two of them break each other."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from app.dev import checks

ROOT = Path(__file__).parents[2]
RUNTIMES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}
LOCKS = {
    "requirements.lock": "onnxruntime",
    "requirements-dev.lock": "onnxruntime",
    "requirements-train.lock": "onnxruntime",
    "requirements-gpu.lock": "onnxruntime-gpu",
    "requirements-openvino.lock": "onnxruntime-openvino",
    "requirements-llm.lock": None,
}


def runtimes(requirements: str) -> list[str]:
    """The packages of ONNX Runtime among requirements, one a line."""
    names = re.findall(r"^\s*([A-Za-z0-9_.-]+)", requirements, re.MULTILINE)
    return [name for name in names if name in RUNTIMES.values()]


def test_each_extra_carries_one_and_nothing_else_carries_any() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert runtimes(setup["options"]["install_requires"]) == []
    assert {name: found for name in extras if (found := runtimes(extras[name]))} == {
        extra: [package] for extra, package in RUNTIMES.items()
    }


def test_each_lock_holds_one_at_most() -> None:
    assert {path.name for path in ROOT.glob("*.lock")} == set(LOCKS)
    for name, package in LOCKS.items():
        assert runtimes((ROOT / name).read_text()) == ([package] if package else []), name


@pytest.mark.parametrize("command", ["ingest", "serve", "doctor"])
def test_without_one_a_command_names_the_extra(command: str) -> None:
    program = (
        f"import sys; sys.modules['onnxruntime'] = None; sys.argv = ['braid', {command!r}, '.']; "
        "from app.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "braid-rag[cpu]" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_are_a_warning_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks._runtime().status == "ok"
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(checks, "installed_builds", lambda: both)
    found = checks._runtime()
    assert found.status == "warning"
    assert found.remedy.startswith("pip uninstall -y onnxruntime onnxruntime-gpu, then pip install")
