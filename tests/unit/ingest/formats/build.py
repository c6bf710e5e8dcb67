"""Real files, made where a test needs them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageTemplate, Paragraph

from app.errors import DocumentRejected
from app.ingest.formats import Limits, parse_file
from app.passage import Block, BlockKind, ParsedDocument

FILES = Path(__file__).resolve().parents[3] / "data" / "files"
"""Small files of all kinds."""
STYLES = getSampleStyleSheet()
WORDS = (
    "The river carries silt from the hills to the delta where farmers have grown rice since the first settlers came. "
    "Every spring the water rises above the lower fields and leaves a dark layer that feeds the young plants. "
    "Engineers measured the flow at nine stations and found that the dam upstream had changed the pattern of floods. "
)


def parse_bytes(folder: Path, name: str, data: bytes, limits: Limits | None = None) -> ParsedDocument:
    path = folder / name
    path.write_bytes(data)
    return parse_file(path, limits=limits)


def rejection(folder: Path, name: str, data: bytes, limits: Limits | None = None) -> DocumentRejected:
    """The refusal of a file that must be refused."""
    with pytest.raises(DocumentRejected) as caught:
        parse_bytes(folder, name, data, limits)
    assert str(folder) not in caught.value.detail
    return caught.value


def of_kind(document: ParsedDocument, kind: BlockKind) -> list[str]:
    return [block.text for block in document.blocks if block.kind is kind]


def block(document: ParsedDocument, beginning: str) -> Block:
    """The one block that begins with a text."""
    found = [item for item in document.blocks if item.text.startswith(beginning)]
    assert len(found) == 1, f"{beginning!r} begins {len(found)} of {[b.text[:60] for b in document.blocks]}"
    return found[0]


def canvas_pdf(
    draw: Callable[[Canvas], None], *, password: StandardEncryption | None = None, title: str | None = None
) -> bytes:
    """A PDF drawn by hand; `draw` calls `showPage` itself between pages."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, encrypt=password, invariant=1)
    if title:
        canvas.setTitle(title)
    draw(canvas)
    canvas.save()
    return out.getvalue()


def flow_pdf(story: list[Flowable], *, columns: int = 1, running_head: str = "", title: str | None = None) -> bytes:
    """A PDF laid out by reportlab, with a running head and page numbers."""
    out = io.BytesIO()
    width, height = A4
    gap, margin = 24, 60
    column = (width - 2 * margin - gap * (columns - 1)) / columns
    frames = [
        Frame(margin + i * (column + gap), margin, column, height - 2 * margin, leftPadding=0, rightPadding=0)
        for i in range(columns)
    ]

    def decorate(canvas: Canvas, document: BaseDocTemplate) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(margin, height - 40, running_head)
        canvas.drawCentredString(width / 2, 30, f"Page {document.page} of 9")

    template = BaseDocTemplate(out, pagesize=A4, title=title, invariant=1)
    template.addPageTemplates(PageTemplate(frames=frames, onPage=decorate if running_head else lambda *_: None))
    template.build(story)
    return out.getvalue()


def body(text: str) -> Paragraph:
    return Paragraph(text, STYLES["BodyText"])


def heading(text: str, level: int = 1) -> Paragraph:
    return Paragraph(text, STYLES[f"Heading{level}"])


def picture() -> ImageReader:
    """Noise in grey, as a scanner would deliver a page."""
    from PIL import Image

    return ImageReader(Image.frombytes("L", (64, 64), bytes((i * 37) % 256 for i in range(4096))))


def raw_pdf(content: bytes, *more: bytes, catalog: bytes = b"") -> bytes:
    """A PDF of one page with this content stream, packed as tight as deflate can; `more` objects are from 6."""
    packed = zlib.compress(content, 9)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R%b>>" % catalog,
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *more,
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


def zip_of(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def replace_entries(container: bytes, changed: dict[str, Callable[[bytes], bytes]]) -> bytes:
    """An Office file with some of its parts changed."""
    with zipfile.ZipFile(io.BytesIO(container)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changed.items():
        entries[name] = change(entries.get(name, b""))
    return zip_of(entries)
