"""Fields of a foreign index: the text and the vectors that a hybrid search uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import InvalidInput
from app.inspection.reader import Reader

_LISTED = 12
"""Number of fields that a message lists."""
_TEXT, _VECTOR = frozenset({"text", "match_only_text"}), frozenset({"knn_vector"})
Mappings = Mapping[str, Mapping[str, Any]]
"""Index -> its mapping."""


@dataclass(frozen=True, slots=True)
class TextField:
    """The field of the lexical leg; `sources` are the fields of a document that hold its text (see ``copy_to``)."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VectorField:
    """The field of the dense leg.

    `method` is ``hnsw`` or ``ivf``; `encoder` the quantisation ("" for none); `m` the edges of a node (HNSW).
    """

    name: str
    dimension: int
    space_type: str
    engine: str
    method: str
    data_type: str = "float"
    encoder: str = ""
    m: int = 16
    model: str = ""

    @property
    def described(self) -> str:
        """The field in words, for evidence."""
        kind = f"{self.engine} {self.method}{f' {self.encoder}' if self.encoder else ''}"
        return f"{self.name}: {self.dimension} dimensions, {self.space_type}, {kind}"


def all_fields(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and the definition of every field, with objects and multi-fields."""
    for name, definition in (mapping.get("properties") or {}).items():
        path = f"{prefix}{name}"
        yield path, definition
        yield from all_fields(definition, f"{path}.")
        for sub, inner in (definition.get("fields") or {}).items():
            yield f"{path}.{sub}", inner


def find_text(mappings: Mappings, given: str | None) -> TextField | None:
    """Return the field `given`, or the only text field; None if there is none.

    A field that is copied into another one is no candidate: the other one is what a search uses.

    Raises:
        InvalidInput: `given` is no text field, or there are several; the message lists them.
    """
    known = _of_type(mappings, _TEXT)
    copied: dict[str, list[str]] = {}
    for name, definition in known.items():
        targets = definition.get("copy_to") or []
        for target in [targets] if isinstance(targets, str) else targets:
            copied.setdefault(target, []).append(name)
    sources = {source for target in copied if target in known for source in copied[target]}
    # the variants of a multi-field are no candidates either
    subs = {
        f"{path}.{sub}"
        for mapping in mappings.values()
        for path, definition in all_fields(mapping)
        for sub in definition.get("fields") or ()
    }
    tops = [name for name in known if name not in sources | subs]
    chosen = _choose(known, tops, given, "--text", "text field")
    if chosen is None:
        return None
    return TextField(chosen, tuple(copied.get(chosen, ())) or (chosen,))


def find_vector(mappings: Mappings, given: str | None, reader: Reader) -> VectorField | None:
    """Return the field `given`, or the only k-NN field; None if there is none. Raises as `find_text`."""
    known = _of_type(mappings, _VECTOR)
    name = _choose(known, list(known), given, "--vector", "knn_vector field")
    if name is None:
        return None
    definition = known[name]
    method = definition.get("method") or {}
    trained: Mapping[str, Any] = {}
    if model := str(definition.get("model_id") or ""):
        trained = reader.find(f"/_plugins/_knn/models/{model}") or {}
    parameters = method.get("parameters") or {}
    encoder = parameters.get("encoder") or {}
    encoded = " ".join([str(encoder.get("name", "")), *map(str, (encoder.get("parameters") or {}).values())]).strip()
    compression = definition.get("compression_level")
    if definition.get("mode") == "on_disk" or compression:
        encoded = encoded or f"quantised {compression or '32x'}"
    return VectorField(
        name,
        int(definition.get("dimension") or trained.get("dimension") or 0),
        str(method.get("space_type") or definition.get("space_type") or trained.get("space_type") or "l2"),
        str(method.get("engine") or trained.get("engine") or "faiss"),
        str(method.get("name") or ("model" if model else "hnsw")),
        str(definition.get("data_type") or "float"),
        encoded,
        int(parameters.get("m") or 16),
        model,
    )


def find_keywords(mappings: Mappings) -> list[str]:
    """Return the fields whose values can be read as doc values, and be filtered by."""
    known = _of_type(mappings, frozenset({"keyword", "boolean"}))
    return [name for name, definition in known.items() if definition.get("doc_values") is not False]


def values_at(source: Any, path: str) -> list[Any]:
    """Return the values of a document at a dotted path; objects and lists of them are entered."""
    if isinstance(source, list):
        return [value for item in source for value in values_at(item, path)]
    if not isinstance(source, Mapping):
        return []
    if path in source:  # its last part, or a name with dots
        return [] if source[path] is None else [source[path]]
    first, _, rest = path.partition(".")
    return values_at(source.get(first), rest) if rest else []


def _of_type(mappings: Mappings, types: frozenset[str]) -> dict[str, Mapping[str, Any]]:
    """Return the indexed fields of some types. Those in nested objects, which need other queries, are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for mapping in mappings.values():
        fields = dict(all_fields(mapping))
        nested = tuple(f"{name}." for name, definition in fields.items() if definition.get("type") == "nested")
        found |= {
            name: definition
            for name, definition in fields.items()
            if definition.get("type") in types and definition.get("index") is not False and not name.startswith(nested)
        }
    return found


def _choose(
    known: Mapping[str, Any], candidates: Sequence[str], given: str | None, option: str, kind: str
) -> str | None:
    listed = ", ".join(candidates[:_LISTED]) + (
        f" and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
    )
    if given is not None:
        if given not in known:
            raise InvalidInput(f"{option} {given!r} is not an indexed {kind} of the index; it has: {listed or 'none'}")
        return given
    if len(candidates) > 1:
        raise InvalidInput(f"the index has {len(candidates)} {kind}s, choose one with {option}: {listed}")
    return candidates[0] if candidates else None
