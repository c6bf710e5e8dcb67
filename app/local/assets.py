"""`braid templates`, and opening the store as every command needs it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from app.addresses import masked
from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.config import Settings
from app.embedded.models import ensure_model
from app.embedding.encoder import Encoder, load_encoder
from app.store import templates, tunings
from app.store.capabilities import DEFAULT_VARIANT, Capabilities, default_variant, probe
from app.store.client import Cluster, connect
from app.store.rendering import Rendered, render
from app.tuning import Tuning


@dataclass(frozen=True)
class Store:
    """A cluster, what it can do, and what it should hold for these settings."""

    settings: Settings
    cluster: Cluster
    capabilities: Capabilities
    encoder: Encoder

    @cached_property
    def rendered(self) -> Rendered:
        """The templates and pipelines for the chosen, or else the best possible, vector variant, and as tuned."""
        return self.rendered_for(tunings.active(self.cluster))

    def rendered_for(self, tuning: Tuning) -> Rendered:
        """The same for a tuning that need not be in force."""
        variant = self.settings.vector_variant or default_variant(self.capabilities)
        return render(self.settings, variant, self.encoder.dimension, tuning)

    def apply(self, console: Console) -> list[templates.Change]:
        """Apply the templates; print only what changed."""
        changes = self.put()
        for change in changes:
            if change.action != "unchanged":
                console.print(f"{change.action} {change.kind} {change.name}", markup=False)
        return changes

    def put(self) -> list[templates.Change]:
        """Apply the templates; answers that were cached before are old if anything changed."""
        changes = templates.apply(self.cluster, self.capabilities, self.rendered)
        if any(change.action != "unchanged" for change in changes):
            connection = RedisConnection(self.settings)
            IndexGeneration(connection).advance_all()
            connection.close()
        return changes

    def describe(self) -> str:
        faiss = "native FAISS" if self.capabilities.faiss_native else "no native FAISS"
        return f"OpenSearch {self.capabilities.version_text} at {masked(self.cluster.url).replace(',', ', ')}, {faiss}"


def _encoder(settings: Settings) -> Encoder:
    """The encoder; Maven fetches its model first where no folder is named."""
    if settings.embedding_path is None:
        ensure_model(settings.embedding_model, settings.embedding_precision, settings)
    return load_encoder(settings)


def open_store(settings: Settings) -> Store:
    """Connect, ask what the cluster can do, load the encoder.

    Raises:
        ConfigurationError, ProvisioningError, CapabilityError, StoreError.
    """
    cluster = connect(settings)
    return Store(settings, cluster, probe(cluster), _encoder(settings))


def apply(settings: Settings, *, as_json: bool, console: Console) -> int:
    """`braid templates apply`."""
    store = open_store(settings)
    changes = store.put()
    if as_json:
        _json(console, [asdict(change) for change in changes])
        return 0
    table = Table("", "kind", "name")
    for change in changes:
        table.add_row(change.action, change.kind, change.name)
    console.print(table, soft_wrap=False)
    return 0


def diff(settings: Settings, *, as_json: bool, console: Console) -> int:
    """`braid templates diff`: 1 when anything differs."""
    store = open_store(settings)
    drifts = templates.diff(store.cluster, store.rendered)
    if as_json:
        _json(console, [asdict(drift) for drift in drifts])
    elif drifts:
        table = Table("kind", "name", "field", "expected", "found")
        for drift in drifts:
            table.add_row(drift.kind, drift.name, drift.field, str(drift.expected), str(drift.found))
        console.print(table, soft_wrap=False)
        console.print(f"{len(drifts)} differences; `braid templates apply` puts right what is no index")
    else:
        console.print("the cluster is as this service needs it")
    return 1 if drifts else 0


def validate(settings: Settings, *, offline: bool, console: Console) -> int:
    """`braid templates validate`: 1 when a file is wrong, or the cluster refuses what they make."""
    problems = templates.validate(settings, dimension=384)
    if not offline:
        store = open_store(settings)
        problems += templates.simulate(store.cluster, store.rendered)
    for problem in problems:
        console.print(problem, style="red", markup=False)
    if not problems:
        console.print("the files are valid" + ("" if offline else ", and the cluster takes them"))
    return 1 if problems else 0


def export(settings: Settings, folder: Path, *, console: Console) -> int:
    """`braid templates export FOLDER`; without a cluster to ask, for one that can hold the default variant."""
    if settings.opensearch_url is not None:
        rendered = open_store(settings).rendered
    else:
        rendered = render(settings, settings.vector_variant or DEFAULT_VARIANT, _encoder(settings).dimension)
    for path in templates.export(rendered, folder):
        console.print(str(path), markup=False)
    return 0


def _json(console: Console, value: object) -> None:
    console.file.write(orjson.dumps(value).decode() + "\n")
