from __future__ import annotations

import pytest

from app.access import ACCESS_FIELDS, Access


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ({"hr"}, ["hr"], False),
        ({"hr"}, ["hr", "legal"], False),
        ({"hr", "legal"}, ["hr"], True),
        ({"hr"}, ["HR"], True),
        ({"hr"}, ["public"], False),
        ({"public"}, ["hr"], True),
        ({"public", "hr"}, ["public"], False),
        ({"hr"}, [], True),
        (set(), ["hr"], False),
        (set(), [], False),
    ],
)
def test_who_loses_a_document(before: set[str], after: list[str], taken: bool) -> None:
    assert Access(tuple(after)).narrows(Access(tuple(before))) is taken


@pytest.mark.parametrize("field", ACCESS_FIELDS[1:])
@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ((), (), False),
        ((), ("hr",), True),
        (("hr",), (), False),
        (("hr",), ("hr", "it"), False),
        (("hr", "it"), ("hr",), True),
        (("hr",), ("public",), False),
        (("public",), ("hr",), True),
    ],
)
def test_who_loses_a_document_by_a_restriction(
    field: str, before: tuple[str, ...], after: tuple[str, ...], taken: bool
) -> None:
    assert Access(**{field: after}).narrows(Access(**{field: before})) is taken


@pytest.mark.parametrize(
    ("access", "principals", "allowed"),
    [
        (Access(), frozenset(), True),
        (Access(("hr",)), frozenset(), False),
        (Access(("hr", "it")), frozenset({"it"}), True),
        (Access(()), frozenset({"hr"}), False),
        (Access(()), None, True),
        (Access(("hr",), acl_4=("it",)), frozenset({"hr"}), False),
        (Access(("hr",), acl_4=("it",)), frozenset({"hr", "it"}), True),
        (Access(("hr",), acl_2=("public",)), frozenset({"hr"}), True),
        (Access(acl_1=("a",), acl_2=("b",)), frozenset({"a"}), False),
        (Access(acl_1=("a",), acl_2=("b",)), frozenset({"a", "b"}), True),
    ],
)
def test_who_may_read(access: Access, principals: frozenset[str] | None, allowed: bool) -> None:
    assert access.allows(principals) is allowed


def test_lists_that_are_not_named_stay_and_are_stored_where_they_are_not_open() -> None:
    access = Access(("hr",), acl_2=("it",)).changed({"acl_1": ("x", "x")})
    assert access == Access(("hr",), ("x",), ("it",))
    assert access.fields() == {"acl": ["hr"], "acl_1": ["x"], "acl_2": ["it"]}
    assert Access.of(access.fields()) == access
    assert Access.of({"acl": []}) == Access(())
    assert Access.of({"acl": "hr"}) == Access(("hr",))
    assert access.is_equivalent(Access(("hr", "hr"), ("x",), ("it",)))
    assert not access.is_equivalent(Access(("hr",), ("it",), ("x",)))
