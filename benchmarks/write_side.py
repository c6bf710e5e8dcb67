"""One side of `write_costs.py`: does what it is told with the code on its PYTHONPATH, and says what it took.

Reads orders from stdin, one JSON object a line, and answers each with one line.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.config import load_settings
from app.ingest.records import ready_document
from app.ingest.run import IngestOptions, ingest_paths
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.rendering import compose, render

DIMENSION = 384
_WORDS = Path(__file__).resolve().parent.parent / "tests" / "writers" / "encoder.py"


class _Counting(Cluster):
    """Counts its requests."""

    requests = 0

    def request(self, *arguments: Any, **options: Any) -> Any:
        _Counting.requests += 1
        return super().request(*arguments, **options)


class _Side:
    def __init__(self, url: str, name: str) -> None:
        spec = importlib.util.spec_from_file_location("words", _WORDS)
        assert spec is not None
        assert spec.loader is not None
        words = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(words)
        self.encoder = words.WordEncoder(DIMENSION)
        self.settings = load_settings(opensearch_url=url)
        self.whole = _Counting(self.settings.opensearch)
        self.name = name
        try:
            self.heads: Any = importlib.import_module("app.store.heads")
            self.single: Any = importlib.import_module("app.ingest.single")
        except ImportError:  # the old code has neither
            self.heads, self.single = None, None
        self.cluster: Cluster = self.whole

    def fresh(self, number: int) -> None:
        """An empty index."""
        self.cluster = self.whole.within(f"{self.name}-{number}")
        body = compose(render(self.settings, "faiss-exact", DIMENSION))
        del body["settings"]["index"]["default_pipeline"]
        alias = {f"{self.name}-{number}": {"is_write_index": True}}
        self.cluster.request("PUT", f"/{self.name}-{number}-000001", body={**body, "aliases": alias})
        if self.heads is not None:
            self.heads.ensure_index(self.cluster)

    def drop(self) -> None:
        """Remove it."""
        names = [f"{self.cluster.read_alias}-000001"]
        if self.heads is not None:
            names.append(self.cluster.heads_index)
        self.cluster.request("DELETE", f"/{','.join(names)}")

    def put(self, key: str, text: str) -> None:
        fields = {"document_id": key, "text": text}
        document = ready_document(fields, tenant="costs", source_id="costs")
        run = self.single or importlib.import_module("app.ingest.run")
        run.ingest_document(document, settings=self.settings, cluster=self.cluster, encoder=self.encoder)

    def patch(self, key: str, entry: str) -> None:
        if self.single is not None:
            self.single.change_readers(self.cluster, Scope("costs"), key, {"acl": (entry,)})
        else:
            importlib.import_module("app.ingest.access").change_readers(self.cluster, Scope("costs"), key, [entry])

    def delete(self, key: str) -> None:
        if self.single is not None:
            self.single.delete_document(self.cluster, Scope("costs"), key)
        else:
            importlib.import_module("app.store.documents").delete_documents(self.cluster, Scope("costs"), [key])

    def timed(self, call: Callable[[], None]) -> tuple[float, int]:
        """Milliseconds and requests of one call."""
        before, begun = _Counting.requests, time.perf_counter()
        call()
        return (time.perf_counter() - begun) * 1000, _Counting.requests - before

    def documents(self, block: str, count: int, sentences: int) -> dict[str, list[tuple[float, int]]]:
        """Each of `count` documents is written, replaced, given other readers and deleted."""
        text = " ".join(f"Sentence number {n} of this document says little." for n in range(sentences))
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in ("new", "replacing", "patch", "delete")}
        keys = [f"{block}-{n}" for n in range(count)]
        for key in keys:
            found["new"].append(self.timed(lambda key=key: self.put(key, f"First of {key}. {text}")))
        for key in keys:
            found["replacing"].append(self.timed(lambda key=key: self.put(key, f"Second of {key}. {text}")))
        for key in keys:
            found["patch"].append(self.timed(lambda key=key: self.patch(key, "hr")))
        for key in keys:
            found["delete"].append(self.timed(lambda key=key: self.delete(key)))
        return found

    def ingest(self, path: str) -> dict[str, Any]:
        """`braid ingest` of a file, without its start and without the model."""
        before, begun, cpu = _Counting.requests, time.perf_counter(), _cpu_s()
        options = IngestOptions(source_id="costs", tenant="costs", tagging=False, parse_workers=1)
        report = ingest_paths(
            [Path(path)], settings=self.settings, cluster=self.cluster, encoder=self.encoder, options=options
        )
        assert not report.failed, report.failed[:3]
        return {
            "seconds": time.perf_counter() - begun,
            "cpu_s": _cpu_s() - cpu,
            "requests": _Counting.requests - before,
            "new": report.new,
            "changed": report.changed,
            "unchanged": report.unchanged,
        }


def _cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(item.ru_utime + item.ru_stime for item in used)


def main() -> None:
    """Obey."""
    side = _Side(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        order = json.loads(line)
        what = order.pop("do")
        print(json.dumps(getattr(side, what)(**order)), flush=True)


if __name__ == "__main__":
    main()
