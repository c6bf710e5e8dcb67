"""The inspected index: its mapping and settings, a sample of its documents, and the queries that the checks use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import InvalidInput, StoreError, StoreUnavailable
from app.evaluation.dataset import JudgedSet
from app.inspection.fields import TextField, VectorField, find_keywords, find_text, find_vector, values_at
from app.inspection.reader import PermissionMissing, Reader, quoted
from app.passage import Candidate

Vector = npt.NDArray[np.float32]

_OLDEST = (2, 19)
_KEYWORDS = 10
"""Keyword fields whose values are sampled."""

WORDS = 8
"""Words of a sampled passage that make a query; the first ones are often the same in all (headers), so the middle."""


@dataclass(frozen=True, slots=True)
class SampleSizes:
    """Sizes of the samples: documents that are read, queries that are sent by a check, and judged queries."""

    documents: int = 100
    queries: int = 30
    judged: int = 200


@dataclass(frozen=True, slots=True)
class SampledDocument:
    """A stored document: its text, its vector if it has one in ``_source``, and values of some keyword fields."""

    id: str
    index: str
    text: str
    vector: Vector | None
    keywords: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeQuery:
    """A query of the checks; `own` is the document that it was made from, which must not count as found."""

    text: str
    vector: Vector | None
    own: str | None = None


@dataclass
class Subject:
    """An index, alias or pattern as it is inspected; what costs a request is read when a check first needs it."""

    reader: Reader
    name: str
    mappings: Mapping[str, Mapping[str, Any]]
    """Concrete index -> its mapping."""
    text: TextField | None
    vector: VectorField | None
    sizes: SampleSizes = field(default_factory=SampleSizes)
    id_field: str | None = None
    """Field with the ids that judgements name; None: ``_id``."""
    pipeline: str | None = None
    """Search pipeline that the clients' searches name; None: the index's default."""
    given: Sequence[ProbeQuery] = ()
    """Queries of the user, which are preferred."""
    query_vectors: Mapping[str, Vector] = field(default_factory=dict)
    """Vectors of the judged queries."""
    judged: JudgedSet | None = None

    @property
    def path(self) -> str:
        """The name as part of a path."""
        return quoted(self.name)

    @cached_property
    def settings(self) -> dict[str, dict[str, str]]:
        """Flat settings of each concrete index."""
        answer = self.reader.get(f"/{self.path}/_settings", flat_settings="true", human="true")
        return {index: dict(found["settings"]) for index, found in answer.items()}

    @cached_property
    def documents(self) -> int:
        """Number of documents; nested ones do not count."""
        return self.reader.count(self.name, {"match_all": {}})

    @cached_property
    def vectors(self) -> int:
        """Number of documents with a vector."""
        return self.reader.count(self.name, self.with_vector)

    @property
    def with_vector(self) -> dict[str, Any]:
        """The query for documents with a vector."""
        return {"exists": {"field": self.vector_field.name}}

    @property
    def text_field(self) -> TextField:
        """The text field. Raises StoreError if there is none: the run does not call checks that need it."""
        if self.text is None:
            raise StoreError(f"{self.name} has no text field")
        return self.text

    @property
    def vector_field(self) -> VectorField:
        """The vector field. Raises StoreError as `text_field`."""
        if self.vector is None:
            raise StoreError(f"{self.name} has no knn_vector field")
        return self.vector

    @cached_property
    def sample(self) -> list[SampledDocument]:
        """A random sample of the documents with a vector (of all, without a vector field); reproducible by its seed
        while the index does not change. May be empty.
        """
        sources = list(self.text.sources) if self.text else []
        body = {
            "size": self.sizes.documents,
            "query": {
                "function_score": {
                    "query": self.with_vector if self.vector else {"match_all": {}},
                    "random_score": {"seed": 0, "field": "_seq_no"},
                    "boost_mode": "replace",
                }
            },
            "_source": [*sources, *([self.vector.name] if self.vector else [])],
            "docvalue_fields": find_keywords(self.mappings)[:_KEYWORDS],
            "track_total_hits": False,
        }
        hits = self.reader.search(self.name, body, search_pipeline="_none")["hits"]["hits"]
        return [self._document(hit, sources) for hit in hits]

    def _document(self, hit: Mapping[str, Any], sources: Sequence[str]) -> SampledDocument:
        source = hit.get("_source") or {}
        texts = [str(value) for name in sources for value in values_at(source, name)]
        stored = values_at(source, self.vector.name) if self.vector else []
        vector = np.asarray(stored[0], np.float32) if stored else None
        if vector is not None and (vector.ndim != 1 or len(vector) != self.vector_field.dimension):
            vector = None  # a nested or binary vector
        keywords = tuple((name, values[0]) for name, values in hit.get("fields", {}).items() if values)
        return SampledDocument(str(hit["_id"]), str(hit["_index"]), " ".join(texts), vector, keywords)

    @cached_property
    def probes(self) -> list[ProbeQuery]:
        """Queries with a text and a vector: those of the user that have both, else made from sampled documents: some
        words of its middle, and its vector.

        Raises:
            StoreError: there are none, and why.
        """
        if made := [probe for probe in self.given if probe.vector is not None][: self.sizes.queries]:
            return made
        for document in self.sample:
            words = document.text.split()
            begin = max(0, (len(words) - WORDS) // 2)
            if document.vector is not None and len(made) < self.sizes.queries:
                made.append(ProbeQuery(" ".join(words[begin : begin + WORDS]), document.vector, document.id))
        if made:
            return made
        if not self.sample:
            raise StoreError(f"{self.name} has no document with a value in {self.vector_field.name}")
        raise StoreError(
            f"the vectors of {self.vector_field.name} are not in _source: pass queries with vectors by --queries"
        )

    def lexical(self, text: str) -> dict[str, Any]:
        """Return the lexical leg of a query."""
        return {"match": {self.text_field.name: {"query": text}}}

    def dense(self, vector: Vector, k: int, query_filter: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the dense leg of a query, as clients write it."""
        body: dict[str, Any] = {"vector": self.plain(vector), "k": k}
        return {"knn": {self.vector_field.name: body | ({"filter": query_filter} if query_filter else {})}}

    def hybrid(self, text: str, vector: Vector, k: int) -> dict[str, Any]:
        """Return both legs as one query, with `k` candidates of each shard and leg."""
        return {"hybrid": {"pagination_depth": k, "queries": [self.lexical(text), self.dense(vector, k)]}}

    def exact(self, vector: Vector, query_filter: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a query that scores each vector exactly, without the graph (the k-NN plugin's own script)."""
        found = self.vector_field
        query = {"bool": {"filter": [self.with_vector, *([query_filter] if query_filter else [])]}}
        parameters = {"field": found.name, "query_value": self.plain(vector), "space_type": found.space_type}
        return {
            "script_score": {"query": query, "script": {"lang": "knn", "source": "knn_score", "params": parameters}}
        }

    def plain(self, vector: Vector) -> list[float] | list[int]:
        """Return a vector as JSON has it."""
        numbers: list[float] | list[int] = (
            vector if self.vector_field.data_type == "float" else vector.astype(int)
        ).tolist()
        return numbers

    def candidates(
        self,
        query: Mapping[str, Any],
        size: int,
        index: str | None = None,
        *,
        pipeline: str | Mapping[str, Any] | None = "_none",
        **params: Any,
    ) -> list[Candidate]:
        """Return the hits of a query, best first.

        Args:
            index: one of the indexes behind the name; None: all.
            pipeline: a search pipeline, by its name or as a body; None: that of the index.

        Raises:
            InvalidInput: a hit has no `id_field`. Others as `Reader.search`.
        """
        body: dict[str, Any] = {"size": size, "query": query, "_source": False, "track_total_hits": False}
        if self.id_field:
            body["docvalue_fields"] = [self.id_field]
        if isinstance(pipeline, str):
            params["search_pipeline"] = pipeline
        elif pipeline is not None:
            body["search_pipeline"] = pipeline
        hits = self.reader.search(index or self.name, body, **params)["hits"]["hits"]
        return [Candidate(str(hit["_id"]), self._document_id(hit), float(hit["_score"] or 0.0)) for hit in hits]

    def _document_id(self, hit: Mapping[str, Any]) -> str:
        if not self.id_field:
            return str(hit["_id"])
        if not (values := hit.get("fields", {}).get(self.id_field)):
            raise InvalidInput(f"--id-field {self.id_field!r}: document {hit['_id']!r} has no doc value in it")
        return str(values[0])

    def ranked(self, query: Mapping[str, Any], size: int, index: str | None = None, **params: Any) -> dict[str, float]:
        """Return document id -> score, best first, as `candidates`."""
        return {item.id: item.score for item in self.candidates(query, size, index, **params)}


def open_subject(
    reader: Reader,
    name: str,
    text: str | None = None,
    vector: str | None = None,
    *,
    sizes: SampleSizes | None = None,
    id_field: str | None = None,
    pipeline: str | None = None,
) -> Subject:
    """Read the mapping and find the fields.

    Raises:
        InvalidInput: there is no such index, or the fields are not found by themselves.
        PermissionMissing: not even the mapping may be read.
        StoreError: the address does not answer, or not like OpenSearch.
    """
    path = f"/{quoted(name)}/_mapping"
    _check_address(reader)
    answer = reader.find(path)
    if not answer:
        raise InvalidInput(f"--index {name!r}: {reader.address} has no such index, alias or pattern")
    mappings = {index: found["mappings"] for index, found in sorted(answer.items())}
    return Subject(
        reader,
        name,
        mappings,
        find_text(mappings, text),
        find_vector(mappings, vector, reader),
        sizes or SampleSizes(),
        id_field,
        pipeline,
    )


def _check_address(reader: Reader) -> None:
    """Raise StoreError if the address does not answer, or is not OpenSearch. A user may lack the right to ask."""
    try:
        version = reader.get("/")["version"]
        distribution, number = version.get("distribution", "elasticsearch"), version["number"]
    except PermissionMissing:
        return
    except StoreUnavailable as error:
        raise StoreError(f"{error.detail}: check --url") from error
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{reader.address} did not answer like OpenSearch: check --url") from error
    if distribution != "opensearch" or tuple(map(int, number.split(".")[:2])) < _OLDEST:
        raise StoreError(f"{reader.address} is {distribution} {number}, not OpenSearch 2.19 or newer")
