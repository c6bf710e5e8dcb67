"""Hits to make answers from."""

from __future__ import annotations

from app.passage import Hit


def hit(
    text: str,
    document_id: str = "d",
    title: str = "",
    section_heading: str = "",
    *,
    position: int = 0,
    content_hash: str = "",
    page: int | None = None,
) -> Hit:
    return Hit(
        id=f"{document_id}-{position}",
        document_id=document_id,
        title=title,
        section_heading=section_heading,
        text=text,
        source_id="s",
        source_type="text",
        uri="",
        page=page,
        position=position,
        timestamp=None,
        topic_tags=(),
        score=1.0,
        content_hash=content_hash,
    )
