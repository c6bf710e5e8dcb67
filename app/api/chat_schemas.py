"""Request and answers of ``POST /v1/chat/completions``: OpenAI's fields, and Braid's own beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from app.api.schemas import CitationItem, DegradedItem
from app.search.request import AnswerRequest

MODEL = "braid"
"""Name of the model that answers from the documents."""
_OF_OPENAI = {"messages", "stream"}
_OWN = {field.alias or name for name, field in AnswerRequest.model_fields.items()} - _OF_OPENAI


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    include_usage: StrictBool = False


class ChatRequest(BaseModel):
    """Parameters of OpenAI's that change how a model writes (`temperature`, `tools` and so on) are ignored.

    `braid` has the fields of ``POST /v1/answer`` beside the question, such as `filter`, and `sources`: with `list`, the
    text ends with a Markdown list of what it cites, for front ends that show neither citations nor annotations.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    messages: list[Any]
    model: str = MODEL
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    response_format: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    braid: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_misplaced_field(cls, body: Any) -> Any:
        # ignored like other unknown fields, a filter would silently widen the search
        misplaced = sorted(_OWN & body.keys()) if isinstance(body, dict) else []
        if misplaced:
            name = misplaced[0]
            raise ValueError(f"{name} is not OpenAI's: send it as a field of the object `braid`")
        return body

    @field_validator("n")
    @classmethod
    def _is_one(cls, n: int | None) -> int | None:
        if n not in (None, 1):
            raise ValueError("a question has one answer here: send 1, or omit it")
        return n

    @field_validator("response_format")
    @classmethod
    def _is_text(cls, wanted: dict[str, Any] | None) -> dict[str, Any] | None:
        if (wanted or {}).get("type", "text") != "text":
            raise ValueError("answers are text: omit it")
        return wanted

    @field_validator("tool_choice")
    @classmethod
    def _needs_no_tool(cls, choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if choice not in (None, "none", "auto"):
            raise ValueError("answers come from documents, not from tools: send 'none' or 'auto', or omit it")
        return choice


class UrlCitation(BaseModel):
    """Place of a mark ``[n]`` in the text, in characters, and its source."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class ChatCitation(CitationItem):
    """A citation of the answer, and its document."""

    title: str
    url: str


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]


class ChatChoice(BaseModel):
    index: Literal[0] = 0
    message: ChatMessage
    logprobs: None = None
    finish_reason: Literal["stop"] = "stop"


class ChatUsage(BaseModel):
    """The model's count; zeros where no model wrote the answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ChatDetails(BaseModel):
    """Details of an answer beyond its text and citations, as in ``POST /v1/answer``."""

    query_id: str
    answered_by: str
    """The language model, or ``extractive`` where the answer is quoted."""
    abstained: bool
    degraded: list[DegradedItem]
    cache: str
    query_used: str | None
    query_completed_by: str | None
    timings: dict[str, float]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix seconds."""
    model: str
    choices: Annotated[list[ChatChoice], Field(min_length=1, max_length=1)]
    usage: ChatUsage
    citations: list[ChatCitation]
    braid: ChatDetails
