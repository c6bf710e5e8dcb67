"""The exception tree of Braid, and its mapping to HTTP problem documents.

    BraidError
    ├── ConfigurationError        a setting is invalid or missing (start-up; exit code 2)
    ├── InvalidInput              the request's content is invalid               422
    │   └── MalformedRequest      not JSON, not an object, wrong encoding       400
    ├── NotFound                  the named thing does not exist                404
    ├── NotAuthenticated          a key is required and none, or a wrong one    401
    ├── Forbidden                 the key or token has not the role for it      403
    ├── SigningKeysUnavailable    the tokens' keys can't be fetched             503
    ├── RequestTooSlow            the request did not arrive in time            408
    ├── PayloadTooLarge           body over the limit                           413
    ├── UnsupportedMedia          an unsupported content type or file type      415
    ├── DocumentRejected          a file or document can't be ingested          422
    ├── CapabilityError           the cluster lacks a feature of the request    501
    ├── FeatureDisabled           a setting or flag disables the feature        501
    ├── StoreError                OpenSearch answered with a failure            502
    │   ├── StoreUnavailable      OpenSearch can't be reached                   503
    │   │   └── OutcomeUnknown    a write may or may not have taken effect      503
    │   └── StoreNotReady         templates/pipelines/model differ from ours    503
    │       └── StoreReadOnly     an older Braid made the index: no writes      503
    ├── WriteConflict             another write of the document interfered      409
    ├── EncoderError              the embedding model failed                    503
    │   └── EncoderUnavailable    its server can't be reached, or is too slow   503
    ├── IngestInterrupted         the process that stored a document ended      503
    ├── RerankerError             the reranker failed                           503
    │   └── RerankerUnavailable   its server can't be reached                   503
    ├── CallerLeft                the caller closed its connection              499
    ├── Overloaded                a bounded queue is full: retry later          429
    │   └── RateLimited           the caller or tenant exceeded its rate        429
    ├── GenerationError           the language model failed or is unavailable   502
    ├── DeadlineExceeded          the time budget ran out                       504
    └── ProvisioningError         the embedded node, Redis server or a model can't be set up (command line)

Every message names the offending value and the remedy; it reaches callers, so it never contains passage text,
credentials or file-system paths of the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One problem of the input: its place (`loc`, e.g. ``("body", "fusion", "alpha")``) and its description (`msg`)."""

    loc: tuple[str | int, ...]
    msg: str


class BraidError(Exception):
    """Root of all errors that Braid raises deliberately."""

    status = 500
    title = "Internal error"
    kind = "internal-error"

    def __init__(self, detail: str, *, problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[Any, ...]:
        # between processes, an exception would lose the keyword arguments of its class
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[BraidError], args: tuple[Any, ...], state: dict[str, Any]) -> BraidError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(BraidError):
    title = "Configuration error"
    kind = "configuration-error"


class InvalidInput(BraidError):
    status = 422
    title = "Invalid input"
    kind = "invalid-input"


class MalformedRequest(InvalidInput):
    status = 400
    title = "Malformed request"
    kind = "malformed-request"


class NotFound(BraidError):
    status = 404
    title = "Not found"
    kind = "not-found"


class NotAuthenticated(BraidError):
    status = 401
    title = "Not authenticated"
    kind = "not-authenticated"


class Forbidden(BraidError):
    status = 403
    title = "Not allowed"
    kind = "forbidden"


class SigningKeysUnavailable(BraidError):
    """The identity provider can't be asked for the key of a token, so that the token is neither
    accepted nor rejected.
    """

    status = 503
    title = "Tokens can't be checked"
    kind = "signing-keys-unavailable"


class RequestTooSlow(BraidError):
    """The rest of a request's body did not arrive in time."""

    status = 408
    title = "The request came too slowly"
    kind = "request-timeout"


class PayloadTooLarge(BraidError):
    status = 413
    title = "Payload too large"
    kind = "payload-too-large"


class UnsupportedMedia(BraidError):
    status = 415
    title = "Unsupported media type"
    kind = "unsupported-media-type"


class DocumentRejected(BraidError):
    """A single file or document can't be ingested; the others continue. `reason` is a stable code for programs."""

    status = 422
    title = "Document rejected"
    kind = "document-rejected"

    def __init__(self, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason


class CapabilityError(BraidError):
    """The cluster lacks a feature: the message has the feature, the version found, the version needed, the remedy."""

    status = 501
    title = "Not supported by this cluster"
    kind = "capability-missing"


class FeatureDisabled(BraidError):
    """The requested feature is disabled; the message names the setting or flag."""

    status = 501
    title = "Switched off in this service"
    kind = "switched-off"


class StoreError(BraidError):
    status = 502
    title = "OpenSearch failed"
    kind = "store-error"


class StoreUnavailable(StoreError):
    status = 503
    title = "OpenSearch is unavailable"
    kind = "store-unavailable"


class OutcomeUnknown(StoreUnavailable):
    """A write was not acknowledged and can't be looked up: it may have taken effect. Repeating the call is safe."""

    title = "The outcome of the write is unknown"
    kind = "outcome-unknown"


class WriteConflict(BraidError):
    """Another writer changed the document or its readers at the same time; this write had no effect."""

    status = 409
    title = "Overtaken by another write"
    kind = "overtaken"


class StoreNotReady(StoreError):
    """The cluster's templates, pipelines, vector dimension or embedding model do not match this service."""

    status = 503
    title = "The store is not ready"
    kind = "store-not-ready"


class StoreReadOnly(StoreNotReady):
    """An index was created by an older Braid: it is searched, but not written."""

    title = "The index is read-only"
    kind = "read-only-index"


class EncoderError(BraidError):
    status = 503
    title = "The embedding model failed"
    kind = "encoder-error"


class EncoderUnavailable(EncoderError):
    """The embedding server can't be reached, does not answer in time, or is busy."""

    title = "The embedding server is unavailable"
    kind = "encoder-unavailable"


class IngestInterrupted(BraidError):
    """The ingest process ended in the middle of a document; the request may be repeated."""

    status = 503
    title = "Ingesting was interrupted"
    kind = "ingest-interrupted"


class RerankerError(BraidError):
    """The reranker failed; `kind` is the reason in an answer's `degraded`."""

    status = 503
    title = "The reranker failed"
    kind = "reranker-error"


class RerankerUnavailable(RerankerError):
    """The reranker's server can't be reached, or does not answer in time."""

    title = "The reranker is unavailable"
    kind = "reranker-unavailable"


class Overloaded(BraidError):
    """A bounded queue is full; the same request may succeed after `retry_after_s`."""

    status = 429
    title = "Too many requests"
    kind = "overloaded"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RateLimited(Overloaded):
    """The limit of the caller or the tenant is exhausted for now."""

    kind = "rate-limited"


class CallerLeft(BraidError):
    status = 499  # nginx's own; nobody receives it, the logs show it
    title = "The caller left"
    kind = "caller-left"


class GenerationError(BraidError):
    """The language model failed; `reason` is a short stable code, such as ``timeout`` (all in `generation.llm`)."""

    status = 502
    title = "The language model failed"
    kind = "generation-error"

    def __init__(self, detail: str, *, reason: str = "failed") -> None:
        super().__init__(detail)
        self.reason = reason


class DeadlineExceeded(BraidError):
    status = 504
    title = "The time budget ran out"
    kind = "deadline-exceeded"


class ProvisioningError(BraidError):
    """A part of `braid up` can't be set up on this machine; the message has the remedy."""

    title = "Set-up failed"
    kind = "provisioning-error"
