"""`braid inspect` on indexes that Braid did not make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.cli import main
from app.config.retrieval import OpenSearchSettings
from app.embedding.encoder import Encoder
from app.errors import ConfigurationError, InvalidInput, StoreError
from app.inspection.checks import CHECKS
from app.inspection.findings import Finding, Severity
from app.inspection.queries import read_query_set
from app.inspection.reader import PermissionMissing, Reader, TimeBudget
from app.inspection.report import as_html
from app.inspection.run import Inspection, inspect
from app.inspection.subject import SampleSizes, Subject, open_subject
from tests.http_recorder import recorded
from tests.live.foreign_index import FUSING, Node, on_node, rows, vector_field

SIZES = SampleSizes(documents=60, queries=12, judged=40)


@pytest.fixture(scope="module")
def node(opensearch_url: str) -> Iterator[Node]:
    with on_node(opensearch_url) as found:
        yield found


def no_encoder() -> Encoder:
    raise ConfigurationError("this test has no model")


def opened(url: str, name: str, **options: Any) -> Subject:
    reader = Reader(OpenSearchSettings(url=url, timeout_s=30), TimeBudget.after(200_000))
    return open_subject(reader, name, sizes=SIZES, **options)


def examined(node: Node, name: str, *only: str, url: str | None = None, **options: Any) -> Inspection:
    """Run the checks named in `only`, or all."""
    subject = opened(url or str(node.client.base_url), name, **options)
    try:
        return inspect(subject, None, no_encoder, checks=[check for check in CHECKS if not only or check.name in only])
    finally:
        subject.reader.close()


def one(found: Inspection, check: str) -> Finding:
    """The only finding of a check."""
    (finding,) = (item for item in found.findings if item.check == check)
    return finding


def titles(found: Inspection, severity: Severity) -> set[str]:
    return {item.title for item in found.findings if item.severity is severity}


def test_an_index_without_a_pipeline(node: Node) -> None:
    """Delimiter scores, RRF within shards (2.x), filters around k-NN: and only reading requests."""
    old = node.send("GET", "/")["version"]["number"].startswith("2.")
    with node.index(rows(400)) as name, recorded(str(node.client.base_url)) as proxy:
        found = examined(node, name, url=proxy.url)
        after = node.send("GET", f"/{name}/_stats/indexing,docs")["_all"]["total"]
    hybrid = one(found, "hybrid")
    assert hybrid.severity is Severity.CRITICAL
    assert hybrid.figures["lowest_score"] < -1e9
    assert hybrid.figures["doubled_hits"] > 0
    fusion = one(found, "fusion over shards")
    ranked, otherwise = ("within_shards", "across_shards") if old else ("across_shards", "within_shards")
    assert fusion.figures[ranked] == 1.0 > fusion.figures[otherwise]
    assert fusion.severity is (Severity.NOTE if old else Severity.OK)
    filters = one(found, "filters")
    assert filters.figures["recall_inside"] == 1.0
    assert filters.figures["hits_around"] < 5
    assert one(found, "recall").figures["recall@10"] > 0.9
    assert one(found, "lexical scores").figures["factor"] == pytest.approx(2.2 if old else 1.0, abs=1e-3)
    assert one(found, "dense scores").severity is Severity.OK
    assert {item.severity for item in found.findings} == {Severity.CRITICAL, Severity.NOTE, Severity.OK}
    assert after["indexing"]["index_total"] == after["docs"]["count"] == 400
    assert len(proxy.seen) > 20
    writing = [
        (how, path)
        for how, path in proxy.seen
        if how != "GET" and not path.split("?")[0].endswith(("_search", "_count"))
    ]
    assert writing == []
    page = as_html(found)
    assert all(item.title in page for item in found.findings)


def test_an_index_with_a_pipeline(node: Node) -> None:
    with node.pipeline(FUSING) as pipeline, node.index(rows(200), shards=1) as name:
        node.send("PUT", f"/{name}/_settings", {"index.search.default_pipeline": pipeline})
        found = examined(node, name)
    assert titles(found, Severity.CRITICAL) == titles(found, Severity.WARNING) == set()
    assert one(found, "hybrid").severity is Severity.OK
    assert "normalization-processor" in one(found, "pipelines").evidence
    assert "one shard" in one(found, "fusion over shards").title


def test_a_pipeline_that_clients_name(node: Node) -> None:
    with node.pipeline(FUSING) as pipeline, node.index(rows(100), shards=1) as name:
        found = examined(node, name, "pipelines", "hybrid", pipeline=pipeline)
        with pytest.raises(InvalidInput, match="--pipeline 'gone': the cluster has no such search pipeline"):
            examined(node, name, "pipelines", pipeline="gone")
    assert {item.severity for item in found.findings} == {Severity.OK}


def test_pipelines_that_do_not_exist(node: Node) -> None:
    named = {"index.search.default_pipeline": "gone-1", "index.default_pipeline": "gone-2"}
    with node.index(rows(50), settings=named) as name:
        found = examined(node, name, "pipelines", "hybrid", "recall")
    broken = [item for item in found.findings if item.check == "pipelines"]
    assert {item.figures["pipeline"] for item in broken} == {"gone-1", "gone-2"}
    assert {item.severity for item in broken} == {Severity.CRITICAL}
    assert one(found, "hybrid").title == "A hybrid query is refused"
    assert one(found, "recall").severity is Severity.OK  # the other checks go past the default pipeline


def test_a_pipeline_that_does_not_fuse(node: Node) -> None:
    body = {"request_processors": [{"neural_query_enricher": {"default_model_id": "some-model"}}]}
    with node.pipeline(body) as pipeline, node.index(rows(50)) as name:
        node.send("PUT", f"/{name}/_settings", {"index.search.default_pipeline": pipeline})
        found = examined(node, name, "pipelines", "hybrid")
    assert "The search pipeline fuses nothing" in titles(found, Severity.WARNING)
    assert one(found, "hybrid").severity is Severity.CRITICAL


def test_an_alias_of_two_indexes_with_the_same_documents(node: Node) -> None:
    same = rows(60)
    english = {"story": {"type": "text", "analyzer": "english"}}
    with (
        node.pipeline(FUSING) as pipeline,
        node.index(same, settings={"index.search.default_pipeline": pipeline}) as old,
        node.index(same, settings={"index.search.default_pipeline": pipeline}, properties=english) as new,
    ):
        alias = f"{new}-alias"
        node.send("POST", "/_aliases", {"actions": [{"add": {"indices": [old, new], "alias": alias}}]})
        found = examined(node, alias, "mappings", "hybrid", "recall")
    assert one(found, "hybrid").title == "Hybrid queries return hits twice"
    assert "The indexes behind the name map a field differently" in titles(found, Severity.WARNING)
    copies = next(item for item in found.findings if item.title == "Passages are stored more than once")
    assert copies.figures["with_copies"] == copies.figures["sampled"]


def test_a_filtered_alias_starves_the_vector_search(node: Node) -> None:
    with node.index(rows(400)) as name:
        alias = f"{name}-alias"
        action = {"index": name, "alias": alias, "filter": {"term": {"shelf": "s1"}}}
        node.send("POST", "/_aliases", {"actions": [{"add": action}]})
        found = examined(node, alias, "recall")
        whole = examined(node, name, "recall")
    title = "The vector search returns too few hits"
    assert title in titles(found, Severity.WARNING)
    assert title not in titles(whole, Severity.WARNING)


def test_a_poor_graph(node: Node) -> None:
    poor = vector_field(parameters={"m": 2, "ef_construction": 2})
    with node.index(rows(3000), shards=1, properties={"meaning": poor}) as name:
        found = examined(node, name, "recall", "dense scores")
    recall = next(item for item in found.findings if "recall@10" in item.figures)
    assert recall.severity is Severity.CRITICAL
    assert 0 < recall.figures["recall@100"] < 0.8
    assert one(found, "dense scores").severity is Severity.OK  # the scores are right, though few are found


def test_queries_in_other_words_than_the_index(node: Node) -> None:
    story = {"type": "text", "analyzer": "standard", "search_analyzer": "english"}
    with node.index(rows(60), properties={"story": story}) as name:
        found = one(examined(node, name, "analyzers"), "analyzers")
    assert found.severity is Severity.CRITICAL
    assert found.figures["lost"] == found.figures["words"]  # all end in -ing


def test_an_edge_ngram_index_is_well(node: Node) -> None:
    analysis = {
        "analysis": {
            "tokenizer": {"edges": {"type": "edge_ngram", "min_gram": 1, "max_gram": 20, "token_chars": ["letter"]}},
            "analyzer": {"edges": {"type": "custom", "tokenizer": "edges", "filter": ["lowercase"]}},
        }
    }
    story = {"type": "text", "analyzer": "edges", "search_analyzer": "standard"}
    with node.index(rows(30), properties={"story": story}, settings=analysis) as name:
        assert one(examined(node, name, "analyzers"), "analyzers").severity is Severity.OK


def test_careless_writing(node: Node) -> None:
    """Vectors of all lengths, documents without vectors, many deleted documents, many small shards."""
    documents = rows(200)
    for number, row in enumerate(documents):
        row["meaning"] = [(1 + number % 5) * value for value in row["meaning"]]
        if number % 4 == 0:
            del row["meaning"]
    with node.index(documents, shards=6) as name:
        for _ in range(3):
            node.put(name, documents[:150])
        found = examined(node, name, "storage", "coverage")
    assert {
        "Documents without a value for a leg",
        "Inner products of vectors that are not unit vectors",
        "Many small shards",
    } <= titles(found, Severity.WARNING)
    lacking = next(item for item in found.findings if item.title == "Documents without a value for a leg")
    assert lacking.figures == {"field": "meaning", "missing": 50, "documents": 200}


def test_an_index_without_vectors(node: Node) -> None:
    documents = [{"story": row["story"]} for row in rows(40)]
    with node.index(documents, properties={"meaning": None, "shelf": None}) as name:
        found = examined(node, name)
    assert "The index is not hybrid" in titles(found, Severity.WARNING)
    skipped = [item for item in found.findings if item.severity is Severity.SKIPPED]
    assert {item.check for item in skipped} == {
        "memory", "coverage", "dense scores", "hybrid", "fusion over shards", "recall", "filters",
    }  # fmt: skip
    assert all("has no knn_vector field" in item.evidence for item in skipped)
    assert "k1 is 1.2" in one(found, "lexical scores").evidence


def test_an_index_with_3000_fields(node: Node) -> None:
    many = {f"f{number}": {"type": "text"} for number in range(3000)}
    limit = {"index.mapping.total_fields.limit": 4000}
    with node.index(rows(40), properties=many, settings=limit, shards=1) as name:
        with pytest.raises(InvalidInput, match=r"has 3001 text fields, choose one with --text: .* and 2989 more"):
            examined(node, name)
        with pytest.raises(
            InvalidInput, match=r"--vector 'story' is not an indexed knn_vector field.* it has: meaning"
        ):
            examined(node, name, text="story", vector="story")
        found = examined(node, name, "mappings", text="story")
    mapping = one(found, "mappings")
    assert (mapping.severity, mapping.figures["fields"][name]) == (Severity.WARNING, 3003)


def test_a_user_who_may_only_search(node: Node) -> None:
    """What needs other rights is not run, and says which; the rest is."""

    def allow(method: str, path: str) -> bool:
        return path.split("?", maxsplit=1)[0].endswith(("/_search", "/_mapping", "/_count"))

    with node.index(rows(100), shards=1) as name, recorded(str(node.client.base_url), allow) as proxy:
        found = examined(node, name, url=proxy.url)
    skipped = {item.check: item.evidence for item in found.findings if item.severity is Severity.SKIPPED}
    assert skipped.keys() >= {"health", "versions", "pipelines", "storage", "memory"}
    assert all("not run, because the user may not send GET /" in reason for reason in skipped.values())
    assert skipped.keys().isdisjoint({"recall", "filters", "dense scores", "hybrid", "coverage"})
    assert one(found, "hybrid").severity is Severity.CRITICAL


def test_a_user_who_may_do_nothing(node: Node) -> None:
    with (
        recorded(str(node.client.base_url), lambda *_: False) as proxy,
        pytest.raises(PermissionMissing, match=r"may not send GET /anything/_mapping \(403\)"),
    ):
        examined(node, "anything", url=proxy.url)


def test_a_red_index(node: Node) -> None:
    nowhere = {"index.routing.allocation.require.box": "nowhere"}
    name = "foreign-red"
    node.client.put(
        f"/{name}",
        params={"wait_for_active_shards": "0"},
        json={"settings": {"index.knn": True, **nowhere}, "mappings": {"properties": {
            "story": {"type": "text"}, "meaning": vector_field()}}},
    )  # fmt: skip
    try:
        found = examined(node, name, "health", "recall", "hybrid", "coverage")
    finally:
        node.send("DELETE", f"/{name}")
    health = one(found, "health")
    assert (health.severity, health.figures) == (Severity.CRITICAL, {"status": "red", "missing": {name: 1}})
    skipped = {item.check for item in found.findings if item.severity is Severity.SKIPPED}
    assert skipped == {"recall", "hybrid", "coverage"}


def queries_file(folder: Path, lines: list[Any]) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_quality_by_judgements(node: Node, tmp_path: Path) -> None:
    """The dense leg knows the answers and the lexical leg does not: the best weight is dense, with certainty."""
    pytest.importorskip("ir_measures")
    documents = rows(200)
    asked = [
        {"_id": f"q{number}", "text": documents[-number - 1]["story"][:40], "vector": documents[number]["meaning"]}
        for number in range(30)
    ]
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(30)) + "q1\tlost\t1\n")
    queries = queries_file(tmp_path, asked)
    with node.pipeline(FUSING) as pipeline, node.index(documents) as name:
        node.send("PUT", f"/{name}/_settings", {"index.search.default_pipeline": pipeline})
        subject = opened(str(node.client.base_url), name)
        found = inspect(subject, read_query_set(queries, qrels, 16), no_encoder, checks=CHECKS[-1:])
        subject.reader.close()
    quality = next(item for item in found.findings if item.title == "Quality by judgements")
    ways = quality.figures["ways"]
    assert ways["dense"]["NDCG@10"] > 0.9 > ways["BM25"]["NDCG@10"]
    assert set(ways) >= {"BM25", "dense", "RRF", "the index's own pipeline"}
    assert 0.5 < quality.figures["best_weight"]["low"] <= quality.figures["best_weight"]["best"]
    better = next(item for item in found.findings if item.title.startswith("Another weight is measurably better"))
    assert better.figures["low"] > 0
    missing = next(item for item in found.findings if item.title == "Judged documents are not in the index")
    assert missing.figures == {"missing": 1, "relevant": 31}
    assert 'aria-label="NDCG@10 by dense share' in as_html(found)


def test_ids_of_judgements_in_a_field(node: Node, tmp_path: Path) -> None:
    pytest.importorskip("ir_measures")
    documents = [{**row, "shelf": f"doc-{number // 2}"} for number, row in enumerate(rows(40))]
    asked = [{"_id": "q", "text": documents[7]["story"], "vector": documents[7]["meaning"]}]
    (tmp_path / "qrels.tsv").write_text("q\tdoc-3\t1\n")
    given = read_query_set(queries_file(tmp_path, asked), tmp_path / "qrels.tsv", 16)
    with node.index(documents) as name:
        subject = opened(str(node.client.base_url), name, id_field="shelf")
        found = inspect(subject, given, no_encoder, checks=CHECKS[-1:])
        subject.reader.close()
        wrong = opened(str(node.client.base_url), name, id_field="nothing")
        with pytest.raises(InvalidInput, match="--id-field 'nothing'"):
            inspect(wrong, given, no_encoder, checks=CHECKS[-1:])
        wrong.reader.close()
    quality = next(item for item in found.findings if item.title == "Quality by judgements")
    assert quality.figures["ways"]["BM25"]["NDCG@10"] == quality.figures["ways"]["dense"]["NDCG@10"] == 1


def test_a_model_that_did_not_make_the_vectors(node: Node, tmp_path: Path, model_folder: Path) -> None:
    """Random vectors of the model's dimension are told from the model's own: nothing is measured with the wrong one."""
    minilm = Encoder(model_folder, name="all-MiniLM-L6-v2")
    wide = {**vector_field(), "dimension": minilm.dimension}
    documents = rows(30, dimension=minilm.dimension)
    own = [{**row, "meaning": minilm.encode_passages([row["story"]])[0].tolist()} for row in documents]
    given = read_query_set(queries_file(tmp_path, [{"_id": "q", "text": documents[3]["story"]}]), None, None)
    problems = []
    for content in (documents, own):
        with node.index(content, properties={"meaning": wide}) as name:
            subject = opened(str(node.client.base_url), name)
            found = inspect(subject, given, lambda: minilm, checks=())
            problems.append([item.evidence for item in found.findings])
            assert (subject.given[0].vector is None) == (content is documents)
            subject.reader.close()
    assert "another model than" in problems[0][0]
    assert problems[1] == []


def braid(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command; its exit code, standard output and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["braid", "inspect", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_the_command(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "report.html"
    wrong = queries_file(tmp_path, ['{"_id": "1", "text": "fine"}\n', '{"_id": "2", "vector": \n'])
    with node.index(rows(60)) as name:
        where = ("--url", str(node.client.base_url), "--index", name, "--probes", "5", "--budget", "200")
        code, out, _ = braid(capsys, *where, "--json", "--html", str(page), "--queries", str(wrong))
        _, shown, _ = braid(capsys, *where)
        alone, _, said = braid(capsys, *where, "--qrels", str(wrong))
    content = json.loads(out)
    assert (code, content["index"]) == (1, name)
    assert (content["text_field"], content["vector_field"]) == ("story", "meaning")
    assert any("queries.jsonl line 2" in item["evidence"] for item in content["findings"])
    assert "Hybrid queries are not fused" in shown
    assert "-> " in shown
    assert page.read_text().startswith("<!doctype html>")
    assert (alone, "pass their texts by --queries" in said) == (1, True)


@pytest.mark.parametrize(
    ("url", "index", "said"),
    [
        ("http://127.0.0.1:1", "x", "(http://127.0.0.1:1): check --url"),
        (None, "no-such-index", "has no such index, alias or pattern"),
        (None, "_all", "--index '_all' is not the name of an index"),
        ("nonsense", "x", "nonsense"),
    ],
)
def test_what_can_not_be_inspected(
    node: Node, url: str | None, index: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = braid(capsys, "--url", url or str(node.client.base_url), "--index", index)
    assert code == (2 if url == "nonsense" else 1)
    assert said in told


def test_something_that_is_not_opensearch(valkey_url: str) -> None:
    """Another HTTP server, and a port that speaks no HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for port in (server.server_port, urlsplit(valkey_url).port):
            with pytest.raises(StoreError, match="check --url"):
                opened(f"http://127.0.0.1:{port}", "x")
        server.shutdown()
