"""A caller, and what the names in a key or a token must be like to become one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from app.gateway.roles import ALL_ROLES, Role
from app.store.filters import Scope

MAX_NAME = 256
"""Characters of a group or a subject."""
MAX_GROUPS = 1000

KEY_PREFIX = "key:"
USER_PREFIX = "user:"
_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of characters, and what ends a line."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what they see, what they may do, what logs call them, and their own rate limit, if they have one."""

    scope: Scope
    roles: frozenset[Role]
    name: str
    rate: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it is the holder of BRAID_API_KEY (or, without any key, whoever is on this machine)."""
        return self.scope.subject is None

    def may(self, role: Role) -> bool:
        """Whether the caller has the role, of its own or through `admin`."""
        return role in self.roles or Role.ADMIN in self.roles


def operator(tenant: str) -> Caller:
    """The caller that may do everything in its tenant."""
    return Caller(Scope(tenant), ALL_ROLES, "operator")


def make_caller(
    *,
    tenant: str,
    groups: Iterable[str],
    roles: frozenset[Role],
    subject: str,
    name: str,
    rate: str | None = None,
) -> Caller:
    """The caller of a key or a token whose names were checked.

    Groups are taken as they are, code point by code point: two that look alike, or fold alike, are two.
    """
    own = frozenset({subject}) if subject.startswith(USER_PREFIX) else frozenset()
    principals = None if Role.ADMIN in roles else frozenset(groups) | own
    return Caller(Scope(tenant, principals, subject), roles, name, rate)


def tenant_problem(tenant: object) -> str | None:
    """What is wrong with the name of a tenant, in words; None when nothing is."""
    if isinstance(tenant, str) and _TENANT.fullmatch(tenant):
        return None
    return "a tenant is 1 to 64 of the letters A-Z, a-z, the digits, and _ . -"


def group_problem(group: object) -> str | None:
    """What is wrong with the name of a group, in words; None when nothing is."""
    problem = name_problem(group)
    if problem is None and isinstance(group, str) and group.startswith((KEY_PREFIX, USER_PREFIX)):
        return f"{KEY_PREFIX} and {USER_PREFIX} are kept for keys and users: no group begins with them"
    return problem


def name_problem(name: object) -> str | None:
    """What is wrong with a name that nobody folds or trims, in words; None when nothing is."""
    if not isinstance(name, str):
        return "it is no text"
    if not name.strip():
        return "it is blank"
    if len(name) > MAX_NAME:
        return f"it has more than {MAX_NAME} characters"
    if any(unicodedata.category(ch) in _UNFIT for ch in name):
        return "it holds a control character, a line separator or half a character"
    return None
