"""`braid evaluate` and `braid tune` as a user runs them, beside a running service that must not suffer from it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.evaluation.measures import MEASURES, measure
from tests.conftest import running_braid
from tests.proxy import Proxy

pytestmark = pytest.mark.live

DOCUMENTS = 60
ALPHAS = (0.0, 0.3, 0.4, 1.0)
RERANK_WEIGHTS = (0.2, 1.0)
LATE = "late-interaction/all-MiniLM-L6-v2"
LINEAR, INDEX = "braid-hybrid-linear", "braid-passages-000001"
Qrels = dict[str, dict[str, int]]
Ranking = list[tuple[str, float]]
"""Documents at their best passages' places, with those passages' scores."""
_SAME = 1e-5
"""Scores that are this near to each other may be ordered either way in another index."""


def words(draw: random.Random) -> list[str]:
    """Words that no language has: which of them go together, no model of a language can know."""
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    return sorted({"".join(draw.choices(syllables, k=3)) for _ in range(150)})[:110]


@dataclass
class MadeUp:
    """A set in BEIR's form whose queries are pairs of such words; a document is as relevant as it has words of it."""

    folder: Path
    queries: dict[str, str] = field(default_factory=dict)
    qrels: Qrels = field(default_factory=dict)

    @classmethod
    def write(cls, folder: Path) -> MadeUp:
        draw = random.Random(7)
        known = words(draw)
        # some are cut into several passages
        texts = [draw.choices(known, k=draw.randint(9, 16) if number % 12 else 150) for number in range(DOCUMENTS)]
        texts[5].append("ERR-4711")
        made = cls(folder)
        pairs = [tuple(draw.sample(draw.choice(texts), 2)) for _ in range(40)]
        for number, pair in enumerate((*pairs, (texts[5][0], "ERR-4711"))):
            query = f"q{number:02}"
            made.queries[query] = " ".join(pair)
            grades = {f"d{place:02}": sum(word in text for word in pair) for place, text in enumerate(texts)}
            made.qrels[query] = {document: grade for document, grade in grades.items() if grade}
        write_set(
            folder,
            corpus=[
                {"_id": f"d{n:02}", "title": " ".join(text[:2]) if n % 5 == 0 else "", "text": " ".join(text)}
                for n, text in enumerate(texts)
            ],
            queries=made.queries,
            qrels=made.qrels,
        )
        return made


