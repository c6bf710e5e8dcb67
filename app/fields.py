"""Table of a passage's fields, made of the annotations of the dataclass `app.passage.Passage`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, create_model

from app.values import Integer, IsoDate, Value

Filter = Literal["any of", "range"]
_Model = TypeVar("_Model", bound=BaseModel)
_MOST_VALUES = 100
"""Maximum values of one field in a document."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Storage of a field; `type` is that of the mapping.

    Args:
        label: meaning of the field, for people.
        filter: filter that requests may apply. Never set for access lists (`app.access`, `app.store.filters`).
        returned: searches read it, and answers show it.
        internal: searches read it for the service's own use; it is never shown.
        writable: `POST /v1/documents` takes it.
        per_passage: the passages of one document differ in it.
        in_source: False for the vectors and the id, which have their own code.
        value: pydantic type of one value in a request, if `type` is not specific enough.
        choices: all possible values.
        hint: annotated Python type; set by `stored_fields`, like `required`.
        required: every answer has it, because the dataclass has no default.
    """

    type: str
    label: str
    filter: Filter | None = None
    returned: bool = False
    internal: bool = False
    writable: bool = False
    per_passage: bool = False
    in_source: bool = True
    value: Any = None
    choices: Iterable[StrEnum] = ()
    hint: Any = None
    required: bool = True

    @property
    def many(self) -> bool:
        """Return whether a passage may have several values."""
        return get_origin(self.hint) is tuple

    @property
    def absent(self) -> Any:
        """Value of a passage that is stored without the field."""
        if self.many:
            return ()
        return None if type(None) in get_args(self.hint) else self.hint()

    @property
    def optional(self) -> bool:
        """True if an empty value is omitted from the stored document: the field has a default, or may be None."""
        return not self.required or self.absent is None

    @property
    def answered(self) -> tuple[Any, Any]:
        """Pydantic type and default in answers."""
        kind = GenericAlias(list, get_args(self.hint)[:1]) if self.many else self.hint
        default = [] if self.many else self.absent
        return kind, ... if self.required else default

    @property
    def written(self) -> tuple[Any, Any]:
        """Pydantic type and default in requests that write a document."""
        values: Any = GenericAlias(list, self.value_type)
        kind = Annotated[values, Field(max_length=_MOST_VALUES)] if self.many else self.value_type
        return kind | None, None

    @property
    def value_type(self) -> Any:
        """Pydantic type of one value in a request."""
        if self.choices:
            return Literal[tuple(choice.value for choice in self.choices)]
        return self.value or {"keyword": Value, "text": Value, "integer": Integer, "date": IsoDate}[self.type]


def stored_fields(passage: type[Any]) -> dict[str, Stored]:
    """Return the table, in the order of the dataclass.

    Raises:
        TypeError: a field has no `Stored`, so that nothing would write it.
    """
    hints, extras = get_type_hints(passage), get_type_hints(passage, include_extras=True)
    found = {}
    for item in dataclasses.fields(passage):
        told = [note for note in getattr(extras[item.name], "__metadata__", ()) if isinstance(note, Stored)]
        if len(told) != 1:
            raise TypeError(f"{passage.__name__}.{item.name} needs one annotation Stored(...)")
        required = item.default is dataclasses.MISSING
        found[item.name] = dataclasses.replace(told[0], hint=hints[item.name], required=required)
    return found


def with_fields(fields: Mapping[str, Any]) -> Callable[[type[_Model]], type[_Model]]:
    """Decorate a pydantic model with `fields` (name -> type and default), placed before its own.

    A field that the model declares itself keeps its declaration.
    """

    def extend(model: type[_Model]) -> type[_Model]:
        missing = {name: field for name, field in fields.items() if name not in model.model_fields}
        added = create_model(f"{model.__name__}Fields", __base__=model.__base__, **missing)
        bases, place = (model, added), {"__module__": model.__module__, "__doc__": model.__doc__}
        return create_model(model.__name__, __base__=bases, **place)  # type: ignore[call-overload,no-any-return]

    return extend
