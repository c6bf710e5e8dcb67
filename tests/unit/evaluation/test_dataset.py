from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.evaluation.dataset import JudgedSet, load_set, split_queries
from tests.unit.evaluation.sets import CORPUS, QRELS, QUERIES, json_lines, judged_set, make_set, write

GRADES = {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1}}


def found(judged: JudgedSet) -> dict[str, int]:
    return {finding.kind: finding.count for finding in judged.findings}


def detail(judged: JudgedSet, kind: str) -> str:
    return next(finding.detail for finding in judged.findings if finding.kind == kind)


def test_a_set_in_beirs_form(tmp_path: Path) -> None:
    judged = load_set(make_set(tmp_path / "mine"))
    assert judged == JudgedSet(
        name="mine",
        queries={"q1": "first", "q2": "second"},
        qrels=GRADES,
        corpus=tmp_path / "mine" / "corpus.jsonl",
        corpus_size=12,
        split="test",
        findings=(),
    )


@pytest.mark.parametrize(
    "qrels",
    [
        pytest.param(QRELS.partition("\n")[2], id="no header"),
        pytest.param(QRELS.replace("\t", " "), id="spaces"),
        pytest.param(QRELS.replace("\t", "   "), id="many spaces"),
        pytest.param(QRELS.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(b"\xef\xbb\xbf" + QRELS.encode(), id="BOM"),
        pytest.param(b"\xef\xbb\xbf" + QRELS.partition("\n")[2].encode(), id="BOM without header"),
        pytest.param(QRELS.rstrip("\n"), id="no last newline"),
        pytest.param("\n" + QRELS.replace("\n", "\n\n"), id="blank lines"),
        pytest.param("q1 0 d1 2\nq1 0 d2 1\nq2 0 d3 1\n", id="TREC"),
        pytest.param("q1\tQ0\td1\t2\nq1\tQ0\td2\t1\nq2\tQ0\td3\t1\n", id="TREC with tabs"),
        pytest.param("query_id iter doc_id relevance\nq1 0 d1 2\nq1 0 d2 1\nq2 0 d3 1\n", id="TREC with header"),
        pytest.param("query-id\tcorpus-id\tscore\nq1\t0\td1\t2\nq1\t0\td2\t1\nq2\t0\td3\t1\n", id="TREC under BEIR's"),
        pytest.param("score\tcorpus-id\tquery-id\n2\td1\tq1\n1\td2\tq1\n1\td3\tq2\n", id="other order"),
        pytest.param(QRELS.replace("\t2\n", "\t2.0\n").replace("\t1\n", "\t1.\n"), id="whole floats"),
    ],
)
@pytest.mark.parametrize("name", ["qrels/test.tsv", "qrels.test.tsv.gz"])
def test_judgements_in_all_spellings(tmp_path: Path, qrels: str | bytes, name: str) -> None:
    judged = load_set(make_set(tmp_path, {"qrels/test.tsv": None, name: qrels}))
    assert judged.qrels == GRADES
    assert judged.findings == ()


def test_ids_with_spaces_between_tabs(tmp_path: Path) -> None:
    files = {
        "corpus.jsonl": json_lines([*CORPUS, {"_id": "a file.md", "text": "t"}]),
        "qrels/test.tsv": "q1\ta file.md\t1\n",
    }
    assert load_set(make_set(tmp_path, files)).qrels == {"q1": {"a file.md": 1}}


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "queries.jsonl.gz"])
def test_compressed(tmp_path: Path, name: str) -> None:
    plain = name.removesuffix(".gz")
    content = json_lines(CORPUS if plain == "corpus.jsonl" else QUERIES)
    judged = load_set(make_set(tmp_path, {plain: None, name: content}))
    assert judged.corpus_size == 12
    assert judged.findings == ()


