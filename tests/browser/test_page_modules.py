"""The page's modules on their own, in the browser that runs them."""

from __future__ import annotations

import pytest

from .page import Page


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\\n", "\\r\\n", "\\r"])
def test_event_stream_in_any_pieces(page: Page, cut: int, end: str) -> None:
    found = page.module(
        f"""
        const {{ readEvents }} = await import('/static/sse.js');
        const text = [': comment', 'event: token', 'data: {{"text":"é€𝄞"}}', '', 'data:two', 'data: lines', 'id: 7', '',
                      'event: empty', '', 'event: last', 'data', '', 'event: cut off', 'data: never', 'more']
                     .join('{end}');
        const bytes = new TextEncoder().encode(text);
        const body = new ReadableStream({{ start(c) {{
          for (let i = 0; i < bytes.length; i += {cut}) c.enqueue(bytes.slice(i, i + {cut}));
          c.close();
        }} }});
        const events = [];
        for await (const event of readEvents(body)) events.push([event.event, event.data]);
        return events;
        """
    )
    assert found == [["token", '{"text":"é€𝄞"}'], ["message", "two\nlines"], ["last", ""]]


@pytest.mark.parametrize(
    ("text", "quote", "found"),
    [
        ("One two. Three four.", "Three four.", "Three four."),
        ("One  two\nthree.", "one two three", "One  two\nthree"),
        ("The “old” man—here", 'the "old" man-here', "The “old” man—here"),
        ("İstanbul is big", "is big", "is big"),
        ("soft\u00adware runs", "software", "soft\u00adware"),
        ("𝄞 music here", "music", "music"),
        ("text", "absent", None),
        ("text", " ", None),
        ("some (a+b)* text", "(a+b)*", "(a+b)*"),
    ],
)
def test_quotes_are_found_whatever_their_typography(page: Page, text: str, quote: str, found: str | None) -> None:
    got = page.module(
        "const { findQuote } = await import('/static/highlight.js');"
        f"const text = {text!r}; const at = findQuote(text, {quote!r}); return at === null ? null : text.slice(...at);"
    )
    assert got == found


def test_answer_text_formats(page: Page) -> None:
    text = (
        "First [1][2, 3] and [9].\n\n- a **bold** [1]\n- b `x<y`\n\n"
        "3. three\n4. four\n\n```\n[1] <b>\n```\n# Head [x]\n1984 [see"
    )
    got = page.module(
        "const { answerNodes } = await import('/static/answertext.js'); const { h } = await import('/static/dom.js');"
        f"const nodes = answerNodes({text!r}, n => n < 4 ? h('button', {{}}, String(n)) : null);"
        "return nodes.map(n => n.outerHTML)"
    )
    assert got == [
        '<p><span class="tie">First <button>1</button></span><span class="tie"><button>2</button></span>'
        '<button>3</button> <span class="tie">and [9]</span>.</p>',
        '<ul><li>a <strong>bold</strong> <span class="tie"><button>1</button></span></li>'
        "<li>b <code>x&lt;y</code></li></ul>",
        '<ol start="3"><li>three</li><li>four</li></ol>',
        "<pre><code>[1] &lt;b&gt;</code></pre>",
        "<p><strong>Head [x]</strong></p>",
        "<p>1984 [see</p>",
    ]


def test_addresses_survive_any_document_id(page: Page) -> None:
    for document_id in ("a/b c", "../x", "ä?#%&=+", "https://example.org/a//b"):
        got = page.module(
            "const { parse, documentHash } = await import('/static/router.js');"
            f"return parse(documentHash({document_id!r}, 'p/1'));"
        )
        assert got == {"view": "document", "documentId": document_id, "passageId": "p/1"}
