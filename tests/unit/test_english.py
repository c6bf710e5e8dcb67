"""The form of docstrings and class names: nouns and verbs, as CONTRIBUTING.md asks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUESTION_WORDS = {"how", "what", "when", "where", "whether", "which", "who", "whom", "whose", "why"}
"""A docstring begins with a noun or a verb ("Return whether ..."), never with a clause."""
NO_NOUNS = re.compile(r"(?:ed|Away|Elsewhere|Given|Known|Where|Which|Who)$")
"""Participles, adverbs and question words at the end of a class name."""
EXCEPTED = {"Stored"}
"""`app.fields.Stored` reads as an annotation: ``Annotated[str, Stored("keyword")]``."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def nodes() -> Iterator[tuple[str, Documented]]:
    """Yield the place and the node of everything in the code that may have a docstring."""
    for package in ("app", "reranker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, Documented):
                    name = "module" if isinstance(node, ast.Module) else node.name
                    yield f"{path.relative_to(ROOT)}: {name}", node


def is_error(node: ast.ClassDef, errors: set[str]) -> bool:
    """Return whether a class is an exception, whose name may say what happened (`DocumentRejected`)."""
    return any(base.id in errors for base in node.bases if isinstance(base, ast.Name))


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    found = [
        f"{place}: {text.splitlines()[0]}"
        for place, node in nodes()
        if (text := ast.get_docstring(node)) and re.split(r"\W", text, maxsplit=1)[0].lower() in QUESTION_WORDS
    ]
    assert found == []


def test_types_are_nouns() -> None:
    classes = [(place, node) for place, node in nodes() if isinstance(node, ast.ClassDef)]
    errors = {"Exception", "KeyboardInterrupt"}
    while grown := {node.name for _, node in classes if is_error(node, errors)} - errors:
        errors |= grown
    found = [
        place
        for place, node in classes
        if NO_NOUNS.search(node.name) and node.name not in EXCEPTED and not is_error(node, errors)
    ]
    assert found == []
