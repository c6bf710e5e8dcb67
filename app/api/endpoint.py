"""Declaration of an endpoint: route, models, role, audit name and load shedding, in one place beside its view.

The factory collects the declarations. Roles, audit log, rate limits, early refusals and OpenAPI follow from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeVar

from flask import Blueprint, Response
from pydantic import BaseModel

from app.gateway.roles import Role
from app.imitation import Api

Json = dict[str, Any]
View = TypeVar("View", bound=Callable[..., Response])


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """Declaration of a view. `role` and `audit` are decisions without a default."""

    method: str
    rule: str
    """Flask's rule."""
    request: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    """Status of the answer."""
    _: KW_ONLY
    role: Role | None
    """Role that a caller needs; None: open to everybody, without a credential."""
    audit: str | None
    """Action in the audit log; None: it concerns nobody's data, and only rejections are logged."""
    sheds: bool = False
    """Whether a request that waited too long for a thread is rejected on arrival (`gateway.arrival`)."""
    counted: bool = True
    """Whether requests count against rate limits."""
    problems: tuple[int, ...] = ()
    """Problem statuses beyond those that follow from role, body and path."""
    accepted: type[BaseModel] | None = None
    """Answer with status 202, if a job continues the work."""
    imitates: Api | None = None
    """API of another provider that the endpoint imitates: its errors have that API's fields, too."""
    form: Json | None = None
    """JSON Schema of a multipart form that is accepted in addition to JSON."""
    events: str | None = None
    """Description of the server-sent events that may be the answer."""
    name: str = ""
    """Flask's name, ``blueprint.view``; set by `ApiBlueprint.declare`, as are `summary` and `tag`."""
    summary: str = ""
    tag: str | None = None
    """Tag in OpenAPI; None: not part of the described API."""


class ApiBlueprint(Blueprint):
    """A blueprint that records the endpoints declared on it."""

    def __init__(self, name: str, tag: str | None) -> None:
        super().__init__(name, __name__)
        self.tag = tag
        self.endpoints: list[Endpoint] = []

    def declare(self, endpoint: Endpoint) -> Callable[[View], View]:
        """Register the decorated view. The first sentence of its docstring is the summary in OpenAPI."""

        def register(view: View) -> View:
            name = view.__name__
            summary = " ".join((view.__doc__ or "").split()).partition(". ")[0].removesuffix(".")
            self.endpoints.append(replace(endpoint, name=f"{self.name}.{name}", summary=summary, tag=self.tag))
            self.add_url_rule(endpoint.rule, name, view, methods=[endpoint.method])
            return view

        return register
