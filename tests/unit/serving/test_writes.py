"""Each caller has a share of the turns, so that one whose documents take long does not stop the others'."""

from __future__ import annotations

import pytest

from app.config import load_settings
from app.deadline import WriteDeadline
from app.errors import Overloaded
from app.serving.writes import AT_ONCE, OWN_AT_ONCE, Writes
from app.store.client import Cluster


def test_one_caller_leaves_a_turn_to_the_others() -> None:
    settings = load_settings(opensearch_url="http://127.0.0.1:9")  # never asked
    writes = Writes(settings, Cluster(settings), lambda tenant, stored: None)
    one, other = ("t", "key:a"), ("t", "key:b")
    held = [writes._take_turn(one, WriteDeadline.after(60_000)) for _ in range(OWN_AT_ONCE)]
    with pytest.raises(Overloaded, match="of this caller"):
        writes._take_turn(one, WriteDeadline.after(200))
    held += [writes._take_turn(other, WriteDeadline.after(60_000)) for _ in range(AT_ONCE - OWN_AT_ONCE)]
    with pytest.raises(Overloaded):  # of all
        writes._take_turn(other, WriteDeadline.after(200))
    while held:
        held.pop()()
    assert not list(writes._own)  # nothing is kept of callers who are gone
    writes._take_turn(one, WriteDeadline.after(200))()
