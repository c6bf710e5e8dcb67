"""The shipped files as each release of OpenSearch gets them, and what a cluster of several kinds of nodes can do.

To write the golden files anew: ``python -m tests.unit.store.test_majors``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.assets import asset_folder
from app.config import load_settings
from app.errors import CapabilityError
from app.store import templates
from app.store.capabilities import HYBRID, KNN, Capabilities, Node, check_variant, require
from app.store.drift import flatten
from app.store.majors import KNOWN, OLDEST, Version, in_one_spelling, shipped_file
from app.store.rendering import VARIANTS, compose, render

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "mappings"
PLUGINS = frozenset({"opensearch-knn", "opensearch-neural-search"})


def golden_file(version: Version) -> Path:
    return GOLDEN / f"rendered-{version[0]}.{version[1]}.json"


def rendered(version: Version) -> dict[str, Any]:
    """Everything that is PUT on a cluster of that version, by path; what differs by vector variant under its name."""
    bodies: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        for resource in render(load_settings(), variant, 384, version=version).resources:
            bodies.setdefault(resource.path, {})[variant] = resource.body
    return {
        path: of[VARIANTS[0]]
        if len(of) == len(VARIANTS) and all(body == of[VARIANTS[0]] for body in of.values())
        else of
        for path, of in bodies.items()
    }


@pytest.mark.parametrize("version", KNOWN)
def test_each_release_gets_what_the_golden_file_says(version: Version) -> None:
    assert rendered(version) == orjson.loads(golden_file(version).read_bytes())


def test_a_newer_file_holds_from_its_release_on() -> None:
    file = "component_templates/braid-vector-faiss-hnsw-fp16.json"
    folder = asset_folder("mappings")
    old, new = folder / file, folder / "since-3.6" / file
    taken = {version: shipped_file(folder, file, version) for version in [(2, 19, 5), (3, 5, 9), (3, 6, 0), (4, 0, 0)]}
    assert taken == {(2, 19, 5): old, (3, 5, 9): old, (3, 6, 0): new, (4, 0, 0): new}
    assert shipped_file(folder, "indexes/braid-heads.json", (3, 6, 0)) == folder / "indexes/braid-heads.json"


def test_every_newer_file_replaces_one_and_the_shipped_files_are_sound() -> None:
    for kind in ("mappings", "pipelines"):
        folder = asset_folder(kind)
        for newer in folder.glob("since-*/**/*.json"):
            assert (folder / Path(*newer.relative_to(folder).parts[1:])).is_file(), newer
    assert templates.validate(load_settings(), 384) == []


def test_an_upgraded_index_of_half_precision_is_no_drift() -> None:
    older, newer = (render(load_settings(), "faiss-hnsw-fp16", 384, version=version) for version in KNOWN)
    fields = [flatten(compose(rendered)["mappings"]) for rendered in (older, newer)]
    assert fields[0] != fields[1]
    assert in_one_spelling(fields[0]) == in_one_spelling(fields[1]) == fields[1]


def nodes(*given: tuple[Version, frozenset[str]]) -> Capabilities:
    named = (Node(f"node-{n}", version, plugins) for n, (version, plugins) in enumerate(given, start=1))
    return Capabilities(tuple(named), faiss_native=True)


def test_nodes_of_several_versions_are_named_and_count_as_the_oldest() -> None:
    mixed = nodes(((3, 6, 0), PLUGINS), (OLDEST, PLUGINS), ((3, 6, 0), PLUGINS))
    assert mixed.version == OLDEST
    (said,) = mixed.warnings
    assert said.startswith("nodes of several versions: 2.19.0, 3.6.0.")
    assert said.endswith("upgrade node-2 (2.19.0) to 3.6.0 (docs/upgrading.md)")
    assert nodes((OLDEST, PLUGINS), (OLDEST, PLUGINS)).warnings == []


def lacking() -> Iterator[tuple[Capabilities, str]]:
    knn = frozenset({"opensearch-knn"})
    yield (
        nodes((OLDEST, PLUGINS), (OLDEST, frozenset()), (OLDEST, knn)),
        "lacks the plugin opensearch-knn on the node node-2:",
    )
    yield nodes(((3, 6, 0), knn)), r"3\.6\.0 lacks the plugin opensearch-neural-search on the node node-1: install it"
    yield nodes(((2, 11, 0), PLUGINS)), r"found OpenSearch 2\.11\.0, needs 2\.17\.0 or newer; upgrade the cluster"


@pytest.mark.parametrize(("found", "said"), list(lacking()))
def test_what_a_node_lacks_is_said_with_its_name_and_the_remedy(found: Capabilities, said: str) -> None:
    with pytest.raises(CapabilityError, match=said):
        check_variant(found, "faiss-exact")
    whole = nodes(((3, 6, 0), PLUGINS))
    require(whole, KNN)
    require(whole, HYBRID)


if __name__ == "__main__":
    for known in KNOWN:
        golden_file(known).write_bytes(orjson.dumps(rendered(known), option=orjson.OPT_INDENT_2) + b"\n")