def write_set(
    folder: Path,
    *,
    corpus: Sequence[Mapping[str, str]] | None = None,
    queries: Mapping[str, str] | None = None,
    qrels: Mapping[str, Mapping[str, int]] | None = None,
) -> Path:
    folder.mkdir(parents=True)
    if corpus is not None:
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    if queries is not None:
        rows = ({"_id": query, "text": text} for query, text in queries.items())
        (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if qrels is not None:
        lines = [f"{query}\t{doc}\t{grade}\n" for query, judged in qrels.items() for doc, grade in judged.items()]
        (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it wrote, on one line: a table or a terminal's width may have broken it."""
        return " ".join((self.out + self.err).split())


class Braid:
    """The command line and the service, both on one store."""

    def __init__(self, up: dict[str, Any], folder: Path) -> None:
        self._environment = {"BRAID_DATA_DIR": str(up["data"]), "PATH": os.environ["PATH"]}
        self.folder = folder
        self.store = httpx2.Client(base_url=up["opensearch_url"], trust_env=False, timeout=60)
        self.service = httpx2.Client(base_url=up["url"], trust_env=False, timeout=60)
        self.store_url = str(up["opensearch_url"])

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
        env = {**self._environment, **environment}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=Path(__file__).parents[2]
        )

    @staticmethod
    def end(process: subprocess.Popen[str]) -> Done:
        with process:
            out, err = process.communicate(timeout=240)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def run(self, *arguments: object, code: int = 0) -> Done:
        done = self.end(self.start(*arguments))
        assert done.code == code, (done.out, done.err)
        return done

    def run_all(self, *commands: Sequence[object]) -> list[Done]:
        """All at once."""
        return [self.end(process) for process in [self.start(*command) for command in commands]]

    def get(self, path: str) -> Any:
        return self.store.get(path).raise_for_status().json()

    def search(self, query: str, **body: Any) -> dict[str, Any]:
        answer = self.service.post("/v1/search", json={"query": query, "size": 100, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["degraded"] == []
        return found

    def ranking(self, query: str, **body: Any) -> Ranking:
        best: dict[str, float] = {}
        for item in self.search(query, **body)["results"]:
            best.setdefault(item["document_id"], item["score"])
        return list(best.items())

    def evaluation_indexes(self) -> list[str]:
        return [row["index"] for row in self.get("/_cat/indices/braid-evaluation-*?format=json")]

    def tuning(self) -> Any:
        ready = self.service.get("/readyz")
        return ready.json()["opensearch"]["tuning"] if ready.status_code == 200 else None

    def pipeline(self) -> tuple[int, Any]:
        """Version and weights of the linear one."""
        body = self.get(f"/_search/pipeline/{LINEAR}")[LINEAR]
        processor = body["phase_results_processors"][0]["normalization-processor"]
        return body["version"], processor["combination"]["parameters"]["weights"]

    def in_force(self, version: int) -> None:
        """Wait until the service goes by it."""
        wait_until(lambda: self.tuning() == version)

    def live_data(self, queries: Sequence[str]) -> dict[str, Any]:
        """What the tenant's data are, and what is found in them."""
        self.store.post("/braid-passages/_refresh")
        rows = self.get("/_cat/indices/*?format=json&h=index,uuid,docs.count")
        found = [self.search(query)["results"] for query in queries]
        return {
            "indexes": sorted(tuple(row.values()) for row in rows if not row["index"].startswith("braid-queries")),
            "aliases": self.get("/_alias/braid-passages*"),
            "found": [[(item["id"], item["score"]) for item in results] for results in found],
        }


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end, "it did not come in two minutes"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return MadeUp.write(tmp_path_factory.mktemp("sets") / "made-up")


@pytest.fixture(scope="module")
def braid(node_settings: Any, made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Braid]:
    """A service that holds the same documents as the set's corpus."""
    # a busy machine is no reason to stop reranking in these tests
    with running_braid(env={"BRAID_RERANK_BUDGET_MS": "8000"}) as up:
        found = Braid(up, tmp_path_factory.mktemp("reports"))
        found.run("ingest", made_up.folder / "corpus.jsonl", "--source", "evaluation")
        yield found
        found.store.close()
        found.service.close()


@pytest.fixture(scope="module")
def report(braid: Braid, made_up: MadeUp) -> dict[str, Any]:
    """What `braid evaluate` says of the whole set."""
    before = braid.live_data(["lamu", made_up.queries["q07"]])
    done = braid.run("evaluate", made_up.folder, "--out", braid.folder / "first", "--json", "--workers", "3")
    assert braid.live_data(["lamu", made_up.queries["q07"]]) == before
    assert braid.evaluation_indexes() == []
    found: dict[str, Any] = json.loads(done.out)
    return found


def way(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [item for item in report["ways"] if item["name"] == name]
    assert isinstance(found, dict)
    return found


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """All that must be the same however the run went."""
    return {item["name"]: (item["means"], item["per_query"], item["failed"]) for item in report["ways"]}


def over_http() -> dict[str, dict[str, Any]]:
    """Each way's options of ``/v1/search``."""
    linear = {
        f"linear {alpha:g}": {"fusion": {"method": "linear", "alpha": alpha}, "rerank": False} for alpha in ALPHAS
    }
    reranked = {f"learned + rerank at {weight:g}": {"rerank": {"weight": weight}} for weight in RERANK_WEIGHTS}
    return {
        "BM25": {"mode": "lexical"},
        "dense": {"mode": "dense"},
        "RRF": {"fusion": {"method": "rrf"}, "rerank": False},
        **linear,
        "learned": {"rerank": False},
        "learned + rerank": {},  # as a search is answered that says nothing
        **reranked,
    }


def with_ties(ranking: Ranking, grades: Mapping[str, int], *, best: bool) -> list[str]:
    """The ranking with documents of the same score in the order that is best, or worst, for the figures."""
    sign = -1 if best else 1
    tied: list[list[str]] = []
    last = float("inf")
    for document, score in ranking:
        if last - score > _SAME:
            tied.append([])
        tied[-1].append(document)
        last = score
    return [doc for group in tied for doc in sorted(group, key=lambda doc: sign * grades.get(doc, 0))]


def test_three_reports_are_written_and_the_index_and_the_legs_are_gone(
    braid: Braid, report: dict[str, Any], made_up: MadeUp
) -> None:
    folder = braid.folder / "first"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    assert figures(json.loads((folder / "report.json").read_bytes())) == figures(report)
    assert "BM25" in (folder / "report.md").read_text()
    assert "</html>" in (folder / "report.html").read_text()
    assert report["queries"] == made_up.queries
    assert {item["failed"] for item in report["ways"]} == {0}
    assert [item["name"] for item in report["ways"]][:2] == ["BM25", "dense"]
    assert way(report, "BM25")["means"]["NDCG@10"] > way(report, "dense")["means"]["NDCG@10"] + 0.1
    assert report["context"]["reranker"] == LATE
    reranked = [item for item in report["ways"] if item["group"] == "rerank"]
    assert [item["name"] for item in reranked] == [
        "learned + rerank",
        *(f"learned + rerank at {weight:g}" for weight in (0.2, 0.6, 0.8, 1)),
    ]
    assert {item["alpha"] for item in reranked} == {None}
    assert reranked[0]["note"] == f"{LATE}, first 50 candidates, weight 0.4"
    assert reranked[0]["ms_p50"] > 0


@pytest.fixture(scope="module")
def found(braid: Braid, made_up: MadeUp) -> dict[str, dict[str, Ranking]]:
    """Way -> query -> what ``/v1/search`` finds in the live store."""
    with ThreadPoolExecutor(4) as users:
        return {
            name: dict(
                zip(
                    made_up.queries,
                    users.map(partial(braid.ranking, **options), made_up.queries.values()),
                    strict=True,
                )
            )
            for name, options in over_http().items()
        }


@pytest.mark.parametrize("name", list(over_http()))
def test_its_figures_are_those_of_searching_over_http(
    report: dict[str, Any], found: dict[str, dict[str, Ranking]], made_up: MadeUp, name: str
) -> None:
    low, high = (
        measure(made_up.qrels, {q: with_ties(r, made_up.qrels[q], best=best) for q, r in found[name].items()})
        for best in (False, True)
    )
    measured = way(report, name)
    # documents that tie in a leg have another rank in another index: what stands there moves a little, and so does a
    # weight that is predicted from it; with the very same index there is no difference (below)
    if name == "RRF" or name.startswith("learned"):
        assert measured["means"]["NDCG@10"] == pytest.approx(low.means["NDCG@10"], abs=0.03)
        return
    for figure in MEASURES:
        for query, value in measured["per_query"][figure].items():
            assert low.per_query[figure][query] - 1e-6 <= value <= high.per_query[figure][query] + 1e-6, (figure, query)
    # of most queries no tie decides: there the bounds are one value
    certain = [query for query in made_up.qrels if low.per_query["MAP"][query] == high.per_query["MAP"][query]]
    assert len(certain) > 30


def test_a_set_without_a_corpus_is_judged_against_what_the_store_holds(
    braid: Braid, found: dict[str, dict[str, Ranking]], made_up: MadeUp
) -> None:
    folder = write_set(braid.folder / "live", queries=made_up.queries, qrels=made_up.qrels)
    before = braid.live_data(["lamu"])
    done = braid.run("evaluate", folder, "--out", braid.folder / "live-report", "--json")
    report = json.loads(done.out)
    assert report["context"]["corpus"] == "what the store holds"
    for name, rankings in found.items():
        documents = {query: [document for document, _ in ranking] for query, ranking in rankings.items()}
        wanted, measured = measure(made_up.qrels, documents), way(report, name)
        assert measured["means"] == pytest.approx(wanted.means, abs=1e-9)
        assert measured["per_query"]["NDCG@10"] == pytest.approx(wanted.per_query["NDCG@10"], abs=1e-6)
    assert braid.live_data(["lamu"]) == before


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def bad_sets(folder: Path, made_up: MadeUp) -> dict[str, tuple[Path, str]]:
    """Sets that can't be measured -> what the command must say."""
    corpus = [{"_id": "d00", "title": "", "text": "lamu depo"}, {"_id": "d01", "title": "", "text": "rifa"}]
    queries, qrels = {"q1": "lamu"}, {"q1": {"d00": 1}}
    return {
        "no qrels": (write_set(folder / "a", corpus=corpus, queries=queries), "qrels"),
        "no queries": (write_set(folder / "b", corpus=corpus, qrels=qrels), "there are no queries"),
        "empty queries": (write_set(folder / "c", corpus=corpus, queries={}, qrels=qrels), "queries.jsonl"),
        "blank queries": (write_set(folder / "d", corpus=corpus, queries={"q1": " "}, qrels=qrels), "can be measured"),
        "unknown queries": (
            write_set(folder / "e", corpus=corpus, queries=queries, qrels={"x": {"d00": 1}}),
            "they must be the same",
        ),
        "unknown documents": (
            write_set(folder / "f", corpus=corpus, queries=queries, qrels={"q1": {"x": 1}}),
            "none of the 1 relevant documents is in it",
        ),
        "nothing relevant": (
            write_set(folder / "g", corpus=corpus, queries=queries, qrels={"q1": {"d00": 0}}),
            "no document is relevant to any query",
        ),
        "no folder": (folder / "h", "the folder does not exist"),
    }


def test_a_run_that_is_stopped_cut_off_and_killed_goes_on_and_gives_the_same_figures(
    braid: Braid, report: dict[str, Any], made_up: MadeUp, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    legs = out / "legs.jsonl"
    command = ("evaluate", made_up.folder, "--out", out, "--rate", "12")
    kept = b""

    def reaches(process: subprocess.Popen[str], count: int) -> None:
        def there() -> bool:
            assert process.poll() is None, process.communicate()
            return lines(legs) >= count

        wait_until(there)
        assert legs.read_bytes().startswith(kept), "what an earlier run had found was thrown away"

    # Ctrl-C
    process = braid.start(*command)
    reaches(process, 2)
    first, began = lines(legs), time.monotonic()
    reaches(process, 10)
    assert lines(legs) - first <= 12 * (time.monotonic() - began) + 3, "the rate is above what was asked for"
    process.send_signal(signal.SIGINT)
    stopped = braid.end(process)
    assert stopped.code == 130
    kept = b"\n".join(legs.read_bytes().split(b"\n")[:8])
    assert len(braid.evaluation_indexes()) == 1
    # the cluster goes away for a moment, then for good
    there, _, port = braid.store_url.rpartition(":")
    with Proxy(int(port)) as proxy:
        process = braid.start(*command, BRAID_OPENSEARCH_URL=f"{there}:{proxy.port}")
        reaches(process, 13)
        proxy.cut()
        time.sleep(1)
        proxy.mend()
        reaches(process, 18)
        proxy.cut()
        others = bad_sets(tmp_path / "bad", made_up)
        for (name, (_, said)), done in zip(
            others.items(), braid.run_all(*(("evaluate", folder) for folder, _ in others.values())), strict=True
        ):
            assert done.code == 1, (name, done.said)
            assert "Invalid input" in done.said, (name, done.said)
            assert said in done.said, (name, done.said)
        away = braid.end(process)
        searched = lines(legs) - 1
    assert away.code == 1
    assert f"{searched} of {len(made_up.queries)} queries were searched; repeat the command to resume" in away.said
    assert f"127.0.0.1:{proxy.port}" in away.said
    assert not (out / "report.json").exists()
    kept = legs.read_bytes()
    # killed
    process = braid.start(*command)
    reaches(process, 25)
    process.kill()
    assert braid.end(process).code == -signal.SIGKILL
    kept = b"\n".join(legs.read_bytes().split(b"\n")[:20])
    # and at last
    braid.run(*command[:-2], "--json")
    assert figures(json.loads((out / "report.json").read_bytes())) == figures(report)
    assert braid.evaluation_indexes() == []
    assert not legs.exists()


def test_what_is_odd_in_a_set_is_told_and_the_rest_is_measured(braid: Braid, tmp_path: Path) -> None:
    corpus = [{"_id": f"d{n % 11:02}", "title": "", "text": f"lamu depo number{n}"} for n in range(12)]
    odd = write_set(
        tmp_path / "odd",
        corpus=corpus,
        queries={"q1": "number3", "q2": " ", "q3": "number4"},
        qrels={"q1": {"d03": 1, "gone": 1}, "q2": {"d01": 1}, "q9": {"d01": 1}, "q3": {"d04": 1}},
    )
    tiny = write_set(tmp_path / "tiny", corpus=corpus[:1], queries={"q": "lamu"}, qrels={"q": {"d00": 1}})
    outs = {folder: tmp_path / f"{folder.name}-report" for folder in (odd, tiny)}
    first, second = braid.run_all(
        ("evaluate", odd, "--out", outs[odd]), ("evaluate", tiny, "--out", outs[tiny], "--keep")
    )
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    for finding in ("duplicate-document", "unknown-document", "empty-query", "judged-query-missing"):
        assert f"{finding}: 1 x" in first.said
    found = json.loads((outs[odd] / "report.json").read_bytes())
    assert way(found, "BM25")["per_query"]["Recall@100"] == {"q1": 0.5, "q3": 1.0}
    assert "every way finds the same ones (1 in total)" in second.said
    assert "Recall@100" in second.out  # no column is cut short where the table goes into a pipe
    assert way(json.loads((outs[tiny] / "report.json").read_bytes()), "dense")["means"]["NDCG@10"] == 1.0
    (kept,) = braid.evaluation_indexes()
    assert kept.startswith("braid-evaluation-tiny-")
    assert f"the index {kept} was kept" in second.said
    # the corpus changed: what left it leaves the index that was kept
    rows = ({"_id": f"e{n}", "title": "", "text": "rifa"} for n in range(2))
    (tiny / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tiny / "qrels.tsv").write_text("q\te1\t1\n")
    braid.run("evaluate", tiny, "--out", outs[tiny], "--keep")
    braid.store.post(f"/{kept}/_refresh")
    assert braid.get(f"/{kept}/_count")["count"] == 2
    braid.store.delete(f"/{kept}").raise_for_status()


@pytest.fixture(scope="module")
def tuned(braid: Braid, made_up: MadeUp) -> Path:
    """The file that `braid tune` writes for the set."""
    before = braid.live_data(["lamu", made_up.queries["q07"]])
    pipelines, components = braid.get("/_search/pipeline"), braid.get("/_component_template/braid-*")
    done = braid.run("tune", made_up.folder, "--out", braid.folder / "tuned")
    assert braid.live_data(["lamu", made_up.queries["q07"]]) == before
    assert (braid.get("/_search/pipeline"), braid.get("/_component_template/braid-*")) == (pipelines, components)
    assert braid.evaluation_indexes() == []
    assert "measurably better: +" in done.said
    assert "apply it with `braid tune apply" in done.said
    names = {path.name for path in (braid.folder / "tuned").iterdir()}
    assert names == {"tuning.json", "tuning.md", f"{LINEAR}.json"}
    return braid.folder / "tuned" / "tuning.json"


@dataclass
class Poller:
    """Asks over and over what a load balancer and a user would; `bad` holds every answer that was no success."""

    braid: Braid
    asked: int = 0
    bad: list[tuple[float, str, httpx2.Response]] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[Poller]:
        stop = threading.Event()
        paths = ("/readyz", "/v1/search")
        threads = [threading.Thread(target=self._ask, args=(path, stop)) for path in paths]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert self.asked > 10

    def _ask(self, path: str, stop: threading.Event) -> None:
        with httpx2.Client(base_url=self.braid.service.base_url, trust_env=False, timeout=60) as service:
            while not stop.is_set():
                if path == "/readyz":
                    answer = service.get(path)
                else:
                    answer = service.post(path, json={"query": f"lamu {self.asked}"})
                self.asked += 1
                if answer.status_code != 200:
                    self.bad.append((time.monotonic(), path, answer))
                stop.wait(0.05)


def explained(braid: Braid, query: str) -> dict[str, Any]:
    found: dict[str, Any] = braid.search(query, explain=True)["explanation"]
    return found


def results(braid: Braid, made_up: MadeUp, **body: Any) -> list[Ranking]:
    return [braid.ranking(text, **body) for text in list(made_up.queries.values())[:8]]


def test_tune_writes_what_it_found(tuned: Path, made_up: MadeUp) -> None:
    body = json.loads(tuned.read_bytes())
    assert body["better"] is True
    assert body["tuning"]["alpha"] < 0.3  # the dense leg is noise here
    assert body["tuning"]["version"] == 0
    about = body["tuning"]["about"]
    assert about["set"] == "made-up"
    assert sum(about["queries"].values()) == len(made_up.queries)
    assert about["queries"]["tuned on"] > about["queries"]["held out"]
    assert body["held_out"]["tuned"]["NDCG@10"] > body["held_out"]["before"]["NDCG@10"]
    assert body["failed"] == {}
    tried = [step["tried"] for step in body["steps"]]
    assert about["reranker"] == LATE
    assert {"without the reranker: for comparison", "reranker's share 0.4, 50 deep: as it is"} <= set(tried)
    rerank = body["tuning"]["rerank"]
    assert rerank is None or (rerank["reranker"] == LATE and rerank["depth"] <= 50)
    assert {"as it is", "phrase boost 0.0", "k1 0.9, b 0.75", "z_score, 100 candidates"} <= set(tried)
    pipeline = json.loads((tuned.parent / f"{LINEAR}.json").read_bytes())
    processor = pipeline["phase_results_processors"][0]["normalization-processor"]
    assert processor["combination"]["parameters"]["weights"][1] == body["tuning"]["native_alpha"]
    page = (tuned.parent / "tuning.md").read_text()
    assert body["verdict"] in page
    assert all(name in page for name in tried)


def test_a_tuning_is_put_in_force_without_a_pause_and_taken_back(
    braid: Braid, tuned: Path, made_up: MadeUp, tmp_path: Path
) -> None:
    query = made_up.queries["q03"]
    before, pipeline, explanation = results(braid, made_up), braid.pipeline(), explained(braid, query)
    assert (braid.tuning(), explanation["tuning"]) == (0, 0)
    body = json.loads(tuned.read_bytes())
    tuning = body["tuning"] | {"bm25": {"k1": 1.2, "b": 0.75}}  # others would close the index for a second
    tuning["rerank"] = tuning["rerank"] or {"reranker": LATE, "weight": 0.7, "depth": 20}
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps(body | {"tuning": tuning}))
    poller = Poller(braid)
    with poller.watching():
        assert "tuning 1 is in force" in braid.run("tune", "apply", first).said
        braid.in_force(1)
    assert poller.bad == []
    now = explained(braid, query)
    assert now["tuning"] == 1
    assert now["fusion"]["alpha"] == tuning["alpha"]
    assert now["fusion"]["weight"] == "tuned"
    assert now["candidates"] == tuning["candidates"]
    assert now["rerank"]["reranker"] == LATE
    assert (now["rerank"]["weight"], now["rerank"]["of"]) == (tuning["rerank"]["weight"], tuning["rerank"]["depth"])
    weights = [1 - tuning["native_alpha"], tuning["native_alpha"]]
    assert braid.pipeline() == (1001, pytest.approx(weights))
    ready_to_put = json.loads((tuned.parent / f"{LINEAR}.json").read_bytes())
    assert braid.get(f"/_search/pipeline/{LINEAR}")[LINEAR] == ready_to_put
    assert results(braid, made_up) != before

    # templates: no difference, unless somebody else's weights are in the pipeline
    assert "matches this service" in braid.run("templates", "diff").said
    body = braid.get(f"/_search/pipeline/{LINEAR}")[LINEAR]
    processor = body["phase_results_processors"][0]["normalization-processor"]
    processor["combination"]["parameters"]["weights"] = [0.5, 0.5]
    braid.store.put(f"/_search/pipeline/{LINEAR}", json=body).raise_for_status()
    (drift,) = json.loads(braid.run("templates", "diff", "--json", code=1).out)
    shown = braid.run("templates", "diff", code=1).out  # a pipe: nothing of it is cut
    assert "…" not in shown
    assert all(drift[part] in shown for part in ("kind", "name", "field"))
    assert (drift["name"], drift["found"]) == (LINEAR, ["0.5", "0.5"])
    applied = braid.run("templates", "apply", "--json")
    assert {"kind": "search pipeline", "name": LINEAR, "action": "updated"} in json.loads(applied.out)
    assert braid.pipeline() == (1001, pytest.approx(weights))

    # a second one
    another = {"reranker": "cross-encoder/another", "weight": 0.1, "depth": 3}
    changed = {**tuning, "alpha": 0.85, "native_alpha": 0.8, "rerank": another}
    second.write_text(json.dumps({"better": True, "tuning": changed}))
    assert "tuning 2 is in force" in braid.run("tune", "apply", second).said
    braid.in_force(2)
    explanation_2 = explained(braid, query)
    assert explanation_2["fusion"]["alpha"] == 0.85
    # what was tuned for another reranker says nothing about this one
    assert (explanation_2["rerank"]["weight"], explanation_2["rerank"]["of"]) == (0.4, 50)
    assert braid.pipeline() == (1002, pytest.approx([0.2, 0.8]))
    rows = json.loads(braid.run("tune", "history", "--json").out)
    assert [(row["version"], row["alpha"], row["in_force"]) for row in rows] == [
        (0, 0.4, False),
        (1, tuning["alpha"], False),
        (2, 0.85, True),
    ]

    # and back, one at a time
    poller = Poller(braid)
    with poller.watching():
        assert "tuning 1 is in force" in braid.run("tune", "rollback").said
        braid.in_force(1)
    assert poller.bad == []
    assert explained(braid, query) == now
    assert "tuning 0 is in force" in braid.run("tune", "rollback").said
    braid.in_force(0)
    assert results(braid, made_up) == before
    assert (braid.pipeline(), explained(braid, query)) == (pipeline, explanation)
    nothing, unknown, table = braid.run_all(
        ("tune", "rollback"), ("tune", "rollback", "--to", "9"), ("tune", "history")
    )
    assert (nothing.code, unknown.code, table.code) == (1, 1, 0)
    assert "there is nothing to roll back" in nothing.said
    assert "there is no tuning 9; existing ones: 0 (as shipped), 1, 2" in unknown.said
    assert "in force │ 0 (as shipped)" in table.said
    assert "made-up" in table.said


def test_what_must_not_be_put_in_force_is_refused(braid: Braid, tuned: Path, tmp_path: Path) -> None:
    good = json.loads(tuned.read_bytes())
    files = {
        "not better": ({**good, "better": False}, "was not measurably better"),
        "wrong value": ({**good, "tuning": {**good["tuning"], "alpha": 2}}, "tuning.alpha: "),
        "unknown field": ({**good, "tuning": {**good["tuning"], "beta": 1}}, "tuning.beta: "),
        "other model": (
            {**good, "tuning": {**good["tuning"], "about": {"embedding_model": "e5-small-v2"}}},
            "was tuned with the embedding model e5-small-v2",
        ),
        "no tuning": ({"better": True}, "contains no tuning"),
        "no object": ([1], "contains no tuning"),
    }
    state = (braid.get("/_component_template/braid-*"), braid.pipeline())
    for name, (body, _) in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(body))
    (tmp_path / "no JSON.json").write_bytes(b"\xff\x00{")
    wanted = {name: said for name, (_, said) in files.items()}
    wanted |= {"no JSON": "contains no tuning", "missing": "No such file"}
    ended = braid.run_all(*(("tune", "apply", tmp_path / f"{name}.json") for name in wanted))
    for (name, said), done in zip(wanted.items(), ended, strict=True):
        assert done.code == 1, (name, done.said)
        assert said in done.said, (name, done.said)
        assert f"{name}.json" in done.said
    assert (braid.get("/_component_template/braid-*"), braid.pipeline()) == state


def test_k1_and_b_of_the_live_index_change_and_come_back(braid: Braid, made_up: MadeUp, tmp_path: Path) -> None:
    before, hybrid = results(braid, made_up, mode="lexical"), results(braid, made_up)
    file = tmp_path / "by hand.json"
    file.write_text(json.dumps({"better": False, "tuning": {"alpha": 0.4, "bm25": {"k1": 0.9, "b": 0.4}}}))
    poller = Poller(braid)
    with poller.watching():
        done = braid.run("tune", "apply", file, "--force")
        version = next(n for n in range(1, 100) if f"tuning {n} is in force" in done.said)
        braid.in_force(version)
    assert f"closing {INDEX} for a moment, to give it k1 0.9 and b 0.4" in done.said
    assert_short_and_clear(poller)
    now = results(braid, made_up, mode="lexical")
    assert now != before
    assert now[0][0][1] != before[0][0][1]
    found = braid.get(f"/{INDEX}/_settings")[INDEX]["settings"]["index"]["similarity"]["braid_bm25"]
    assert (found["k1"], found["b"]) == ("0.9", "0.4")
    assert "matches this service" in braid.run("templates", "diff").said

    # a run that was killed while the index was closed, and a tuning in force that nobody can read
    braid.store.post(f"/{INDEX}/_close").raise_for_status()
    broken = {"template": {}, "_meta": {"tuning": {"alpha": 7}}}
    braid.store.put("/_component_template/braid-tuning", json=broken).raise_for_status()
    wait_until(lambda: braid.service.get("/readyz").status_code == 503)
    assert "braid-tuning contains no tuning" in braid.run("tune", "rollback", code=1).said
    braid.run("tune", "rollback", "--to", "0")
    braid.in_force(0)
    assert results(braid, made_up, mode="lexical") == before
    assert results(braid, made_up) == hybrid


def assert_short_and_clear(poller: Poller) -> None:
    """A closed index is said to be closed, or its parts to be in change, and soon no more."""
    if poller.bad:
        assert poller.bad[-1][0] - poller.bad[0][0] < 30
    for _, path, answer in poller.bad:
        assert answer.status_code in {502, 503}, answer.text
        body = answer.json()
        if path == "/readyz":
            assert body["ready"] is False
            assert body["problems"]
        else:
            assert answer.headers["content-type"] == "application/problem+json"
            assert body["title"]
            assert body["detail"]
            assert body["request_id"]
