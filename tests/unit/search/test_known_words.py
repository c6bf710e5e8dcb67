from __future__ import annotations

from app.search.known_words import KnownWords

ALL = [{"term": {"tenant": "default"}}]
SOME = [*ALL, {"terms": {"acl": ["hr", "public"]}}]


def test_what_was_found_is_not_looked_up_again() -> None:
    known = KnownWords()
    assert known.find_unknown(ALL, ("pump", "valve")) == ("pump", "valve")
    known.learn(ALL, ["pump"])
    assert known.find_unknown(ALL, ("pump", "valve")) == ("valve",)


def test_what_one_caller_may_see_says_nothing_of_another() -> None:
    known = KnownWords()
    known.learn(ALL, ["salary"])
    assert known.find_unknown(SOME, ("salary",)) == ("salary",)
