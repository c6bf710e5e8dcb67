"""Errors that the reranker raises deliberately.

    RerankerError
    ├── ConfigurationError   a setting is invalid, or needs something not installed (start-up; exit code 2)
    │   └── ModelFolderError the model's folder is missing, corrupt or of the wrong kind
    ├── InferenceError       the model failed on these texts, or its scheduler has stopped
    ├── Overloaded           no answer is possible in time: retry after `retry_after_s`
    ├── DeadlinePassed       the time ran out before all pairs were scored
    └── TextTooLong          a text does not fit, and the caller forbids truncation

Every message names the offending value and the remedy, and contains no text of a query or document.
"""

from __future__ import annotations


class RerankerError(Exception):
    """Root of the reranker's errors; `detail` is one sentence for the reader."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ConfigurationError(RerankerError):
    """A setting is not usable on this machine."""


class ModelFolderError(ConfigurationError):
    """The model's folder is unusable; the message says what was expected and what was found."""


class InferenceError(RerankerError):
    """The model failed or returned something other than finite numbers."""


class Overloaded(RerankerError):
    """The queue is full, or too long for the caller's timeout. Nothing was computed."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class DeadlinePassed(RerankerError):
    """The caller's time ran out; the remaining pairs were not computed."""


class TextTooLong(RerankerError):
    """The query or a document is longer than the model's limit, and the caller forbids truncation."""
