"""Mail reader: .eml by the standard library, Outlook's .msg by python-oxmsg. Attachments are sections of the mail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from itertools import groupby
from pathlib import Path

from app.errors import DocumentRejected
from app.ingest.formats.archive import DAMAGE
from app.ingest.formats.clean import clean, title_from_name
from app.ingest.formats.detect import detect
from app.ingest.formats.html import extract, read_html
from app.ingest.formats.limits import Limits
from app.ingest.formats.plaintext import decode
from app.ingest.formats.table import of_media_type
from app.passage import Block, BlockKind, ParsedDocument, SourceType

_SHOWN = ("From", "To", "Cc", "Date")
_MOST_PARTS = 100
_LONGEST_NAME = 200
_DEEPEST = 3
"""Mails in mails in mails; a mail that contains itself ends there, too."""
_QUOTES = re.compile(
    r"(?im)^(?:-{2,} ?(?:original message|forwarded message|ursprüngliche nachricht|weitergeleitete nachricht|"
    r"message d'origine|mensaje original) ?-{2,}|_{20,})[ \t]*$"
)
EARLIER = "Earlier message"
_CODEC = re.compile(r"[\w.:-]{1,40}")


@dataclass(slots=True)
class _Mail:
    """A mail, whatever file it came from. `attachments`: name, media type and content of each."""

    headers: dict[str, str]
    date: datetime | None = None
    plain: list[str] = field(default_factory=list)
    html: list[str] = field(default_factory=list)
    attachments: list[tuple[str, str, bytes]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def parse(data: bytes, name: str, limits: Limits, depth: int = 1) -> ParsedDocument:
    """Parse headers, text (plain if there is any, else HTML) and attachments, those of mails in the mail as well.

    Raises:
        DocumentRejected: ``broken``, ``unsupported-type`` (binary data).
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = decode(data).encode()
    try:
        mail = _from_message(message_from_bytes(data))
    except (*DAMAGE, AssertionError) as error:
        raise DocumentRejected(f"the mail is damaged ({type(error).__name__})", reason="broken") from error
    if not any(mail.headers.values()) and mail.date is None:
        raise DocumentRejected("it has no header of a mail: the file is damaged, or no mail", reason="broken")
    return _document(mail, name, limits, depth)


def parse_msg(data: bytes, name: str, limits: Limits, depth: int = 1) -> ParsedDocument:
    """Parse Outlook's mail as `parse` does.

    Raises:
        DocumentRejected: ``broken``, ``unsupported-type``: python-oxmsg is not installed.
    """
    from oxmsg import Message as OutlookMessage

    try:
        found = OutlookMessage.load(data)
        headers = {name: found.message_headers.get(name, "") for name in _SHOWN}
        headers |= {"Subject": found.subject or "", "From": found.sender or headers["From"]}
        if not headers["To"]:
            headers["To"] = ", ".join(
                filter(None, (person.name or person.email_address for person in found.recipients))
            )
        mail = _Mail({key: clean(value) for key, value in headers.items()}, found.sent_date)
        mail.plain, mail.html = [found.body or ""], [found.html_body or ""]
        if found.attachment_count > _MOST_PARTS:
            mail.warnings.append(f"only the first {_MOST_PARTS} attachments are read")
        for item in found.attachments[:_MOST_PARTS]:
            mail.attachments.append((item.file_name or "", item.mime_type or "", item.file_bytes or b""))
    except (*DAMAGE, AssertionError, OSError, EOFError) as error:
        raise DocumentRejected(f"the mail is damaged ({type(error).__name__})", reason="broken") from error
    return _document(mail, name, limits, depth)


