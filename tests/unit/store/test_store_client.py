"""The connection to a cluster of several addresses: real HTTP servers that die, hang, break off and refuse."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.config import load_settings
from app.errors import StoreError, StoreUnavailable
from app.store.client import Cluster, StoreBusy, StoreRequestError

SEARCH = "/braid-passages/_search"
FOUND: dict[str, object] = {"hits": {}}


class Node:
    """A server that answers each request as it is told; `seen` holds method, path, query and headers' end."""

    def __init__(self, port: int = 0) -> None:
        self.status, self.body = 200, json.dumps(FOUND).encode()
        self.hang = threading.Event()
        self.freed = threading.Event()
        self.cut = False
        self.seen: list[tuple[str, str]] = []
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                node.seen.append((self.command, self.path))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if node.hang.is_set():
                    node.freed.wait(60)
                    self.close_connection = True
                    return
                if node.cut:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.send_response(node.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(node.body)))
                self.end_headers()
                self.wfile.write(node.body)

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the library

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def searches(self) -> list[str]:
        return [path for _, path in self.seen if "_search" in path]

    def stop(self) -> None:
        self.freed.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    found = [Node() for _ in range(3)]
    yield found
    for node in found:
        node.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def connect(*addresses: str, **settings: Any) -> Cluster:
        made.append(Cluster(load_settings(opensearch_url=",".join(addresses), **settings).opensearch))
        return made[-1]

    yield connect
    for cluster in made:
        cluster.close()


def dead() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def search(cluster: Cluster, timeout_s: float = 20) -> Any:
    return cluster.request("POST", SEARCH, body={"query": {"match_all": {}}}, timeout_s=timeout_s)


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_all_addresses_are_asked(nodes: list[Node], connect: Callable[..., Cluster]) -> None:
    cluster = connect(*(node.url for node in nodes))
    for _ in range(60):
        assert search(cluster) == FOUND
    assert all(node.searches for node in nodes)


def test_a_search_is_cancelled_in_the_cluster_when_its_time_is_over(
    nodes: list[Node], connect: Callable[..., Cluster]
) -> None:
    search(connect(nodes[0].url), 7)
    (path,) = nodes[0].searches
    assert "cancel_after_time_interval=6" in path or "cancel_after_time_interval=7000ms" in path
    assert "preference" not in path
    cluster = connect(nodes[1].url)
    cluster.request("GET", "/_cat/indices")
    assert nodes[1].seen == [("GET", "/_cat/indices")]


def test_one_address_that_is_dead_is_never_seen(nodes: list[Node], connect: Callable[..., Cluster]) -> None:
    cluster = connect(dead(), nodes[0].url)
    for _ in range(20):
        assert search(cluster) == FOUND


def test_while_one_is_away_the_others_ask_nobody_else(nodes: list[Node], connect: Callable[..., Cluster]) -> None:
    cluster = connect(dead(), nodes[0].url)
    eventually(lambda: bool(search(cluster)) and cluster._hosts.some_away)
    seen = len(nodes[0].seen)
    search(cluster)
    cluster.request("GET", "/braid-keys/_doc/a")
    cluster.request("GET", "/_cat/indices")
    assert ["preference=_local" in path for _, path in nodes[0].seen[seen:]] == [True, True, False]


@pytest.mark.parametrize("status", [502, 503])
def test_what_reads_is_sent_again_elsewhere(nodes: list[Node], connect: Callable[..., Cluster], status: int) -> None:
    nodes[0].status, nodes[0].body = status, b"{}"
    cluster = connect(nodes[0].url, nodes[1].url)
    for _ in range(20):
        assert search(cluster) == FOUND
        assert cluster.request("GET", "/x") == FOUND


def test_a_connection_that_breaks_is_made_again(nodes: list[Node], connect: Callable[..., Cluster]) -> None:
    nodes[0].cut = True
    cluster = connect(nodes[0].url, nodes[1].url)
    for _ in range(20):
        assert search(cluster) == FOUND


@pytest.mark.parametrize("path", ["/_bulk", "/x/_delete_by_query", "/x/_update_by_query", "/x/_doc"])
def test_what_writes_is_sent_once(nodes: list[Node], connect: Callable[..., Cluster], path: str) -> None:
    for node in nodes:
        node.status, node.body = 503, b"{}"
    with pytest.raises(StoreBusy):
        connect(*(node.url for node in nodes)).request("POST", path, body={"a": 1})
    assert sum(len(node.seen) for node in nodes) == 1
    for node in nodes:
        node.cut = True
    with pytest.raises(StoreUnavailable):
        connect(*(node.url for node in nodes)).request("POST", path, body={"a": 1})
    assert sum(len(node.seen) for node in nodes) == 2


def test_what_writes_goes_elsewhere_where_nothing_had_been_sent(
    nodes: list[Node], connect: Callable[..., Cluster]
) -> None:
    for _ in range(8):
        assert connect(dead(), dead(), nodes[0].url).request("PUT", "/x/_doc/1", body={"a": 1}) == FOUND
    assert len(nodes[0].seen) == 8


