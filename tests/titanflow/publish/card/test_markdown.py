import pytest
from markdown_it import MarkdownIt

from titanflow.publish.card.markdown import code, fence, plain

NASTY = [
    "<script>alert(1)</script>",
    "a | b \\| c \\\\| d",
    "`code` ``more`` ```",
    "**bold** _em_ __init__ snake_case ~~gone~~",
    "[link](http://evil.example) ![picture](http://evil.example/x.png)",
    "[reference][1] <http://auto.example>",
    "&lt;b&gt; &amp; &#60;",
    "$x$ and $$y$$",
    "trailing \\",
    "# no heading",
    "- no list",
]


def render(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def shown(text: str) -> str:
    """What a table's cell shows, where the text is all that stands in it."""
    html = render(f"| head | last |\n|---|---|\n| {text} | end |")
    cells = html.split("<td>")
    assert len(cells) == 3, html
    assert cells[2].startswith("end</td>")
    return cells[1].split("</td>")[0]


def unescaped(html: str) -> str:
    return html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_shows_the_text_and_does_nothing_else(text: str) -> None:
    cell = shown(plain(text))
    assert "<" not in cell
    assert unescaped(cell) == text


@pytest.mark.parametrize("text", NASTY)
def test_a_code_span_shows_the_text_too(text: str) -> None:
    cell = shown(code(text))
    assert cell.startswith("<code>")
    assert cell.endswith("</code>")
    inner = cell.removeprefix("<code>").removesuffix("</code>")
    assert "<" not in inner
    assert unescaped(inner) == text


def test_lines_are_broken_inside_the_cell() -> None:
    assert plain("one\n\n  two\r\nthree ") == "one<br>  two<br>three"
    assert shown(plain("one\ntwo")) == "one<br>two"


def test_names_stay_readable() -> None:
    assert plain("stdlib_bits_per_byte") == "stdlib_bits_per_byte"
    assert code("run-7") == "`run-7`"


def test_no_address_becomes_a_link() -> None:
    assert "://" not in plain("see https://evil.example")
    assert "@" not in plain("me@evil.example")
    assert "www." not in plain("www.evil.example")


def test_long_text_is_cut_before_it_is_escaped() -> None:
    assert plain("<<<<<", limit=2) == "&#60;&#60;…"
    assert plain("short", limit=5) == "short"


def test_what_cannot_be_seen_or_written_is_left_out() -> None:
    assert plain("a\x00b\x1b[31mc\u202ed\ud800e\tf") == "ab&#91;31mcde f"


@pytest.mark.parametrize("text", ["plain", "`a`", "```\nrm\n```", "````", ""])
def test_a_block_of_code_holds_the_whole_text(text: str) -> None:
    (block,) = MarkdownIt().parse(f"{fence(text)}\n{text}\n{fence(text)}\n")
    assert (block.type, block.content.rstrip("\n")) == ("fence", text)
