"""HTML from Markdown: against pages written by hand, and against the cells of a committed RESULTS.md."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ser.markdown import to_html

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one two</p>\n<p>three</p>"),
        ("# A *b*\n## C\n## C", '<h1 id="a-b">A <em>b</em></h1>\n<h2 id="c">C</h2>\n<h2 id="c-1">C</h2>'),
        ("- a\n  goes on\n  - b\n- c\n\nd", "<ul><li>a goes on<ul><li>b</li></ul></li><li>c</li></ul>\n<p>d</p>"),
        ("- a\n  - b\n    - c\n- d", "<ul><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ul>"),
        ("```\n<b>\n\n# x\n```\ny", "<pre><code>&lt;b&gt;\n\n# x</code></pre>\n<p>y</p>"),
        ("a **b `**` c** d", "<p>a <strong>b `</strong>` c** d</p>"),  # the bold begins first
        ("`**a**` 2 * 3 * 4", "<p><code>**a**</code> 2 * 3 * 4</p>"),
        (r"\*a\* a_b_c \<b>", "<p>*a* a_b_c &lt;b&gt;</p>"),
        ("[**a**](b/c.txt) ![d](e.png)", '<p><a href="b/c.txt"><strong>a</strong></a> <img alt="d" src="e.png"></p>'),
        ("[a](https://b.c) [d](#e)", '<p><a href="https://b.c">a</a> <a href="#e">d</a></p>'),
        ("<!-- a -->\nb\n\n    c\n      *d*\n\ne", "<p>b</p>\n<pre><code>c\n  *d*</code></pre>\n<p>e</p>"),
        ("| not | a table", "<p>| not | a table</p>"),
    ],
)
def test_a_page_written_by_hand(text, html):
    assert to_html(text) == html


def test_a_table():
    html = to_html("before\n| a | **b** |\n| --- | ---: |\n| 1 \\| 2 | `c` |\n| | – |\n\nafter")
    assert html == (
        '<p>before</p>\n<table><thead><tr><th scope="col">a</th><th scope="col"><strong>b</strong></th></tr></thead>'
        "<tbody><tr><td>1 | 2</td><td><code>c</code></td></tr><tr><td></td><td>–</td></tr></tbody></table>\n<p>after</p>"
    )


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "//elsewhere/x.js", "http://a.b/c"])
def test_no_address_that_runs_code_or_leaves_the_folder(address):
    assert to_html(f"[a]({address})") == f"<p>[a]({address})</p>"
    assert "<img" not in to_html(f"![a]({address})")


@pytest.mark.parametrize("text", ["<b>", "# <b>", "- <b>", "| <b> |\n| --- |\n| <b> |", "`<b>`", "**<b>**", "[<b>](c)"])
def test_no_html_of_the_text_stays(text):
    html = to_html(text)
    assert "<b>" not in html and "&lt;b&gt;" in html


def test_quotes_do_not_leave_an_attribute():
    assert 'alt="&quot; onerror=&quot;x"' in to_html('![" onerror="x](a.png)')


def test_the_address_of_a_picture_can_be_changed():
    assert 'src="data:A.PNG"' in to_html("![a](a.png) [b](b.png)", lambda address: f"data:{address.upper()}")


class Cells(HTMLParser):
    """The text of each row's cells."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        if tag == "table":
            self.rows.append([])


@pytest.mark.parametrize("recipe", ["ravdess", "tess", "iemocap"])
def test_the_cells_are_those_of_the_committed_results(recipe):
    text = (ROOT / "egs" / recipe / "RESULTS.md").read_text(encoding="utf-8")
    wanted = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    wanted = [[re.sub(r"\*\*|`", "", cell.strip()) for cell in line[1:-1].split("|")] for line in wanted]
    cells = Cells()
    cells.feed(to_html(text))
    assert wanted
    assert [row for row in cells.rows if row] == wanted
