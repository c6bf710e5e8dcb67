"""Each part as a process of its own that is killed, hangs, and comes back: what is answered meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from app.calibration import calibration_for
from app.config import Settings, load_settings
from app.deadline import Deadline
from app.embedding.encoder import Encoder
from app.errors import DeadlineExceeded, RerankerUnavailable, StoreUnavailable
from app.generation.answer import Answer, Generator
from app.search.cross_encoding import RemoteCrossEncoder
from app.store.client import Cluster
from tests.conftest import running_braid
from tests.reranker_model import write_cross_encoder
from tests.service import running_service
from tests.unit.generation.passages import hit

pytestmark = pytest.mark.live

HITS = [hit("The lighthouse was built in 1870. Its lamp turns once a minute. Paint it white.", "a", "Lighthouse")]
QUESTION = "How often does the lamp of the lighthouse turn?"
LLM = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tests.unit.generation.endpoint import complete

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for part in complete("Once a minute [1]."):
            self.wfile.write(part)

    def log_message(self, *arguments):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that says something when it is ready."""
    found = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert found.stdout is not None
    try:
        assert found.stdout.readline(), f"it ended with code {found.wait()}"
        yield found
    finally:
        if found.poll() is None:
            found.send_signal(signal.SIGCONT)
            found.kill()
        found.wait(60)
        found.stdout.close()


def eventually(condition: Callable[[], bool], patience_s: float = 60) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_language_model_that_is_killed_or_hangs_is_replaced_by_quotations_at_once(model_folder: Path) -> None:
    port = free_port()
    settings = load_settings(llm_url=f"http://127.0.0.1:{port}", llm_model="small")
    encoder = Encoder(model_folder, name="all-MiniLM-L6-v2")
    generator = Generator(settings, encoder, calibration_for(settings.embedding, encoder.name))

    def ask(timeout_s: float = 30) -> Answer:
        found = generator.answer(QUESTION, HITS, timeout_s=timeout_s)
        assert "once a minute" in found.text.lower()
        assert found.citations
        return found

    def why() -> str:
        return dict(ask().degraded).get("generation", "").partition(":")[0]

    with process("-c", LLM, str(port)) as server:
        assert ask().model == "small"
        server.kill()
        server.wait(30)
        assert why() == "unreachable"
        eventually(lambda: why() == "unavailable")
    with process("-c", LLM, str(port)) as server:
        eventually(lambda: ask().model == "small")
        server.send_signal(signal.SIGSTOP)
        for _ in range(2):
            assert dict(ask(6).degraded)["generation"].startswith("timeout")
        assert why() == "unavailable", "it was waited for again"
        server.send_signal(signal.SIGCONT)
        eventually(lambda: ask().model == "small")
    generator.close()


def test_a_reranker_that_hangs_is_left_alone_and_tried_again(tmp_path: Path) -> None:
    folder, port = write_cross_encoder(tmp_path / "tiny"), free_port()
    with process("-m", "reranker", "--model", str(folder), "--port", str(port), "--json") as server:
        client = RemoteCrossEncoder(load_settings(reranker_url=f"http://127.0.0.1:{port}").reranker)

        def score(budget_ms: int = 30_000) -> bool:
            try:
                return len(client.score_texts("a fan", ["a fan", "a cake"], Deadline.after(budget_ms)).scores) == 2
            except RerankerUnavailable:
                return False

        assert score()
        (server_process, *workers) = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for one in (server_process, *workers):
            one.suspend()
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                score(300)
        assert not score(), "it was waited for again"
        for one in (server_process, *workers):
            one.resume()
        eventually(score)
        client.close()


@pytest.fixture(scope="module")
def own_up(node_settings: Settings) -> Iterator[dict[str, Any]]:
    """A `braid up` whose parts a test may stop."""
    with running_braid() as up:
        yield up


