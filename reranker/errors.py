"""What the reranker raises on purpose.

    RerankerError
    ├── ConfigurationError   a setting is wrong, or what it asks for is not installed (start-up; exit code 2)
    │   └── ModelFolderError the model's folder is missing, corrupt or of the wrong kind
    ├── InferenceError       the model failed on these texts, or its scheduler has ended
    ├── Overloaded           the answer could not come in time: ask again after `retry_after_s`
    ├── DeadlinePassed       the time was up before all pairs were scored
    └── TextTooLong          a text does not fit, and the caller wants none cut

Every message names the offending value and the remedy, and carries no text of a query or document.
"""

from __future__ import annotations


class RerankerError(Exception):
    """Root of the reranker's errors; `detail` is one sentence for whoever reads it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ConfigurationError(RerankerError):
    """A setting can't be followed on this machine."""


class ModelFolderError(ConfigurationError):
    """The model's folder can't be used: says what was expected and what was found."""


class InferenceError(RerankerError):
    """The model failed, or gave something other than finite numbers."""


class Overloaded(RerankerError):
    """The queue is full, or too long for the caller's patience. Nothing was computed."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class DeadlinePassed(RerankerError):
    """The caller's time was up; what was left was not computed."""


class TextTooLong(RerankerError):
    """The query or a document is longer than the model takes, and the caller asked for no truncation."""
