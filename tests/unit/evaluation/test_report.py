from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from lxml import html

from app.errors import InvalidInput
from app.evaluation.dataset import JudgedSet
from app.evaluation.findings import KINDS, Finding
from app.evaluation.measures import Measurement, measure
from app.evaluation.report import as_dict, as_html, as_markdown, write_files, write_reports
from app.evaluation.results import Evaluation, WayResult
from app.evaluation.summary import summarise
from tests.unit.evaluation.sets import judged_set

HOSTILE = """<script>alert("1")</script> | `x` **b** [l](http://evil.example) \x1b[31m \u202e {{ 7*7 }}"""


def way(
    judged: JudgedSet, name: str, skill: float, group: str = "single leg", alpha: float | None = None, **rest: object
) -> WayResult:
    draw = random.Random(name)
    run = {}
    for query, grades in judged.qrels.items():
        ranking = [f"n{number}" for number in range(12)]
        for document in grades:
            ranking.insert(min(int(draw.expovariate(skill)), 12), document)
        run[query] = ranking
    return WayResult(name, group, alpha, measure(judged.qrels, run), **rest)  # type: ignore[arg-type]


def evaluation(queries: int = 40, *, judged: JudgedSet | None = None, alphas: int = 5) -> Evaluation:
    judged = judged or judged_set({f"q{number}": f"query number {number}" for number in range(queries)})
    ways = [way(judged, "bm25", 0.3), way(judged, "dense", 0.25)]
    ways += [way(judged, f"linear {n / 4}", 0.5, "linear", alpha=n / 4) for n in range(alphas)]
    ways += [way(judged, "rrf", 0.4, "rrf", seconds=3.2, ms_p50=12.0, ms_p95=40.5, failed=2, note="k 60")]
    return Evaluation(judged, tuple(ways), "bm25", {"model": "MiniLM"}, ("a note",))