def test_a_slow_search_is_cancelled_and_a_node_that_hangs_is_not_waited_for(own_up: dict[str, Any]) -> None:
    cluster = Cluster(load_settings(opensearch_url=own_up["opensearch_url"], opensearch_timeout_s=60).opensearch)
    (node,) = nodes_of(own_up["data"], 1).values()
    lines = b"".join(b'{"index": {}}\n{"text": "word"}\n' for _ in range(20_000))
    cluster.request("POST", "/many/_bulk", params={"refresh": "true"}, body=lines)
    # 20,000 times some milliseconds: far longer than anybody waits
    source = "double x = 0; for (int i = 0; i < 100000; i++) { x += Math.sin(i); } return Math.abs(x);"
    slow = {"query": {"script_score": {"query": {"match_all": {}}, "script": {"source": source}}}}

    def running() -> list[bool]:
        """Whether they were cancelled."""
        params = {"actions": "indices:data/read/search*", "detailed": "true"}  # the service searches, too
        tasks = cluster.request("GET", "/_tasks", params=params)["nodes"]
        every = (task for found in tasks.values() for task in found["tasks"].values())
        return [task["cancelled"] for task in every if "many" in task["description"]]

    with pytest.raises(StoreUnavailable, match="did not answer within"):
        cluster.request("POST", "/many/_search", body=slow, timeout_s=0.8)
    eventually(lambda: running() == [True, True])  # the search, and its part on the one shard
    eventually(lambda: not running())

    def there() -> bool:
        try:
            return bool(cluster.request("POST", "/many/_count", timeout_s=1.5)["count"] == 20_000)
        except StoreUnavailable as error:
            refused.append(error.detail)
            return False

    refused: list[str] = []
    assert there()
    os.kill(node, signal.SIGSTOP)
    try:
        eventually(lambda: not there() and "a moment ago" in refused[-1])
    finally:
        os.kill(node, signal.SIGCONT)
    eventually(there)
    cluster.request("DELETE", "/many")
    cluster.close()


def test_searches_find_out_that_the_node_is_frozen_and_say_so(own_up: dict[str, Any]) -> None:
    """One caller with a second each: what comes before the search must not eat it up."""
    body, up = {"query": "why does a turbine vibrate", "timeout_ms": 1000}, own_up
    with httpx2.Client(base_url=up["url"], timeout=60, trust_env=False) as client:
        answer = client.post("/v1/documents", json={"document_id": "one", "text": "Ice makes a turbine vibrate."})
        assert answer.status_code == 200, answer.text
        eventually(lambda: client.post("/v1/search", json=body).json().get("cache") == "exact")
        (pid,) = nodes_of(up["data"], 1).values()
        os.kill(pid, signal.SIGSTOP)
        try:
            told: list[dict[str, Any]] = []
            while len(told) < 5 and "a moment ago" not in (told[-1]["detail"] if told else ""):
                if (answer := client.post("/v1/search", json=body)).status_code != 200:  # or seen before it froze
                    told.append(answer.json())
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {item["status"] for item in told} <= {503, 504}
        # two legs a search, and a question of the cache: three silences are soon there
        assert "a moment ago" in told[-1]["detail"], told
        assert len(told) <= 4, told
        eventually(lambda: client.post("/v1/search", json=body).status_code == 200)


def test_a_valkey_that_ended_is_mentioned_and_the_service_goes_on(own_up: dict[str, Any]) -> None:
    folder = str(own_up["data"] / "valkey")
    (valkey,) = (one for one in psutil.Process(own_up["pid"]).children(recursive=True) if one.cwd() == folder)
    valkey.kill()
    said = own_up["data"].parent / "up.err"
    eventually(lambda: "Valkey ended" in said.read_text())
    body = {"query": "why does a turbine vibrate"}
    answer = httpx2.post(f"{own_up['url']}/v1/search", json=body, timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["cache"]) == (200, "off")


TEXTS = {f"node-{n}": f"Ice on the blades makes turbine {n} vibrate until its bearings fail." for n in range(12)}


