"""What titles and addresses of documents may do in a list of sources: nothing."""

from __future__ import annotations

from typing import Any

import pytest

from app.api.chat_rendering import ChatRenderer


def body(title: str, uri: str = "") -> dict[str, Any]:
    citation = {"marker": 1, "id": "p", "document_id": "d", "quote": "q", "page": None}
    return {
        "query_id": "q",
        "query_used": None,
        "query_completed_by": None,
        "answer": "So it is [1].",
        "citations": [citation],
        "results": [{"document_id": "d", "title": title, "uri": uri}],
        "usage": None,
        "model": "extractive",
        "abstained": False,
        "degraded": [],
        "cache": "off",
        "timings": {},
    }


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Plain v1.2: a title, part 3", "Plain v1.2: a title, part 3"),
        ("![x](http://evil.test)", r"\!\[x\]\(http\://evil.test\)"),
        ("https://evil.test WWW.evil.test", r"https\://evil.test WWW\.evil.test"),
        ("a@evil.test &lt;b&gt;", r"a\@evil.test \&lt;b\&gt;"),
        ("one\n\n# two\u2028- three", r"one \# two \- three"),
        ("<img src=x>", r"\<img src=x\>"),
    ],
)
def test_a_title_is_text(title: str, shown: str) -> None:
    message = ChatRenderer("braid", "http://here/", True).whole(body(title)).choices[0].message
    assert message.content == f"So it is [1].\n\nSources:\n\n- \\[1\\] {shown}"


def test_an_address_ends_where_it_should() -> None:
    uri = "https://a.test/x y(z)>](http://evil.test)?q=<b>"
    message = ChatRenderer("braid", "http://here/", True).whole(body("t", uri)).choices[0].message
    address = message.annotations[0].url_citation.url
    assert message.content.endswith(f"](<{address}>)")
    assert not set(address) & set("<>() []")
