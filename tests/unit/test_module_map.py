"""The module map in docs/architecture.md is that of the import graph.

To write it anew: ``python -m tests.unit.test_module_map``.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator, Mapping
from functools import cache

import grimp

from tests.unit.generated import DOCS, ROOT, read_part, write_part

PAGE, MODULE = DOCS / "architecture.md", "tests.unit.test_module_map"
GROUND, START = "ground floor", "start"
Edges = Mapping[str, frozenset[str]]


def purpose(module: str) -> str:
    """The first paragraph of a module's docstring, in one line."""
    path = ROOT / module.replace(".", "/")
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    return " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())


@cache
def layers() -> list[str]:
    """Modules of `.importlinter`, those first that may import all others."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    return re.findall(r"[\w.]+", config["importlinter:contract:layers"]["layers"])


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("app", "reranker")


def is_folder(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def room_of(module: str) -> str:
    """The folder that a module is in; what lies at the top of `app` starts a process, or is the ground floor."""
    top = ".".join(module.split(".")[:2])
    if module == "app":
        return GROUND
    if module.startswith("app") and (not is_folder(top) or top in layers()[layers().index("app.deadline") :]):
        return START if top in layers()[: layers().index("app.api")] else GROUND
    return module if is_folder(module) else module.rpartition(".")[0]


def rooms() -> list[str]:
    """All folders, in the order of the layers."""

    def rank(room: str) -> tuple[int, str]:
        top = ".".join(room.split(".")[:2])
        return (layers().index(top) if top in layers() else len(layers()), room)

    return sorted({room_of(module) for module in graph().modules} - {GROUND, START}, key=rank)


@cache
def edges() -> Edges:
    """Room -> the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for module in graph().modules:
        targets = {room_of(name) for name in graph().find_modules_directly_imported_by(module)}
        found.setdefault(room_of(module), set()).update(targets - {room_of(module)})
    return {room: frozenset(targets) for room, targets in found.items()}


def short(room: str) -> str:
    return room.removeprefix("app.").replace(".", "/")


def rooms_table() -> str:
    """A row a room: purpose, and the rooms that it imports. Every room may import the ground floor."""
    lines = ["| folder | purpose | imports |", "|---|---|---|"]
    for room in rooms():
        imported = ", ".join(short(name) for name in rooms() if name in edges().get(room, ()))
        lines.append(f"| `{room.replace('.', '/')}/` | {purpose(room)} | {imported} |")
    return "\n".join(lines) + "\n"


def ground_table() -> str:
    """A row a module of the ground floor."""
    lines = ["| module | purpose |", "|---|---|"]
    for module in sorted(graph().modules):
        if room_of(module) == GROUND and module.count(".") == 1:
            file = module.replace(".", "/") + ("/" if is_folder(module) else ".py")
            lines.append(f"| `{file}` | {purpose(module)} |")
    return "\n".join(lines) + "\n"


def drawing() -> str:
    """The folders below `app` as a Mermaid graph. What a longer way shows has no arrow of its own."""
    folders: dict[str, set[str]] = {}
    for room, targets in edges().items():
        if room not in (GROUND, START):
            top = _top(room)
            folders.setdefault(top, set()).update({_top(name) for name in targets} - {top, GROUND, START})
    arrows = [f"  {short(a)} --> {short(b)}" for a, b in _reduced(folders)]
    return "\n".join(["```mermaid", "flowchart TD", *sorted(arrows), "```"]) + "\n"


def _top(room: str) -> str:
    return room if room in (GROUND, START) else ".".join(room.split(".")[: 2 if room.startswith("app") else 1])


def _reduced(targets: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Pairs without those that follow from others."""

    def reachable(room: str) -> set[str]:
        return {name for step in targets.get(room, ()) for name in {step} | reachable(step)}

    for room, direct in targets.items():
        yield from ((room, name) for name in direct if not any(name in reachable(other) for other in direct))


PARTS = {"rooms": rooms_table, "drawing": drawing, "ground floor": ground_table}


def test_the_page_shows_the_modules_as_they_are() -> None:
    assert {name: read_part(PAGE, MODULE, name) for name in PARTS} == {name: made() for name, made in PARTS.items()}


def test_every_room_states_its_purpose() -> None:
    assert [room for room in rooms() if not purpose(room)] == []


def test_the_ground_floor_imports_no_room() -> None:
    assert edges()[GROUND] == set()


if __name__ == "__main__":
    for part, made in PARTS.items():
        write_part(PAGE, MODULE, part, made())