def test_a_refusal_is_an_answer(nodes: list[Node], connect: Callable[..., Cluster]) -> None:
    for node in nodes:
        node.status = 400
        node.body = json.dumps({"error": {"type": "parsing_exception", "reason": "no"}, "status": 400}).encode()
    cluster = connect(*(node.url for node in nodes))
    for _ in range(10):
        with pytest.raises(StoreRequestError, match="parsing_exception"):
            search(cluster)
    assert sum(len(node.seen) for node in nodes) == 10
    assert not cluster._hosts.some_away


def test_a_hung_address_costs_a_delay_and_is_then_left_alone(
    nodes: list[Node], connect: Callable[..., Cluster]
) -> None:
    nodes[0].hang.set()
    cluster = connect(nodes[0].url, nodes[1].url)
    eventually(lambda: search(cluster) == FOUND and bool(nodes[0].seen))
    assert cluster._hosts.some_away, "another address answered the same, so it was the address"
    seen = len(nodes[0].searches)
    for _ in range(10):
        assert search(cluster) == FOUND
    assert len(nodes[0].searches) == seen
    assert "preference=_local" in nodes[1].searches[-1]
    nodes[0].hang.clear()
    nodes[0].freed.set()
    # a thread of its own finds out that it is back: no search waits for that
    eventually(lambda: search(cluster) == FOUND and not cluster._hosts.some_away)
    assert ("GET", "/") in nodes[0].seen


def test_shards_that_fail_are_asked_for_again_and_then_stated(
    nodes: list[Node], connect: Callable[..., Cluster]
) -> None:
    partial = {"_shards": {"total": 2, "failed": 1}, "hits": {"hits": []}}
    nodes[0].body = json.dumps(partial).encode()
    nodes[1].body = json.dumps({"_shards": {"total": 2, "failed": 0}, "hits": {}}).encode()
    cluster = connect(nodes[0].url, nodes[1].url)
    for _ in range(10):
        assert search(cluster)["_shards"]["failed"] == 0
    assert nodes[0].searches
    nodes[1].body = nodes[0].body
    assert search(cluster) == partial
    assert search(connect(nodes[0].url)) == partial
    with pytest.raises(StoreUnavailable, match="partial answer"):
        cluster.request_all_shards(SEARCH, {})


def test_a_cluster_that_is_away_is_not_waited_for_by_each_request(connect: Callable[..., Cluster]) -> None:
    address = dead()
    cluster = connect(address)
    until = time.monotonic() + 30
    while True:
        with pytest.raises(StoreUnavailable) as caught:
            search(cluster)
        if "a moment ago" in caught.value.detail:
            break
        assert time.monotonic() < until
    node = Node(int(address.rpartition(":")[2]))
    try:

        def answers() -> bool:
            try:
                return bool(search(cluster) == FOUND)
            except StoreUnavailable:
                return False

        eventually(answers)
    finally:
        node.stop()


def test_a_caller_with_little_time_says_nothing_about_the_cluster(
    nodes: list[Node], connect: Callable[..., Cluster]
) -> None:
    nodes[0].hang.set()
    cluster = connect(nodes[0].url)
    for _ in range(6):
        with pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
            search(cluster, 0.1)
    nodes[0].freed.set()
    nodes[0].hang.clear()
    assert search(cluster) == FOUND


def test_a_cluster_that_hangs_is_found_out_by_callers_who_have_a_second(
    nodes: list[Node], connect: Callable[..., Cluster]
) -> None:
    nodes[0].hang.set()
    cluster = connect(nodes[0].url)
    details = []
    for _ in range(4):
        with pytest.raises(StoreUnavailable) as caught:
            search(cluster, 0.75)  # of a second, the legs of a search get so much
        details.append(caught.value.detail)
    nodes[0].freed.set()
    nodes[0].hang.clear()
    assert ["a moment ago" in detail for detail in details] == [False, False, False, True]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (SEARCH, {"message": "hello"}),
        (SEARCH, {"hits": []}),
        (SEARCH, [1]),
        ("/braid-passages/_count", {"count": "many"}),
        ("/braid-passages/_mget", {"docs": {}}),
    ],
)
def test_what_no_cluster_says_is_none_of_its_answers(
    nodes: list[Node], connect: Callable[..., Cluster], path: str, answer: object
) -> None:
    nodes[0].body = json.dumps(answer).encode()
    with pytest.raises(StoreError, match="did not answer like OpenSearch"):
        connect(nodes[0].url).request("POST", path, body={})


def test_addresses_are_checked_one_by_one() -> None:
    settings = load_settings(opensearch_url=" http://a:9200/ , https://b:9200/path,http://a:9200")
    assert settings.opensearch.urls == ("http://a:9200", "https://b:9200/path")
    assert load_settings().opensearch.urls == ()