def test_numbers_as_ids_and_bom_and_crlf(tmp_path: Path) -> None:
    files = {
        "corpus.jsonl": '\ufeff{"_id": 1, "text": "a"}\r\n{"_id": 2, "text": "b"}\r\n',
        "queries.jsonl": '\ufeff{"_id": 7, "text": "a"}\r\n',
        "qrels/test.tsv": "7\t1\t1\n",
    }
    judged = load_set(make_set(tmp_path, files))
    assert (judged.queries, judged.qrels, judged.corpus_size) == ({"7": "a"}, {"7": {"1": 1}}, 2)


@pytest.mark.parametrize(
    "content",
    [
        "q1\tfirst\nq2\tsecond\n",
        "query-id\ttext\nq1\tfirst\nq2\tsecond\n",
        "\ufeffqid\tquery\r\nq1\tfirst\r\nq2\tsecond\r\n",
    ],
)
@pytest.mark.parametrize("name", ["queries.tsv", "queries.tsv.gz"])
def test_queries_between_tabs(tmp_path: Path, content: str, name: str) -> None:
    judged = load_set(make_set(tmp_path, {"queries.jsonl": None, name: content}))
    assert judged.queries == {"q1": "first", "q2": "second"}
    assert judged.findings == ()


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        (["qrels/test.tsv", "qrels/dev.tsv", "qrels/train.tsv"], None, "test"),
        (["qrels/dev.tsv"], None, "dev"),
        (["qrels/test.tsv", "qrels/dev.tsv"], "dev", "dev"),
        (["qrels.tsv"], None, "all"),
        (["qrels.tsv", "qrels.graded.tsv"], None, "all"),
        (["qrels.tsv", "qrels.graded.tsv"], "graded", "graded"),
        (["qrels.train.tsv"], None, "train"),
        (["qrels-test.trec", "qrels.tsv"], None, "test"),
        (["qrels.txt.gz"], None, "all"),
    ],
)
def test_which_judgements(tmp_path: Path, there: list[str], asked: str | None, chosen: str) -> None:
    judged = load_set(make_set(tmp_path, {"qrels/test.tsv": None, **dict.fromkeys(there, QRELS)}), split=asked)
    assert (judged.split, judged.qrels) == (chosen, GRADES)


def test_judgements_of_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "elsewhere" / "mine.tsv", "q1\td1\t1\n")
    judged = load_set(make_set(tmp_path / "set"), qrels=path)
    assert judged.qrels == {"q1": {"d1": 1}}
    assert found(judged) == {"query-without-judgement": 1}


def test_two_files_of_one_meaning(tmp_path: Path) -> None:
    files = {"corpus.jsonl.gz": json_lines(CORPUS[:1]), "qrels.test.tsv": "q1 d1 1\n"}
    judged = load_set(make_set(tmp_path, files))
    assert (judged.corpus_size, judged.qrels) == (12, GRADES)
    assert found(judged) == {"ambiguous-file": 2}


def test_without_a_corpus_it_is_judged_against_the_store(tmp_path: Path) -> None:
    judged = load_set(make_set(tmp_path, {"corpus.jsonl": None}))
    assert (judged.corpus, judged.corpus_size, judged.findings) == (None, None, ())


def test_what_is_wrong_is_counted(tmp_path: Path) -> None:
    files = {
        "corpus.jsonl": json_lines([*CORPUS, CORPUS[3], {"text": "no id"}, {"_id": "d99", "text": " "}]) + "not json\n",
        "queries.jsonl": json_lines(
            [
                *QUERIES,
                {"_id": "q1", "text": "again"},
                {"_id": "q3", "text": "  "},
                {"_id": "q4", "text": "only wrong ones"},
                {"_id": "q5", "text": "not judged"},
                {"_id": "q6"},
                {"_id": 1.5, "text": "t"},
                ["a list"],
            ]
        ),
        "qrels/test.tsv": QRELS
        + "q1\td1\t1\nq1\td4\t-1\nq1\tgone\t1\nq3\td1\t1\nq4\td1\t0\nlost\td1\t1\n"
        + "q1\td1\nq1\td1\t0.5\nq1\td1\tnan\nq1\td1\t1001\nq1\t\t1\nq1\td1\t1_0\n",
    }
    judged = load_set(make_set(tmp_path, files))
    assert judged.qrels == {"q1": {"d1": 2, "d2": 1, "d4": -1, "gone": 1}, "q2": {"d3": 1}}
    assert judged.queries == {"q1": "first", "q2": "second"}
    assert judged.corpus_size == 13
    assert found(judged) == {
        "bad-row": 6 + 3 + 2,
        "duplicate-document": 1,
        "duplicate-judgement": 1,
        "duplicate-query": 1,
        "empty-document": 1,
        "empty-query": 1,
        "judged-query-missing": 1,
        "negative-grade": 1,
        "query-without-judgement": 1,
        "query-without-relevant": 1,
        "unknown-document": 1,
    }
    assert "(gone)" in detail(judged, "unknown-document")
    assert "test.tsv line 11" in detail(judged, "bad-row")
    assert detail(judged, "bad-row").count(";") == 4


