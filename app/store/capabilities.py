"""Capabilities of the cluster, from its nodes' versions, plugins and attributes.

Versions are those of OpenSearch's release notes. What the shipped files differ in: `majors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from app.config.section import VectorVariant
from app.errors import CapabilityError
from app.store.client import Cluster
from app.store.majors import Version

FAISS_ATTRIBUTE = "braid_faiss"
"""Node attribute of embedded nodes: ``native`` or ``none``. Nodes of the official distribution lack
it and have FAISS."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node's name, version and plugins."""

    name: str
    version: Version
    plugins: frozenset[str]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The nodes, and whether all of them can build FAISS graphs."""

    nodes: tuple[Node, ...]
    faiss_native: bool

    @property
    def version(self) -> Version:
        """The oldest node's version."""
        return min(node.version for node in self.nodes)

    @property
    def version_text(self) -> str:
        return _text(self.version)

    @property
    def versions(self) -> list[str]:
        """The nodes' versions, each once, the oldest first."""
        return [_text(version) for version in sorted({node.version for node in self.nodes})]

    @property
    def warnings(self) -> list[str]:
        """Return what is wrong with the cluster as a whole, in words, with the remedy."""
        if len(self.versions) == 1:
            return []
        newest = max(node.version for node in self.nodes)
        older = ", ".join(f"{node.name} ({_text(node.version)})" for node in self.nodes if node.version < newest)
        return [
            f"nodes of several versions: {', '.join(self.versions)}. Braid takes the cluster for the oldest. "
            f"Remedy: upgrade {older} to {_text(newest)} (docs/upgrading.md)"
        ]

    def lacking(self, plugin: str) -> list[str]:
        """Return the names of the nodes without `plugin`."""
        return [node.name for node in self.nodes if plugin not in node.plugins]


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that a cluster may lack: its first version, and its plugin."""

    name: str
    since: Version
    plugin: str | None = None
    instead: str = "upgrade the cluster"


RRF_ACROSS_SHARDS = Feature(
    "native reciprocal rank fusion over several shards", (3, 5, 0), "opensearch-neural-search", "fuse in the service"
)
"""It ranks the candidates of all shards together: the order over `pagination_depth` times the number of shards
candidates, not the order over `pagination_depth` of them (checked on 3.6)."""
KNN = Feature("k-NN vectors", (2, 17, 0), "opensearch-knn")
HYBRID = Feature("search pipelines of hybrid queries", (2, 19, 0), "opensearch-neural-search")

_GRAPH_VARIANTS = frozenset(name for name in get_args(VectorVariant) if name.startswith("faiss-")) - {"faiss-exact"}


def probe(cluster: Cluster) -> Capabilities:
    """Read the cluster's capabilities.

    Raises:
        CapabilityError: it is not OpenSearch.
        StoreError: it does not answer.
    """
    about = cluster.request("GET", "/")["version"]
    distribution = str(about.get("distribution", "elasticsearch"))
    if distribution != "opensearch":
        raise CapabilityError(
            f"the cluster is {distribution} {about.get('number')}, not OpenSearch 2.19 or newer: configure an "
            "OpenSearch cluster"
        )
    return read_nodes(cluster)


def read_nodes(cluster: Cluster) -> Capabilities:
    """Read the nodes of a cluster that is known to be OpenSearch. Raises StoreError."""
    nodes: Mapping[str, dict[str, object]] = cluster.request(
        "GET",
        "/_nodes/plugins",
        params={"filter_path": "nodes.*.name,nodes.*.version,nodes.*.attributes,nodes.*.plugins.name"},
    )["nodes"]
    attributes = [node.get("attributes") or {} for node in nodes.values()]
    return Capabilities(
        nodes=tuple(
            Node(
                name=str(node["name"]),
                version=_version(str(node["version"])),
                plugins=frozenset(str(plugin["name"]) for plugin in _list(node.get("plugins"))),
            )
            for node in nodes.values()
        ),
        faiss_native=all(
            isinstance(found, dict) and found.get(FAISS_ATTRIBUTE, "native") == "native" for found in attributes
        ),
    )


def has_feature(capabilities: Capabilities, feature: Feature) -> bool:
    """Return whether the cluster has `feature`."""
    plugin_there = feature.plugin is None or not capabilities.lacking(feature.plugin)
    return plugin_there and capabilities.version >= feature.since


def require(capabilities: Capabilities, feature: Feature) -> None:
    """Raise if the cluster lacks `feature`.

    Raises:
        CapabilityError: with the feature, the version found, the version needed, and the remedy.
    """
    if has_feature(capabilities, feature):
        return
    if capabilities.version < feature.since:
        raise CapabilityError(
            f"{feature.name}: found OpenSearch {capabilities.version_text}, "
            f"needs {_text(feature.since)} or newer; {feature.instead}"
        )
    nodes = ", ".join(capabilities.lacking(feature.plugin or ""))
    raise CapabilityError(
        f"{feature.name}: OpenSearch {capabilities.version_text} lacks the plugin {feature.plugin} on the node "
        f"{nodes}: install it on all nodes (bin/opensearch-plugin; the full distribution has it) and restart them"
    )


DEFAULT_VARIANT = "faiss-hnsw"
"""Default where graphs can be built, as in the official distribution."""


def default_variant(capabilities: Capabilities) -> str:
    """Return ``faiss-hnsw`` if graphs can be built, else ``faiss-exact``."""
    return DEFAULT_VARIANT if capabilities.faiss_native else "faiss-exact"


def check_variant(capabilities: Capabilities, variant: str) -> None:
    """Reject a cluster without the plugins, and a vector variant that it can't hold: a node without native FAISS that
    builds a graph ends.

    Raises:
        CapabilityError: with the nodes that lack a plugin, or with the variants that the cluster can hold.
    """
    require(capabilities, KNN)
    require(capabilities, HYBRID)
    if variant in _GRAPH_VARIANTS and not capabilities.faiss_native:
        raise CapabilityError(
            f"vector variant {variant}: found OpenSearch {capabilities.version_text} with nodes that have no native "
            "FAISS libraries, and building a graph would end such a node; needs nodes with them (the official "
            "distribution, or BRAID_KNN_LIB / OPENSEARCH_HOME for `braid up`); "
            "or use BRAID_VECTOR_VARIANT=faiss-exact or lucene-hnsw"
        )


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def _version(text: str) -> Version:
    major, minor, patch = [*text.partition("-")[0].split("."), "0", "0"][:3]
    return int(major), int(minor), int(patch)


def _list(value: object) -> list[dict[str, object]]:
    return value if isinstance(value, list) else []
