"""What the look for typing errors gives and costs: `python benchmarks/typos.py`. Method: typos.md."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import harness

from app.config import load_settings
from app.deadline import Deadline
from app.evaluation.dataset import load_set, sample_queries
from app.evaluation.objective import Objective
from app.evaluation.ranking import documents_of
from app.querytext import read_query
from app.search.request import SearchRequest
from app.search.retrieval import Retrieval
from app.search.stages import SearchCall
from app.search.trace import Trace
from app.serving.opening import open_store
from app.store.client import Cluster
from app.store.filters import Scope, clauses
from app.tuning import SHIPPED

SETS = ("cranfield", "covidqa")
QUERIES = 500


def misspelt(text: str, source: random.Random) -> str:
    """`text` with one letter wrong in one of its longer words; as it is where there is none."""
    words = text.split()
    places = [place for place, word in enumerate(words) if len(word) >= 6 and word.isalpha()]
    if not places:
        return text
    place = source.choice(places)
    word, letter = words[place], source.randrange(1, len(words[place]) - 1)
    words[place] = source.choice(
        (
            word[:letter] + word[letter + 1 :],
            word[:letter] + word[letter] + word[letter:],
            word[:letter] + word[letter + 1] + word[letter] + word[letter + 2 :],
        )
    )
    return " ".join(words)


def rank(retrieval: Retrieval, text: str, *, correct: bool) -> tuple[list[str], bool]:
    """Documents as the lexical leg orders them, and whether a word was corrected."""
    query = read_query(text)
    call = SearchCall(
        request=SearchRequest(query=text),
        query=query if correct else replace(query, checked=()),
        tuning=SHIPPED,
        deadline=Deadline.after(30_000),
        filters=clauses(Scope("default")),
        depth=100,
    )
    found = retrieval.lexical(call, Trace())
    return documents_of(found.candidates), bool(found.corrected)


def figures_of(cluster: Cluster, judged: Any) -> dict[str, Any]:
    objective = Objective(judged.qrels, "NDCG@10")
    source = random.Random(3)
    wrong = {query: misspelt(text[:4096], source) for query, text in judged.queries.items()}
    figures: dict[str, Any] = {"queries": len(judged.queries)}
    with ThreadPoolExecutor(2) as workers:
        retrieval = Retrieval(cluster, workers)
        for name, texts in (("as they are", judged.queries), ("one letter wrong", wrong)):
            for correct in (False, True):
                found = {query: rank(retrieval, text[:4096], correct=correct) for query, text in texts.items()}
                value = objective.values({query: ranking for query, (ranking, _) in found.items()}).mean()
                figures[f"{name}, {'with' if correct else 'without'} the look"] = round(100 * float(value), 2)
            figures[f"{name}: corrected"] = sum(corrected for _, corrected in found.values())
    return figures


def main() -> None:
    figures = {}
    with harness.braid_up() as up:
        settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"])
        store = open_store(settings)
        for name in SETS:
            judged = load_set(harness.SETS / name)
            scratch = harness.indexed(judged, store)
            if len(judged.queries) > QUERIES:
                judged = sample_queries(judged, most=QUERIES, seed=0)
            figures[name] = figures_of(scratch.cluster, judged)
    harness.write_result("typos", "benchmarks/typos.md", {"sets": figures})


if __name__ == "__main__":
    main()
