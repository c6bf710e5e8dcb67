"""The documents that the page's tests ask about, put in through the public API."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import httpx2
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen.canvas import Canvas

SOURCE = "browser-tests"
FOLDER = Path(__file__).resolve().parent / "documents"
TAGS = {"lighthouse": "sea,handbook", "bridges": "engineering", "sourdough": "food", "tides": "sea"}

HOSTILE_ID = "hostile/../<b>notes</b>?#%2F"
HOSTILE_TITLE = "<img src=x onerror=\"window.pwned='title'\"><script>window.pwned='title script'</script>"
HOSTILE_TEXT = (
    "Zanzibar cloves <script>window.pwned='text'</script><img src=//evil.invalid/x.png onerror=\"window.pwned='img'\"> "
    "are dried on mats [1](javascript:alert(1)). <svg onload=window.pwned='svg'> Cloves of Zanzibar are dried for five "
    "days in the sun. </textarea><iframe src=javascript:parent.pwned='frame'></iframe> &lt;b&gt; ${7*7} {{7*7}}"
)
HOSTILE_TAG = "<b onmouseover=window.pwned=1>tag"

PDF_PAGES = (
    "Slide rules in the office. A slide rule multiplies by adding lengths: its scales are logarithmic, so that a sum "
    "of two distances stands for the product of two numbers. The rule has three parts, the body, the slide and the "
    "cursor. Body and slide carry the scales, and the cursor is a pane of glass in a metal frame. The scales C and D "
    "run from one to ten, the scales A and B run twice from one to ten over the same length and give squares and "
    "square roots. The scale K runs three times and gives cubes. A rule of ten inches shows three digits, and a rule "
    "of twenty inches shows four. Clerks keep the long one on the desk and carry the short one in the coat. Sums and "
    "differences are not its business: they are done on paper or with the abacus.",
    "Reading the cursor. The hairline of the cursor carries a value from one scale to another. A good reader "
    "estimates the third digit between two marks of the scale, and the fourth digit is always a guess. The place of "
    "the decimal point is not on the rule: it is found by a rough sum in the head before the slide is moved. Where the "
    "result falls off the end of the scale, the other index of the slide is set instead. A chain of factors is done "
    "without reading what comes in between, since each reading costs a little of the third digit. The eye stays "
    "straight above the hairline, for a slanted look shifts the value by half a mark. Two readers who check one "
    "another agree within a part in five hundred on a good rule.",
    "Looking after the rule. Boxwood swells in damp air and the slide sticks. Talcum powder frees the slide; oil ruins "
    "the scales and must never be used on a slide rule. The rule lives in its leather case, away from the stove and "
    "from the window sill. A yellowed celluloid face is cleaned with a soft rubber and never with spirit, which takes "
    "the ink from the marks. The screws of the cursor frame are tightened once a year with a watchmaker's screwdriver. "
    "A loose cursor leans, and its hairline lies. A rule whose scales no longer meet at both ends has warped, and no "
    "remedy is known for that: it is given to the apprentices, who learn on it what a bad reading costs.",
)


@dataclass(frozen=True)
class Library:
    """Where the documents are, and how many there are."""

    url: str
    documents: int


def put_in(url: str, headers: dict[str, str] | None = None) -> Library:
    """Ingest all documents into the service at `url`; they are searchable when this returns."""
    count = 0
    with httpx2.Client(base_url=url, timeout=120, headers=headers, trust_env=False) as client:
        for path in sorted(FOLDER.glob("*.md")):
            _upload(client, path.name, path.read_bytes(), "text/markdown", TAGS[path.stem])
            count += 1
        _upload(client, "slide-rules.pdf", _pdf(), "application/pdf", "tools")
        hostile = {
            "document_id": HOSTILE_ID,
            "title": HOSTILE_TITLE,
            "text": HOSTILE_TEXT,
            "source_id": SOURCE,
            "uri": "javascript:window.pwned='uri'",
            "timestamp": "2019-03-01",
            "topic_tags": [HOSTILE_TAG],
        }
        client.post("/v1/documents", json=hostile).raise_for_status()
    return Library(url, count + 2)


def _upload(client: httpx2.Client, name: str, content: bytes, kind: str, tags: str) -> None:
    fields = {"document_id": f"browser/{name}", "source_id": SOURCE, "topic_tags": tags}
    client.post("/v1/documents", files={"file": (name, content, kind)}, data=fields).raise_for_status()


def _pdf() -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A5, invariant=True)
    canvas.setTitle("Slide rules in the office")
    for page in PDF_PAGES:
        text = canvas.beginText(40, 540)
        line = ""
        for word in page.split():
            if len(line) + len(word) > 60:
                text.textLine(line)
                line = ""
            line = f"{line} {word}".strip()
        text.textLine(line)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()
