"""The parts of a service as real processes behind proxies, for `faults.py`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import harness
import psutil
from proxy import FaultyProxy

sys.path.insert(0, str(harness.ROOT))
from app.config import load_settings
from app.dev.node import EmbeddedCluster, start_cluster
from app.dev.valkey import start_valkey
from tests.reranker_model import write_cross_encoder

LLM = "benchmark-llm"


class ChatEndpoint:
    """Streams a completion that cites the first passage, `pieces` times, with a pause between."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                self.close_connection = True
                with contextlib.suppress(OSError):
                    for number in range(owner.pieces):
                        self._event({"content": f"So say the passages, part {number} [1]. "}, None)
                        time.sleep(owner.pause_s)
                    self._event({}, "stop")
                    self.wfile.write(b"data: [DONE]\n\n")

            def _event(self, delta: dict[str, str], finish: str | None) -> None:
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": LLM, "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self.pieces, self.pause_s = 2, 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Process:
    """A part that can be killed and started again; `start` gives its process id and port."""

    def __init__(self, proxy: FaultyProxy, start: Callable[[], tuple[int, int]]) -> None:
        self._proxy, self._start = proxy, start
        self.pid, self._proxy.target = start()

    def _signal(self, number: signal.Signals) -> None:
        """To the process and those that it started."""
        process = psutil.Process(self.pid)
        for each in [process, *process.children(recursive=True)]:
            each.send_signal(number)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def again(self) -> None:
        self.pid, self._proxy.target = self._start()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)


class Parts:
    """All parts but the service, behind proxies."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.settings = load_settings()
        self._nodes: list[EmbeddedCluster] = []
        self.proxies = {
            name: stack.enter_context(FaultyProxy(9)) for name in ("opensearch", "redis", "reranker", "llm")
        }
        self._model = write_cross_encoder(folder / "reranker")
        self.chat = ChatEndpoint()
        stack.callback(self.chat.close)
        self.proxies["llm"].target = self.chat.port
        starts = {"opensearch": self._opensearch, "redis": self._redis, "reranker": self._reranker}
        self.processes = {name: Process(self.proxies[name], start) for name, start in starts.items()}

    def env(self) -> dict[str, str]:
        """Where the service finds them."""
        ports = {name: proxy.port for name, proxy in self.proxies.items()}
        return {
            "BRAID_OPENSEARCH_URL": f"http://127.0.0.1:{ports['opensearch']}",
            "BRAID_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
            "BRAID_RERANKER_URL": f"http://127.0.0.1:{ports['reranker']}",
            "BRAID_LLM_URL": f"http://127.0.0.1:{ports['llm']}",
            "BRAID_LLM_MODEL": LLM,
        }

    def _opensearch(self) -> tuple[int, int]:
        for node in self._nodes:
            node.stop()
        node = start_cluster(self.settings.machine, data_dir=self._folder / "node", heap_mb=512)
        self._stack.callback(node.stop)
        self._nodes.append(node)
        return node.pids[0], node.ports[0]

    def _redis(self) -> tuple[int, int]:
        server = start_valkey(data_dir=self._folder / "valkey")
        self._stack.callback(server.stop)
        return server.pid, server.port

    def _reranker(self) -> tuple[int, int]:
        command = [sys.executable, "-m", "reranker", "--model", str(self._model), "--port", "0", "--provider", "cpu"]
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, cwd=harness.ROOT)
        self._stack.callback(_end, process)
        assert process.stdout is not None
        return process.pid, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    process.terminate()
    process.wait(30)