def _from_message(message: Message) -> _Mail:
    mail = _Mail({name: _header(message, name) for name in ("Subject", *_SHOWN)})
    try:
        mail.date = parsedate_to_datetime(mail.headers["Date"])
    except (ValueError, TypeError, OverflowError):
        mail.date = None
    for count, part in enumerate(_leaves(message)):
        if count == _MOST_PARTS:
            mail.warnings.append(f"only the first {_MOST_PARTS} parts are read")
            break
        kind, name = part.get_content_type(), clean(str(part.get_filename() or ""))
        if kind == "message/rfc822":
            inner = part.get_payload()
            content = inner[0].as_bytes() if isinstance(inner, list) and isinstance(inner[0], Message) else b""
            mail.attachments.append((name or "message.eml", kind, content))
            continue
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        if name or part.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
            mail.attachments.append((name, kind, content))
        elif content.strip():
            (mail.html if kind == "text/html" else mail.plain).append(_text(content, part.get_content_charset()))
    return mail


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts with content; those of a mail in the mail belong to that one."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            waiting += reversed([inner for inner in payload if isinstance(inner, Message)])
        else:
            yield part


def _header(message: Message, name: str) -> str:
    value = message.get(name)
    try:
        return clean(str(make_header(decode_header(value)))) if value is not None else ""
    except (LookupError, ValueError):
        return clean(str(value))


def _text(content: bytes, charset: str | None) -> str:
    if charset and _CODEC.fullmatch(charset):
        try:
            return content.decode(charset)
        except (LookupError, ValueError):
            pass
    return decode(content)


def _document(mail: _Mail, name: str, limits: Limits, depth: int) -> ParsedDocument:
    blocks = [Block(BlockKind.PARAGRAPH, f"{key}: {mail.headers[key]}") for key in _SHOWN if mail.headers.get(key)]
    plain = "\n".join(mail.plain)
    blocks += _plain(plain) if plain.strip() else [block for page in mail.html for block in _page(page)]
    for number, (given, media_type, content) in enumerate(mail.attachments[:_MOST_PARTS], 1):
        blocks += _attached(given, media_type, content, number, limits, depth, mail.warnings)
    return ParsedDocument(
        title=mail.headers.get("Subject") or title_from_name(name),
        blocks=tuple(blocks),
        source_type=SourceType.MAIL,
        timestamp=mail.date.replace(tzinfo=mail.date.tzinfo or UTC) if mail.date else None,
        warnings=tuple(mail.warnings),
    )


def _plain(text: str) -> Iterator[Block]:
    """Yield paragraphs; quoted ones keep their ">", and what follows "Original Message" is a section of its own."""
    for number, part in enumerate(_QUOTES.split(text)):
        if number and part.strip():
            yield Block(BlockKind.HEADING, EARLIER, level=2)
        for paragraph in re.split(r"\n\s*\n", part.replace("\r\n", "\n")):
            for quoted, lines in groupby(paragraph.split("\n"), key=lambda line: line.startswith(">")):
                if text := clean(" ".join(line.lstrip("> ") if quoted else line for line in lines)):
                    yield Block(BlockKind.PARAGRAPH, f"> {text}" if quoted else text)


def _page(text: str) -> Iterator[Block]:
    if not text.strip():
        return
    root = read_html(text)
    for quote in root.xpath("(.//blockquote | .//div[contains(@class, 'gmail_quote') or @id='appendonsend'])[1]"):
        heading = quote.makeelement("h2")
        heading.text = EARLIER
        quote.addprevious(heading)
    yield from extract(root)


def _attached(
    given: str, media_type: str, content: bytes, number: int, limits: Limits, depth: int, warnings: list[str]
) -> Iterator[Block]:
    format = of_media_type(media_type)
    name = clean(given)[:_LONGEST_NAME] or f"attachment {number}"
    if format and not Path(name).suffix:
        name += format.suffixes[0]
    if depth >= _DEEPEST:
        warnings.append(f"attachment {name!r} left out: in a mail in a mail in a mail")
        return
    try:
        found = detect(content, name)
        if found.reader.startswith(__name__):
            inner = (parse_msg if content[:1] == b"\xd0" else parse)(content, name, limits, depth + 1)
        else:
            inner = found.load_reader()(content, Path(name).stem, limits)
    except DocumentRejected as error:
        warnings.append(f"attachment {name!r} left out: {error.detail}")
        return
    yield Block(BlockKind.HEADING, f"Attachment: {name}", level=1)
    for block in inner.blocks:
        heading = block.kind is BlockKind.HEADING
        yield replace(block, page=None, level=min(6, block.level + 1) if heading else 0)
    warnings += (f"attachment {name!r}: {warning}" for warning in inner.warnings)
