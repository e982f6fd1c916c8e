"""HTML as it is met: block structure, hidden parts, page frames, encodings, hostile nesting."""

import time

import pytest

from engine.documents.limits import ParseLimits
from engine.documents.parse import parse_document
from engine.errors import DamagedDocument, DocumentTooLarge

DOCTYPE = b"<!DOCTYPE html>"


def text_of(body: str | bytes, **options) -> str:
    data = body if isinstance(body, bytes) else DOCTYPE + body.encode()
    document = parse_document("page.html", data, **options)
    assert document.media_type == "text/html" and len(document.pages) == 1
    return document.pages[0].text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<div>Home</div><div>Head</div>", "Home\nHead"),
        ("<p>A <b>bold</b> <i>word</i>, half<b>bold</b>.</p>", "A bold word, halfbold."),
        ("<h1>Head</h1>\n\n\n<p>One\n   line.</p><p>Two</p>", "Head\n\nOne line.\n\nTwo"),
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("<ul><li>one<li><p>two</p></ul>end", "- one\n- two\n\nend"),
        ("<table><tr><th>Wood<th>Age<tr><td>oak<td><p>40</p></table>", "Wood\tAge\noak\t40"),
        ("<p>The capital of <b>Zed is Qux<td>oops<table>", "The capital of Zed is Qux oops"),
        ("<span>one</div>two</li>three</span>", "one two three"),
        ("<table><tr><td>a<td>b<tr><td><td>c</table>", "a\tb\n\tc"),
        ("<pre>x = 1\n\ny = 2</pre>", "x = 1\n\ny = 2"),
        ("a&amp;b &lt;tag&gt; caf&eacute;", "a&b <tag> café"),
        ("a&nbsp;&nbsp;b\u200bc", "a bc"),
    ],
)
def test_layout_of_text(body, expected):
    assert text_of(body) == expected


@pytest.mark.parametrize("tag", ["script", "style", "noscript", "template", "iframe", "textarea"])
def test_text_that_is_not_shown_is_left_out(tag):
    assert text_of(f"<p>before</p><{tag}>secret</{tag}><p>after</p>") == "before\n\nafter"


def test_hidden_elements_and_pictures_of_text_are_left_out():
    body = "<p hidden>no</p><p aria-hidden=true>no</p><svg><text>no</text></svg><!-- no --><p>yes</p>"
    assert text_of(body) == "yes"


def test_frame_of_the_page_is_dropped_when_enough_text_remains():
    article = "<p>" + "The larch sheds its needles. " * 20 + "</p>"
    frame = "<nav>Home About</nav><header>Banner</header>{}<aside>Ads</aside><footer>Imprint</footer>"
    assert "Home" not in text_of(frame.format(article)) and "Imprint" not in text_of(frame.format(article))
    assert "Imprint" in text_of("<footer>Imprint: Larch Lane 4</footer>")


def test_main_part_is_preferred_when_it_holds_the_text():
    long = "The larch sheds its needles. " * 20
    body = f"<div>Sidebar of links</div><main><header><h1>Larch</h1></header><p>{long}</p></main>"
    assert text_of(body).startswith("Larch\n\nThe larch") and "Sidebar" not in text_of(body)
    assert "needles" in text_of(f"<p>{long}</p><main>Loading</main>")


@pytest.mark.parametrize(
    "data",
    [
        "\ufeff<html>Grün".encode(),
        "<html>Grün".encode("utf-16"),
        b'<html><meta charset="iso-8859-1">Gr\xfcn',
        b'<html><meta http-equiv=Content-Type content="text/html; charset=windows-1252">Gr\xfcn',
        b"<html>Gr\xfcn",
        '<?xml version="1.0" encoding="utf-8"?><html>Grün'.encode(),
        b'<html><meta charset="no-such-charset">Gr\xc3\xbcn',
        b'<html><meta charset="utf-8">Gr\xfcn',
    ],
)
def test_encoding_is_recognised(data):
    assert text_of(data) == "Grün"


def test_page_without_text_is_damaged():
    with pytest.raises(DamagedDocument, match="scripts"):
        text_of("<script>render()</script><div id=app></div>")


@pytest.mark.parametrize(
    "body",
    [
        "<div>" * 20_000 + "deep",
        "<b><i>" * 20_000 + "deep",
        "<div>" * 100_000,
        "<p " + " ".join(f"a{n}" for n in range(100_000)) + ">x",
        "<p " + "/".join(f"a{n}=1" for n in range(100_000)) + ">x",
    ],
)
def test_quadratic_input_is_refused_at_once(body):
    started = time.monotonic()
    with pytest.raises(DocumentTooLarge):
        text_of(body)
    assert time.monotonic() - started < 3


def test_nesting_within_the_limit_is_read_without_recursion():
    assert text_of("<div>" * 3900 + "deep") == "deep"


def test_unclosed_paragraphs_and_items_are_not_nesting():
    assert text_of("<ul>" + "<li>item" * 10_000).count("item") == 10_000


def test_quoted_attributes_may_hold_tags():
    assert text_of('<p title="<div> > it\'s">x</p>' * 3) == "x\n\nx\n\nx"


def test_html_has_its_own_size_limit():
    with pytest.raises(DocumentTooLarge, match="limit"):
        text_of("<p>word</p>" * 1000, limits=ParseLimits(max_html_bytes=5000))