def test_rows_that_are_no_text(tmp_path: Path) -> None:
    qrels = QRELS.encode() + b"q1\t\xff\xfe\t1\n" + b"x" * (2 << 20) + b"\nq2\td5\t1\n"
    judged = load_set(make_set(tmp_path, {"qrels/test.tsv": qrels}))
    assert judged.qrels == {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1, "d5": 1}}
    assert found(judged) == {"bad-row": 2}
    assert "line 5: not UTF-8; test.tsv line 6: longer" in detail(judged, "bad-row")


def test_examples_are_harmless_and_few(tmp_path: Path) -> None:
    queries = [*QUERIES, *({"_id": f"\x1b[31m{number}\n", "text": "t"} for number in range(9))]
    judged = load_set(make_set(tmp_path, {"queries.jsonl": json_lines(queries)}))
    assert found(judged) == {"query-without-judgement": 9}
    assert detail(judged, "query-without-judgement").endswith(
        r"(e.g. " + ", ".join(rf"\x1b[31m{n}" for n in range(5)) + ")"
    )


def test_a_corpus_of_one(tmp_path: Path) -> None:
    judged = load_set(make_set(tmp_path, {"corpus.jsonl": json_lines(CORPUS[1:2])}))
    assert judged.corpus_size == 1
    assert found(judged) == {"tiny-corpus": 1, "unknown-document": 2}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"qrels/test.tsv": None}, "there are no judgements"),
        ({"qrels/test.tsv": None, "qrels/dev.tsv": QRELS, "qrels.train.tsv": QRELS}, "choose one: dev, train"),
        ({"qrels/test.tsv": ""}, "test.tsv: it is empty"),
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\n"}, "test.tsv: it is empty"),
        ({"qrels/test.tsv": "q1,d1,1\n"}, "test.tsv line 1: 1 columns instead of 3 or 4"),
        ({"qrels/test.tsv": QRELS.encode("utf-16")}, "test.tsv line 1: not UTF-8"),
        ({"qrels/test.tsv": "q1\td1\t0\nq2\td2\t-1\n"}, "no document is relevant to any query"),
        ({"qrels/test.tsv": "x\td1\t1\n"}, "such as 'x', the queries' ids are such as 'q1'"),
        (
            {"qrels/test.tsv": "q1\tx\t1\n"},
            "none of the 1 relevant documents is in it. The judgements name such as 'x'",
        ),
        ({"queries.jsonl": None}, "there are no queries"),
        ({"queries.jsonl": ""}, "queries.jsonl: it is empty"),
        ({"queries.jsonl": "first\nsecond\n"}, "queries.jsonl line 1: not JSON"),
        ({"queries.jsonl": '{"text": "t"}\n'}, "queries.jsonl line 1: no id"),
        ({"queries.jsonl": None, "queries.tsv": "q1 first\n"}, "queries.tsv line 1: no text"),
        ({"corpus.jsonl": ""}, "corpus.jsonl: it is empty"),
        ({"corpus.jsonl": "a,b\n"}, "corpus.jsonl line 1: not JSON"),
        ({"corpus.jsonl": '{"text": "t"}\n'}, "corpus.jsonl line 1: no _id"),
    ],
)
def test_what_makes_measuring_impossible(tmp_path: Path, files: dict[str, str | None], message: str) -> None:
    make_set(tmp_path / "mine", files)
    with pytest.raises(InvalidInput) as caught:
        load_set(tmp_path / "mine")
    assert message in caught.value.detail


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "queries.jsonl.gz", "qrels/test.tsv.gz"])
@pytest.mark.parametrize("cut", [True, False])
def test_broken_files(tmp_path: Path, name: str, cut: bool) -> None:
    folder = make_set(tmp_path, {name.removesuffix(".gz"): None})
    noise = "".join(random.Random(1).choices("0123456789abcdef", k=4000)).encode()
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(noise)[:1000] if cut else b"no gzip at all")
    with pytest.raises(InvalidInput, match=r"line 1: (the rest )?can't be read"):
        load_set(folder)


