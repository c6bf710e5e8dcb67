"""Messages of a conversation, in OpenAI's form, and the questions in them.

Only what users wrote is read. Earlier answers may quote passages that were revoked since, and instructions of a client
can't be told from those of a document, so neither is ever context of an answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.values import not_blank

MAX_MESSAGES = 1000
MAX_QUESTION_CHARACTERS = 4096
EARLIER_QUESTIONS = 8
"""Maximum earlier questions that a follow-up may refer to; older ones are not read."""
MAX_EARLIER_CHARACTERS = 500
"""Characters of an earlier question that are read."""


class ContentPart(BaseModel):
    """A part of a message. Only the text of parts of type `text` is read."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None


def _as_parts(content: object) -> object:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(BaseModel):
    """A message of a conversation; further fields of OpenAI's messages are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        list[ContentPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart] | None)
    ] = []

    @property
    def text(self) -> str:
        """The text of all its parts."""
        return "\n".join(part.text for part in self.content if part.type == "text" and part.text)

    @property
    def unread(self) -> list[str]:
        """Types of its parts that are not text, such as ``image_url``."""
        return list(dict.fromkeys(part.type for part in self.content if part.type != "text"))


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]


class Conversation(BaseModel):
    """A conversation whose last user message is the question."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    messages: Messages

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        place, last = self._last
        if last is None:
            roles = [message.role for message in self.messages]
            raise refusal(("messages",), "send at least one message of role user: its text is the question", roles)
        if not last.text.strip():
            told = f" (parts of type {', '.join(last.unread)} can't be read)" if last.unread else ""
            raise refusal(("messages", place, "content"), f"the last user message has no text{told}: send one", None)
        if len(last.text) > MAX_QUESTION_CHARACTERS:
            message = f"the last user message must have at most {MAX_QUESTION_CHARACTERS} characters"
            raise refusal(("messages", place, "content"), message, len(last.text))
        try:
            not_blank(last.text)
        except ValueError as error:
            raise refusal(("messages", place, "content"), str(error), last.text) from error
        return self

    @property
    def _last(self) -> tuple[int, Message | None]:
        users = [(place, message) for place, message in enumerate(self.messages) if message.role == "user"]
        return users[-1] if users else (0, None)

    @property
    def question(self) -> str:
        """The text of the last user message."""
        last = self._last[1]
        return last.text if last is not None else ""


def earlier_questions(messages: list[Message]) -> tuple[str, ...]:
    """Return the last user texts before the question, oldest first, each cut to MAX_EARLIER_CHARACTERS."""
    texts = [message.text.strip()[:MAX_EARLIER_CHARACTERS] for message in messages if message.role == "user"]
    return tuple(text for text in texts[:-1] if text)[-EARLIER_QUESTIONS:]


def unread_parts(messages: list[Message]) -> list[str]:
    """Return the types of the question's parts that are not text."""
    asked = [message for message in messages if message.role == "user"]
    return asked[-1].unread if asked else []


def refusal(place: tuple[str | int, ...], message: str, value: Any) -> ValidationError:
    """Return a problem with the field at `place`; raise it in a validator."""
    problem = PydanticCustomError("refused", "{message}", {"message": message})
    return ValidationError.from_exception_data("request", [InitErrorDetails(type=problem, loc=place, input=value)])
