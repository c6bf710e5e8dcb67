"""What the cluster can do, known before it is asked to: by its version, its plugins and its nodes' attributes.

Versions are those of OpenSearch's release notes; the differences between 2.19 and 3.x live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import CapabilityError
from app.store.client import Cluster

FAISS_ATTRIBUTE = "braid_faiss"
"""Node attribute of embedded nodes: ``native`` or ``none``. Nodes of the official distribution have none, and FAISS."""

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The oldest node's version, the plugins that all nodes have, and whether all build FAISS graphs."""

    version: Version
    distribution: str
    plugins: frozenset[str]
    faiss_native: bool

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True)
class Feature:
    """Something a cluster may lack: since which version it is there, and with which plugin."""

    name: str
    since: Version
    plugin: str | None = None
    instead: str = "upgrade the cluster"


HYBRID = Feature("hybrid queries", (2, 10, 0), "opensearch-neural-search")
RRF = Feature("native reciprocal rank fusion", (2, 19, 0), "opensearch-neural-search", "use fusion.method linear")
RRF_ACROSS_SHARDS = Feature(
    "native reciprocal rank fusion over several shards", (3, 5, 0), "opensearch-neural-search", "fuse in the service"
)
HYBRID_FILTER = Feature("hybrid.filter", (3, 0, 0), instead="put the filter into every leg")
Z_SCORE = Feature("z_score normalisation", (3, 0, 0), instead="use min_max")
MIN_MAX_BOUNDS = Feature("bounds of min_max", (3, 0, 0), instead="leave the bounds out")
RRF_WEIGHTS = Feature("weights of reciprocal rank fusion", (3, 1, 0), instead="use fusion.method linear")
HYBRID_COLLAPSE = Feature("collapse in hybrid queries", (3, 1, 0), instead="collapse in the service")
KNN = Feature("k-NN vectors", (2, 17, 0), "opensearch-knn")

_GRAPH_VARIANTS = frozenset({"faiss-hnsw", "faiss-hnsw-fp16", "faiss-ivfpq", "faiss-on-disk"})


def probe(cluster: Cluster) -> Capabilities:
    """Ask the cluster what it is.

    Raises:
        CapabilityError: it is no OpenSearch.
        StoreError: it can't be asked.
    """
    about = cluster.request("GET", "/")["version"]
    distribution = str(about.get("distribution", "elasticsearch"))
    if distribution != "opensearch":
        raise CapabilityError(
            f"the cluster is {distribution} {about.get('number')}, not OpenSearch 2.19 or newer: name one that is"
        )
    nodes: Mapping[str, dict[str, object]] = cluster.request(
        "GET", "/_nodes/plugins", params={"filter_path": "nodes.*.version,nodes.*.attributes,nodes.*.plugins.name"}
    )["nodes"]
    plugins = [frozenset(str(plugin["name"]) for plugin in _list(node.get("plugins"))) for node in nodes.values()]
    attributes = [node.get("attributes") or {} for node in nodes.values()]
    return Capabilities(
        version=min(_version(str(node["version"])) for node in nodes.values()),
        distribution=distribution,
        plugins=frozenset.intersection(*plugins),
        faiss_native=all(
            isinstance(found, dict) and found.get(FAISS_ATTRIBUTE, "native") == "native" for found in attributes
        ),
    )


def has(capabilities: Capabilities, feature: Feature) -> bool:
    """Whether the cluster has `feature`."""
    plugin_there = feature.plugin is None or feature.plugin in capabilities.plugins
    return plugin_there and capabilities.version >= feature.since


def require(capabilities: Capabilities, feature: Feature) -> None:
    """Refuse what the cluster can't do.

    Raises:
        CapabilityError: the feature, the version found, the version needed, the remedy.
    """
    if has(capabilities, feature):
        return
    if capabilities.version < feature.since:
        raise CapabilityError(
            f"{feature.name}: found OpenSearch {capabilities.version_text}, "
            f"needs {'.'.join(map(str, feature.since))} or newer; {feature.instead}"
        )
    raise CapabilityError(
        f"{feature.name}: OpenSearch {capabilities.version_text} lacks the plugin {feature.plugin}; "
        "install it on all nodes"
    )


DEFAULT_VARIANT = "faiss-hnsw"
"""Where graphs can be built, as in the official distribution."""


def default_variant(capabilities: Capabilities) -> str:
    """``faiss-hnsw`` where graphs can be built, else ``faiss-exact``."""
    return DEFAULT_VARIANT if capabilities.faiss_native else "faiss-exact"


def check_variant(capabilities: Capabilities, variant: str) -> None:
    """Refuse a vector variant that the cluster can't hold; a node without native FAISS that builds a graph ends.

    Raises:
        CapabilityError: naming the variants that it can hold.
    """
    require(capabilities, KNN)
    if variant in _GRAPH_VARIANTS and not capabilities.faiss_native:
        raise CapabilityError(
            f"vector variant {variant}: found OpenSearch {capabilities.version_text} with nodes that have no native "
            "FAISS libraries, and building a graph would end such a node; needs nodes with them (the official "
            "distribution, or BRAID_KNN_LIB / OPENSEARCH_HOME for `braid up`); "
            "or use BRAID_VECTOR_VARIANT=faiss-exact or lucene-hnsw"
        )


def _version(text: str) -> Version:
    major, minor, patch = [*text.partition("-")[0].split("."), "0", "0"][:3]
    return int(major), int(minor), int(patch)


def _list(value: object) -> list[dict[str, object]]:
    return value if isinstance(value, list) else []