class Askers:
    """Searches without a pause from several threads; `answers` are (status, stages that were degraded, hits)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.answers: list[tuple[int, tuple[str, ...], int]] = []
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = len(self.answers) + count
        eventually(lambda: len(self.answers) >= wanted, 400)

    def _ask(self) -> None:
        body = {"query": "why does a turbine vibrate", "cache": False, "timeout_ms": 200_000}
        with httpx2.Client(base_url=self._url, timeout=240, trust_env=False) as client:
            while not self._stop.is_set():
                answer = client.post("/v1/search", json=body)
                found = answer.json()
                if answer.status_code != 200:
                    self.problems.append(f"{time.strftime('%X')} {answer.text}")
                stages = tuple(f"{item['stage']}: {item['reason']}" for item in found.get("degraded", ()))
                self.answers.append((answer.status_code, stages, len(found.get("results", ()))))


# a minute and a half: one node hangs, then the cluster manager, which then dies
@pytest.mark.parametrize("hanging", [False, pytest.param(True, marks=pytest.mark.sweep)], ids=["dies", "hangs"])
def test_one_node_of_three_that_hangs_or_dies_is_not_seen(node_settings: Settings, hanging: bool) -> None:
    # a busy machine takes its time to start three nodes
    env = {"BRAID_OPENSEARCH_TIMEOUT_S": "60"}
    with running_braid("--nodes", "3", env=env) as up, httpx2.Client(timeout=60, trust_env=False) as client:
        addresses = up["opensearch_url"].split(",")
        assert len(addresses) == 3
        for name, text in TEXTS.items():
            answer = client.post(f"{up['url']}/v1/documents", json={"document_id": name, "text": text})
            assert answer.status_code == 200, answer.text
        shards = client.get(f"{addresses[0]}/_cat/shards/braid-passages*", params={"format": "json"}).json()
        assert len({shard["node"] for shard in shards}) == 3, "every node has a copy"
        pids = nodes_of(up["data"])

        def manager(address: str) -> int:
            (found,) = client.get(f"{address}/_cat/cluster_manager", params={"format": "json"}).json()
            return int(found["node"].rpartition("-")[2])

        first = manager(addresses[0])
        with Askers(up["url"]) as askers:
            askers.more(20)
            for number in (first % 3 + 1, first) if hanging else ():  # another one, then the cluster manager
                os.kill(pids[number], signal.SIGSTOP)
                askers.more(60)
                os.kill(pids[number], signal.SIGCONT)
                askers.more(20)
            os.kill(pids[first], signal.SIGKILL)
            askers.more(60)
        assert askers.problems == []
        assert {hits for _, _, hits in askers.answers} == {10}
        # a check of the templates that was under way at the hung node is all that may be missed
        told = {stage.partition(":")[0] for _, stages, _ in askers.answers for stage in stages}
        assert told <= {"readiness"}, told


def nodes_of(data: Path, nodes: int = 3) -> dict[int, int]:
    """Number -> process id of the nodes' Java processes."""
    found: dict[int, int] = {}
    for one in psutil.process_iter(["cmdline"]):
        line: list[Any] = one.info["cmdline"] or []
        for number in range(1, nodes + 1):
            if line and "java" in line[0] and any(f"{data}/opensearch/node-{number}" in part for part in line):
                found[number] = one.pid
    assert set(found) == set(range(1, nodes + 1))
    return found


def test_what_is_more_than_can_be_done_is_told_to_come_back(own_up: dict[str, Any]) -> None:
    store = {"opensearch_url": own_up["opensearch_url"]}
    found: list[httpx2.Response] = []

    def ask(url: str, number: int) -> None:
        with httpx2.Client(base_url=url, timeout=120, trust_env=False) as client:
            for step in range(6):
                body = {"query": f"turbine {number} {step}", "cache": False, "timeout_ms": 60_000}
                found.append(client.post("/v1/search", json=body))
                found.append(client.post("/v1/embeddings", json={"input": f"turbine {number} {step}"}))

    with running_service(concurrency="1", queue="2", **store) as service:
        threads = [threading.Thread(target=ask, args=(service.url, number)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        metrics = httpx2.get(f"{service.url}/metrics", timeout=60, trust_env=False).text
    assert {answer.status_code for answer in found} == {200, 429}
    for answer in found:
        if answer.status_code == 429:
            assert int(answer.headers["Retry-After"]) >= 1
            assert "come back in" in answer.json()["detail"]
    assert 'admission_refused_total{reason="queue-full",work="search"}' in metrics
    assert 'admission_in_flight{work="search"} 0.0' in metrics