def test_not_a_set(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "mine")
    with pytest.raises(InvalidInput, match="the folder does not exist"):
        load_set(tmp_path / "gone")
    with pytest.raises(InvalidInput, match="this is a file: pass its folder"):
        load_set(folder / "corpus.jsonl")
    with pytest.raises(InvalidInput, match="the file of judgements does not exist"):
        load_set(folder, qrels=folder / "gone.tsv")
    with pytest.raises(InvalidInput, match="of the split 'dev', only of: test"):
        load_set(folder, split="dev")


TEXTS = st.text(alphabet="aAb ", min_size=1, max_size=4)


@given(
    texts=st.dictionaries(st.text(alphabet="abcdef", min_size=1, max_size=5), TEXTS, min_size=2, max_size=30),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_a_division_is_the_same_each_time_and_clean(
    texts: dict[str, str], share: float, seed: int, order: random.Random
) -> None:
    def alike(text: str) -> str:
        return " ".join(text.casefold().split())

    judged = judged_set(texts)
    if len({alike(text) for text in texts.values()}) < 2:
        with pytest.raises(InvalidInput, match="two are needed"):
            split_queries(judged, share=share, seed=seed)
        return
    first, second = split_queries(judged, share=share, seed=seed)
    assert {**first.queries, **second.queries} == texts
    assert first.queries.keys().isdisjoint(second.queries)
    assert first.queries
    assert second.queries
    assert all(part.qrels.keys() == part.queries.keys() for part in (first, second))
    assert {alike(text) for text in first.queries.values()}.isdisjoint(alike(text) for text in second.queries.values())
    shuffled = list(texts)
    order.shuffle(shuffled)
    other_order = replace(judged, queries={query: texts[query] for query in shuffled})
    assert split_queries(other_order, share=share, seed=seed)[0].queries == first.queries


def test_a_query_keeps_its_side_when_others_come() -> None:
    few = judged_set({f"q{number}": f"text {number}" for number in range(300)})
    many = judged_set({f"q{number}": f"text {number}" for number in range(600)})
    first, second = split_queries(few, share=0.3, seed=4)
    assert 60 < len(first.queries) < 120
    assert (first.split, second.split) == ("test (30% by seed 4)", "test (the rest of 30% by seed 4)")
    assert set(split_queries(many, share=0.3, seed=4)[0].queries) >= set(first.queries)
    assert split_queries(few, share=0.3, seed=5)[0].queries != first.queries


def test_a_share_that_is_none() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_queries(judged_set({"a": "a", "b": "b"}), share=1.0, seed=0)


@pytest.mark.parametrize(
    ("name", "queries", "documents"),
    [("scifact", 809, 5183), ("cranfield", 225, 1400), ("cisi", 76, 1460), ("covidqa", 1359, 2012)],
)
def test_the_sets_at_hand(name: str, queries: int, documents: int) -> None:
    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "sets" / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not at hand")
    judged = load_set(folder)
    assert (len(judged.queries), judged.corpus_size) == (queries, documents)
