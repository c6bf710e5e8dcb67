"""Callers, and the rules for names in keys and tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from app.config.section import TENANT_PATTERN
from app.gateway.roles import ALL_ROLES, Role
from app.store.filters import Scope

MAX_NAME = 256
"""Maximum characters of a group or a subject."""
MAX_GROUPS = 1000

KEY_PREFIX = "key:"
USER_PREFIX = "user:"
_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, unpaired surrogates and line separators."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller: access, roles, name in logs, and optionally a rate limit of its own."""

    scope: Scope
    roles: frozenset[Role]
    name: str
    rate: str | None = None

    @property
    def is_operator(self) -> bool:
        """Return whether it is the holder of BRAID_API_KEY (or, without any key, a user of this machine)."""
        return self.scope.subject is None

    def has_role(self, role: Role) -> bool:
        """Return whether the caller has the role, directly or through `admin`."""
        return role in self.roles or Role.ADMIN in self.roles


def operator(tenant: str) -> Caller:
    """Return the caller with all rights in its tenant."""
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
    """Return the caller of a key or a token with validated names.

    Groups are compared by code point: groups that look alike, or fold alike, are different.
    """
    own = frozenset({subject}) if subject.startswith(USER_PREFIX) else frozenset()
    principals = None if Role.ADMIN in roles else frozenset(groups) | own
    return Caller(Scope(tenant, principals, subject), roles, name, rate)


def tenant_problem(tenant: object) -> str | None:
    """Return the problem with the name of a tenant, in words; None if it is valid."""
    if isinstance(tenant, str) and re.fullmatch(TENANT_PATTERN, tenant):
        return None
    return "a tenant is 1 to 64 of the letters A-Z, a-z, the digits, and _ . -"


def group_problem(group: object) -> str | None:
    """Return the problem with the name of a group, in words; None if it is valid."""
    problem = name_problem(group)
    if problem is None and isinstance(group, str) and group.startswith((KEY_PREFIX, USER_PREFIX)):
        return f"{KEY_PREFIX} and {USER_PREFIX} are reserved for keys and users: use another prefix"
    return problem


def name_problem(name: object) -> str | None:
    """Return the problem with a name that is never folded or trimmed, in words; None if it is valid."""
    if not isinstance(name, str):
        return "it is not a text"
    if not name.strip():
        return "it is blank"
    if len(name) > MAX_NAME:
        return f"it has more than {MAX_NAME} characters"
    if any(unicodedata.category(ch) in _UNFIT for ch in name):
        return "it contains a control character, a line separator or an unpaired surrogate"
    return None
