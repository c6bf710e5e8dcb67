from __future__ import annotations

from pathlib import Path

from app.serving.jobs import FairQueue, Job
from app.serving.tasks import RecordFile
from app.store.filters import Scope


def job(owner: str | None, number: int, tenant: str = "t") -> Job:
    scope = Scope(tenant, frozenset(), owner)
    return Job(RecordFile(Path("x")), scope, f"{tenant} {owner} {number}", lambda: None, lambda job, outcome: None)


def test_owners_take_turns_and_each_keeps_its_order() -> None:
    queue = FairQueue()
    for number in range(4):
        queue.put(job("a", number))
    queue.put(job("b", 0))
    queue.put(job("a", 0, tenant="u"))
    queue.put(job("b", 1))
    taken = []
    while (found := queue.take()) is not None:
        taken.append(found.document_id)
        if len(taken) == 3:
            queue.put(job("c", 0))
    assert taken == ["t a 0", "t b 0", "u a 0", "t a 1", "t b 1", "t c 0", "t a 2", "t a 3"]