def svgs(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def test_the_three_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "reports"
    paths = write_reports(summarise(evaluation()), folder)
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    content = orjson.loads(paths[0].read_bytes())
    assert content == orjson.loads(orjson.dumps(as_dict(summarise(evaluation()))))
    assert paths[1].read_text() == as_markdown(summarise(evaluation()))
    assert paths[2].read_text() == as_html(summarise(evaluation()))


def test_the_json() -> None:
    content = as_dict(summarise(evaluation()))
    assert content["set"]["queries"] == 40
    assert [each["name"] for each in content["ways"]][:2] == ["bm25", "dense"]
    bm25, *_, rrf = content["ways"]
    assert bm25["against_baseline"] == {}
    assert set(rrf["against_baseline"]) == {"NDCG@10", "MRR@10"}
    against = rrf["against_baseline"]["NDCG@10"]
    assert against["mean_difference"] == pytest.approx(rrf["means"]["NDCG@10"] - bm25["means"]["NDCG@10"])
    assert against["p_adjusted"] >= against["p_randomization"]
    assert len(rrf["per_query"]["MAP"]) == 40
    low, high = rrf["intervals"]["MAP"]
    assert low < rrf["means"]["MAP"] < high
    assert (rrf["failed"], rrf["ms_p95"], rrf["note"]) == (2, 40.5, "k 60")


def test_the_page_shows_everything() -> None:
    findings = (Finding("bad-row", 3, "rows that could not be used (qrels.tsv line 4: 2 columns)"),)
    judged = replace(judged_set({f"q{n}": f"query number {n}" for n in range(40)}), findings=findings)
    page = as_html(summarise(evaluation(judged=judged)))
    text = " ".join(html.fromstring(page).text_content().split())
    for expected in (
        "40 queries",
        "judged@10",
        "rows that could not be used",
        "a note",
        "MiniLM",
        "linear 0.75",
        "k 60",
    ):
        assert expected in text
    assert "rrf: 2 of 40 queries failed or were degraded." in text
    assert "Only relevant documents are judged in this set" in text
    curve, _, differences = svgs(page)
    assert all(f">{name}<" in curve for name in ("bm25", "dense", "linear", "rrf", "NDCG@10"))
    assert "better" in differences
    markdown = as_markdown(summarise(evaluation(judged=judged)))
    assert "| bad-row | 3 |" in markdown
    assert "| bm25 (baseline) | single leg |" in markdown
    assert '<td class="n worse">2</td>' in page
    assert "rrf: 2 of 40 queries failed" in markdown


def test_the_page_needs_nothing_from_outside() -> None:
    page = as_html(summarise(evaluation()))
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    tree = html.fromstring(page)
    assert not tree.xpath("//script|//link|//img|//iframe|//@src")
    assert "default-src 'none'" in page
    ids = tree.xpath("//@id")
    assert len(ids) == len(set(ids))
    for reference in tree.xpath("//@href|//@*[name()='xlink:href']"):
        assert reference.removeprefix("#") in ids
    assert "#0000" not in page  # every stand-in colour became one of the page's
    assert "DejaVu" not in page


def test_hostile_text() -> None:
    judged = judged_set({"<b>q</b>|1": HOSTILE, "q2": "plain"})
    judged = replace(judged, name="<i>set</i>", findings=(Finding("bad-row", 1, HOSTILE),))
    ways = (way(judged, "<u>bm25</u>", 0.2), way(judged, "$x$ <u>", 2.0, alpha=0.5), way(judged, "<s>", 1.0, "<g>"))
    hostile = Evaluation(judged, ways, ways[0].name, {"<k>": "<v>"}, ("<note>",))
    page = as_html(summarise(hostile))
    assert not html.fromstring(page).xpath("//script|//b[text()='q']|//u|//i|//s|//g[not(ancestor::*[name()='svg'])]")
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "{{ 7*7 }}" in page
    markdown = as_markdown(summarise(hostile))
    assert "<" not in markdown
    row = next(line for line in markdown.splitlines() if "alert" in line and "q" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) in (4, 6)
    orjson.dumps(as_dict(summarise(hostile)))


def test_one_way_only() -> None:
    judged = judged_set({"a": "a", "b": "b"})
    alone = Evaluation(judged, (way(judged, "bm25", 0.5),), "bm25")
    page = as_html(summarise(alone))
    assert svgs(page) == []
    assert "Against" not in page
    assert "Against" not in as_markdown(summarise(alone))
    assert as_dict(summarise(alone))["ways"][0]["against_baseline"] == {}


def test_no_alpha_ways() -> None:
    assert len(svgs(as_html(summarise(evaluation(alphas=0))))) == 1


def test_one_alpha_way() -> None:
    assert len(svgs(as_html(summarise(evaluation(alphas=1))))) == 3


def test_one_query() -> None:
    page = as_html(summarise(evaluation(1)))
    assert "There is only 1 query" in page
    assert "1 query (split" in page
    as_markdown(summarise(evaluation(1)))


def test_ways_that_are_alike() -> None:
    judged = judged_set({"a": "a", "b": "b"})
    same = way(judged, "bm25", 0.5)
    page = as_html(summarise(Evaluation(judged, (same, replace(same, name="twin")), "bm25")))
    assert "That may be chance." in page
    assert "0 better, 2 the same, 0 worse" in page


def test_holes_are_named() -> None:
    queries = {f"q{number}": "t" for number in range(3)}
    judged = judged_set(queries, {query: {"a": 1, **{f"n{n}": 0 for n in range(9)}} for query in queries})
    known = measure(judged.qrels, {query: ["a", *(f"n{n}" for n in range(9))] for query in queries})
    unknown = measure(judged.qrels, {query: ["a", *(f"x{n}" for n in range(9))] for query in queries})
    ways = (WayResult("bm25", "single leg", None, known), WayResult("dense", "single leg", None, unknown))
    assert "Fewer of the results of dense (0.10) are judged" in as_html(summarise(Evaluation(judged, ways, "bm25")))
    assert "judged than of others" not in as_html(summarise(Evaluation(judged, ways[:1], "bm25")))


def test_misuse() -> None:
    judged = judged_set({"a": "a"})
    only = way(judged, "bm25", 0.5)
    with pytest.raises(ValueError, match="same name"):
        Evaluation(judged, (only, only), "bm25")
    with pytest.raises(ValueError, match="not one of the ways"):
        Evaluation(judged, (only,), "dense")
    with pytest.raises(ValueError, match="not measured over"):
        Evaluation(judged, (replace(only, measured=Measurement({}, {"MAP": {"b": 1.0}})),), "bm25")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="pass another folder"):
        write_reports(summarise(evaluation(2)), tmp_path / "file")


def test_older_reports_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("old")
    write_reports(summarise(evaluation(2)), tmp_path)
    assert (tmp_path / "report.md").read_text().startswith("# set: evaluation")


def test_the_docs_name_every_finding() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(KINDS)


def test_what_is_heavy_is_imported_when_needed() -> None:
    code = "import sys, app.evaluation.report; print(sorted({'matplotlib', 'scipy', 'ir_measures'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="can't be written there"):
        write_files(tmp_path / "file" / "reports", {})
