"""What the embedded node's guard costs: processor time of the node a request, with it and without, by turns."""

from __future__ import annotations

import argparse
import base64
import http.client
import statistics
import time
from contextlib import ExitStack

import harness
import psutil

from app.config import load_settings
from app.dev.guard import USER
from app.dev.node import EmbeddedCluster, start_cluster

SECRET = "0123456789abcdef" * 4
KNOWN = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()}
METHOD = (
    "Two nodes alike, one guarded. GET of a document of one field, one kept connection, in "
    "blocks by turns after warming up; node_us is the processor time of the node's process over the block, by request. "
    "difference_us is paired by round: the median, and the middle half."
)


class Node:
    """One node, and a connection to it."""

    def __init__(self, cluster: EmbeddedCluster, headers: dict[str, str]) -> None:
        self._process = psutil.Process(cluster.pids[0])
        self._connection = http.client.HTTPConnection("127.0.0.1", cluster.ports[0], timeout=60)
        self._headers = headers
        self.expect("PUT", "/bench/_doc/1?refresh=true", 201, b'{"text": "one field"}')

    def expect(self, method: str, path: str, status: int, body: bytes | None = None, known: bool = True) -> None:
        """Send a request and see that it is answered with that status."""
        headers = {"Content-Type": "application/json", **(self._headers if known else {})}
        self._connection.request(method, path, body=body, headers=headers)
        answer = self._connection.getresponse()
        said = answer.read()
        assert answer.status == status, said

    def block(self, requests: int, *, known: bool = True) -> tuple[float, float]:
        """Microseconds of the node's processor time, and of waiting, a request."""
        before, started = self._process.cpu_times(), time.perf_counter()
        for _ in range(requests):
            self.expect("GET", "/bench/_doc/1", 200 if known else 401, known=known)
        waited, after = time.perf_counter() - started, self._process.cpu_times()
        used = after.user + after.system - before.user - before.system
        return used / requests * 1e6, waited / requests * 1e6


def summary(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 1), "low": round(low, 1), "high": round(high, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000, help="of a block")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    settings = load_settings()
    with harness.open_folder() as folder, ExitStack() as stack:

        def start(name: str, secret: str | None) -> Node:
            cluster = start_cluster(settings.machine, data_dir=folder / name, heap_mb=512, secret=secret)
            return Node(stack.enter_context(cluster), KNOWN if secret else {})

        plain, guarded = start("plain", None), start("guarded", SECRET)
        for _ in range(4):
            plain.block(arguments.requests)
            guarded.block(arguments.requests)
        without, with_it, refused = [], [], []
        for number in range(arguments.rounds):
            for node, found in ((plain, without), (guarded, with_it))[:: -1 if number % 2 else 1]:
                found.append(node.block(arguments.requests))
            refused.append(guarded.block(arguments.requests, known=False))
        rows = {"without": without, "guarded": with_it, "refused (401)": refused}
        figures = {
            name: {"node_us": summary([cpu for cpu, _ in row]), "wait_us": summary([wait for _, wait in row])}
            for name, row in rows.items()
        }
        pairs = list(zip(with_it, without, strict=True))
        difference = {
            "node_us": summary([ours[0] - theirs[0] for ours, theirs in pairs]),
            "wait_us": summary([ours[1] - theirs[1] for ours, theirs in pairs]),
        }
        sizes = {"requests_a_block": arguments.requests, "rounds": arguments.rounds}
        harness.write_result("guard", METHOD, {**sizes, "ways": figures, "difference": difference})


if __name__ == "__main__":
    main()
