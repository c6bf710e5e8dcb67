"""Reasons of degraded answers: the one list, from which the table of ``docs/failures.md`` is generated.

An item of `degraded` names a stage and says ``reason: detail``. The reason is stable; the detail is text for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


@dataclass(frozen=True, slots=True)
class Degradation:
    """A stage that was skipped or incomplete, and the reason (a short stable text without internals)."""

    stage: str
    reason: str


class Reason(StrEnum):
    """The stable first word of a reason: value, meaning, remedy.

    `cacheable`: the cause is the request or the settings, so that the same request has the same outcome again.
    """

    meaning: str
    remedy: str
    cacheable: bool

    def __new__(cls, value: str, meaning: str, remedy: str, cacheable: bool = False) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.remedy, member.cacheable = meaning, remedy, cacheable
        return member

    BAD_ANSWER = "bad-answer", "the language model's server sent something unusable", "check BRAID_LLM_URL"
    BROKEN_OFF = "broken-off", "the language model's answer broke off", "ask again; see its server's log"
    CHANGING = "changing", "passages were deleted while they were read, each time", "ask again after the ingest"
    CONTEXT_CUT = (
        "context-cut",
        "not all passages fitted the prompt",
        "raise BRAID_LLM_CONTEXT_TOKENS, or ask for fewer passages",
    )
    DEADLINE = "deadline", "too little time was left for the stage, or for all of it", "ask with a larger `timeout_ms`"
    DEADLINE_EXCEEDED = "deadline-exceeded", "the stage used up its time", "ask with a larger `timeout_ms`"
    DROPPED = "dropped", "marks of the answer named no passage and were removed", "check the answer against the results"
    EMPTY = "empty", "the language model said nothing", "ask again; try another model"
    ENCODER_ERROR = "encoder-error", "the embedding model failed in the reranker", "see the service's log"
    ENCODER_FAILED = "encoder-failed", "the embedding model failed", "see the service's log"
    NO_MODEL = (
        "no-model",
        "no weight model fits the embedding model and normalisation",
        "`braid tune` makes one; or leave `learned` out",
        True,
    )
    NO_THRESHOLD = (
        "no-threshold",
        "the reranker's scores are no probabilities",
        "leave `threshold` out, or use a cross-encoder",
        True,
    )
    NO_WORDS = "no-words", "the query has no word that passages are matched by", "ask with more words", True
    NONE = "none", "the language model cited no passage", "check the answer against the results"
    NOT_CONFIGURED = "not-configured", "no reranker is set up", "set BRAID_RERANKER, or leave `rerank` out", True
    OVERLOADED = "overloaded", "a bounded queue is full", "ask again later"
    PARTIAL = "partial", "some shards failed", "see the cluster's health"
    QUERY_CUT = (
        "query-cut",
        "the query has more words than OpenSearch takes, and only the longest of them were matched",
        "ask with fewer words",
        True,
    )
    REFUSED = "refused", "the language model's server answered with an error", "check its key, model and log"
    RERANKER_ERROR = "reranker-error", "the reranker failed", "see the reranker's log"
    RERANKER_UNAVAILABLE = "reranker-unavailable", "the reranker's server can't be reached", "check BRAID_RERANKER_URL"
    STORE_ERROR = "store-error", "OpenSearch answered with a failure", "see the node's log"
    STORE_NOT_READY = "store-not-ready", "the cluster differs from this service", "`braid templates diff`"
    STORE_UNAVAILABLE = "store-unavailable", "OpenSearch can't be reached", "check BRAID_OPENSEARCH_URL"
    SWITCHED_OFF = "switched-off", "a feature flag is off", "switch the flag on (docs/flags.md)", True
    TIMEOUT = "timeout", "OpenSearch, or the language model, did not finish in time", "ask with a larger `timeout_ms`"
    TOO_LONG = (
        "too-long",
        "the language model wrote far more than it was asked for",
        "check BRAID_LLM_MODEL and its server",
    )
    UNAVAILABLE = "unavailable", "the language model was away a moment ago", "ask again in a few seconds"
    UNCALIBRATED = (
        "uncalibrated",
        "the embedding model has no calibration: no question is refused, no answer to other words is reused",
        "`braid calibrate` makes one (docs/calibration.md)",
        True,
    )
    UNCHECKED = "unchecked", "the cluster did not say in time whether it is as it was", "see the cluster's health"
    UNREAD = "unread", "parts of the question are not text", "ask in words"
    UNREACHABLE = "unreachable", "the language model can't be reached", "check BRAID_LLM_URL"

    @classmethod
    def of(cls, kind: str) -> Self:
        """Return the reason for an error of this kind."""
        return cls[kind.upper().replace("-", "_")]

    def with_detail(self, detail: str) -> str:
        """Return the reason with a detail, as in answers."""
        return f"{self.value}: {detail}"


def reasons_table() -> str:
    """Return the table of ``docs/failures.md`` in Markdown."""
    rows = ["| reason | meaning | remedy | kept in the cache |", "|---|---|---|---|"]
    rows += [
        f"| `{item.value}` | {item.meaning} | {item.remedy} | {'yes' if item.cacheable else 'no'} |" for item in Reason
    ]
    return "\n".join(rows) + "\n"
