"""Which rounds are played: all pairs of operations at all positions first, then faults, then chance."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.writers.gate import Fault, How
from tests.writers.oracle import Op
from tests.writers.rounds import Move, Plan

POST, POST_HR, POST_PUBLIC = Op("post", "p"), Op("post", "h", ("hr",)), Op("post", "w", ("public",))
READERS, AGAIN = Op("post", "v0", ("it",)), Op("post", "v0")
PATCH, PATCH_BACK, DELETE = Op("patch", acl=("it",)), Op("patch", acl=("public",)), Op("delete")
INGEST, INGEST_HR, SYNC, SWEEP = Op("ingest", "i"), Op("ingest", "j", ("hr",)), Op("sync"), Op("sweep")

STEPS = {POST: 9, POST_HR: 9, POST_PUBLIC: 9, READERS: 7, AGAIN: 2, PATCH: 7, PATCH_BACK: 7, DELETE: 6}
STEPS |= {INGEST: 9, INGEST_HR: 9, SYNC: 9, SWEEP: 6}
"""About how many steps each has; a writer that is told to make more just ends."""

PAIRED = (POST, POST_HR, PATCH, DELETE, INGEST, SYNC, READERS)
_HOWS: tuple[How, ...] = ("late", "answer-lost", "twice", "never")


def pairs() -> Iterator[Plan]:
    """Each writer stopped before each of its steps, while each other one runs from its beginning to its end."""
    for a in PAIRED:
        for b in PAIRED:
            other = b if b != a else _like(a)
            for n in range(1, STEPS[a]):
                yield Plan("pair", _start(a, b, n), (a, other), (("run", 0, n), ("end", 1, 0)))


def crossings(chance: random.Random) -> Iterator[Plan]:
    """Each writer stopped before a step of its own, the first one ends, then the second one."""
    while True:
        a, b = chance.choice(PAIRED), chance.choice(PAIRED)
        n, m = chance.randrange(1, STEPS[a]), chance.randrange(1, STEPS[b])
        yield Plan("crossing", _start(a, b, n), (a, b if b != a else _like(a)), (("run", 0, n), ("run", 1, m)))


def kills(chance: random.Random) -> Iterator[Plan]:
    """Each writer killed before each of its steps; a sweep follows, or another writer, the same one again first."""
    todo = [(a, n) for a in PAIRED for n in range(1, STEPS[a])]
    yield from (Plan("kill", _start(a, a, n), (a,), (("run", 0, n), ("kill", 0, 0))) for a, n in todo)
    yield from (Plan("kill", _start(a, a, n), (a, a), (("run", 0, n), ("kill", 0, 0), ("end", 1, 0))) for a, n in todo)
    while True:
        a, b = chance.choice(PAIRED), chance.choice((*PAIRED, AGAIN, POST_PUBLIC, PATCH_BACK))
        n, m = chance.randrange(1, STEPS[a]), chance.randrange(0, STEPS[b])
        sweep: tuple[Move, ...] = (("sweep", 0, 0),) if chance.random() < 0.3 else ()
        script: tuple[Move, ...] = (("run", 0, n), ("run", 1, m), ("kill", 0, 0), *sweep, ("end", 1, 0))
        yield Plan("kill", _start(a, b, n), (a, b), script)


def delays(chance: random.Random) -> Iterator[Plan]:
    """A request of one writer is held back, and let through before, between or after all that others do."""
    while True:
        a, b = chance.choice(PAIRED), chance.choice((*PAIRED, AGAIN, POST_PUBLIC, PATCH_BACK))
        what, most = chance.choice((("heads", 3), ("passages", 2)))
        how: How = chance.choice((*_HOWS, *_HOWS, *_HOWS, *_HOWS, "stall", "stall", "stall", "late-silent"))
        fault = Fault("heads" if what == "heads" else "passages", chance.randint(1, most), how)
        moves: list[Move] = [("end", 0, 0), ("end", 1, 0), ("deliver", 0, 0)]
        if chance.random() < 0.5:
            moves.insert(0, ("run", 1, chance.randrange(1, STEPS[b])))
        if chance.random() < 0.5:
            moves.insert(chance.randrange(len(moves)), ("sweep", 0, 0))
        if chance.random() < 0.5:
            moves[-3:] = chance.sample(moves[-3:], 3)
        if chance.random() < 0.5:
            moves.insert(0, ("run", 0, chance.randrange(1, STEPS[a])))
        yield Plan("delay", _start(a, b, chance.randrange(4)), (a, b), tuple(moves), ((0, fault),))


def mixtures(chance: random.Random) -> Iterator[Plan]:
    """Three or four writers and a sweep by chance, with kills and faults."""
    while True:
        everybody = (*PAIRED, AGAIN, POST_PUBLIC, PATCH_BACK, INGEST_HR)
        ops = (*(chance.choice(everybody) for _ in range(chance.choice((2, 3)))), SWEEP)
        script: list[Move] = []
        for _ in range(chance.randint(10, 25)):
            i = chance.randrange(len(ops))
            kind = chance.choices(("run", "kill", "deliver"), (20, 1, 2))[0]
            script.append((kind, i, chance.randint(1, 3) if kind == "run" else 0))
        faults = []
        if chance.random() < 0.5:
            what = chance.choice(("heads", "passages"))
            fault = Fault("heads" if what == "heads" else "passages", chance.randint(1, 3), chance.choice(_HOWS))
            faults.append((chance.randrange(len(ops)), fault))
        yield Plan("mixture", _start(ops[0], ops[1], chance.randrange(4)), _apart(ops), tuple(script), tuple(faults))


def frees(chance: random.Random) -> Iterator[Plan]:
    """Writers that nobody stops."""
    while True:
        ops = tuple(chance.choice((*PAIRED, AGAIN, POST_PUBLIC)) for _ in range(chance.choice((2, 2, 3, 4))))
        yield Plan("free", _start(ops[0], ops[1], chance.randrange(4)), _apart(ops), (), free=True)


_TRACES = {
    "cas": Plan("trace", "public", (POST, INGEST), (("run", 0, 1), ("end", 1, 0))),
    "fence": Plan("trace", "public", (POST, PATCH), (("run", 0, 4), ("end", 1, 0))),
    "fence-before-erase": Plan("trace", "public", (POST, SWEEP), (("run", 0, 4), ("end", 1, 0))),
    "fresh-token": Plan("trace", "hr", (POST, PATCH), (("run", 0, 4), ("end", 1, 0))),
    "erase-by-list": Plan("trace", "public", (POST, INGEST), (("run", 1, 5), ("run", 0, 4), ("end", 1, 0))),
    "tombstones": Plan(
        "trace",
        "public",
        (POST, SWEEP),
        (("end", 0, 0), ("end", 1, 0), ("deliver", 0, 0)),
        ((0, Fault("passages", 1, "stall")),),
    ),
    "versions": Plan(
        "trace",
        "hr",
        (PATCH, PATCH_BACK),
        (("end", 0, 0), ("end", 1, 0), ("deliver", 0, 0)),
        ((0, Fault("passages", 1, "late")),),
    ),
    "refresh-before-commit": Plan("trace", "public", (POST,), (("run", 0, 5),)),
    "refresh-before-answer": Plan("trace", "public", (DELETE,), ()),
    "refresh-before-settle": Plan(
        "trace",
        "absent",
        (INGEST, PATCH),
        (("run", 0, 4), ("end", 1, 0)),
        ((0, Fault("heads", 2, "answer-lost")),),
    ),
    "unknown": Plan(
        "trace",
        "public",
        (POST, POST_HR),
        (("run", 0, 5), ("end", 1, 0)),
        ((0, Fault("heads", 2, "answer-lost")),),
    ),
}


def traces(safeguard: str) -> list[Plan]:
    """What the model finds without the safeguard, as a round."""
    return [_TRACES[safeguard]]


def plans(count: int, seed: int) -> list[Plan]:
    """`count` rounds: of each kind its share, and of the enumerated ones every so many'th where there are too many."""
    chance = random.Random(seed)
    shares = {pairs(): 0.34, crossings(chance): 0.16, kills(chance): 0.16, delays(chance): 0.2}
    shares |= {mixtures(chance): 0.08, frees(chance): 0.06}
    found: list[Plan] = []
    for source, share in shares.items():
        found += _some(source, max(1, round(count * share)))
    chance.shuffle(found)
    found = [*_TRACES.values(), *found][:count]
    chance.shuffle(found)
    return found


def _some(source: Iterator[Plan], count: int) -> Sequence[Plan]:
    most = [plan for plan, _ in zip(source, range(340), strict=False)]
    step = len(most) / count
    return [most[int(n * step)] for n in range(count)] if step > 1 else most


def _like(op: Op) -> Op:
    """The same operation of somebody else: other content, so that the two can be told apart."""
    return Op(op.kind, f"{op.content}2" if op.content not in ("", "v0") else op.content, op.acl)


def _apart(ops: Sequence[Op]) -> tuple[Op, ...]:
    named = [
        Op(op.kind, f"{op.content}{i}", op.acl) if op.puts and op.content != "v0" else op for i, op in enumerate(ops)
    ]
    return tuple(named)


def _start(a: Op, b: Op, n: int) -> str:
    """What the document is before: nothing can be patched that is not there."""
    if a.puts and b.puts and n % 3 == 0:
        return "absent"
    return ("public", "hr", "public", "deleted")[n % 4] if a.puts else ("public", "hr")[n % 2]
