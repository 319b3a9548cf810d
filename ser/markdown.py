"""From Markdown to HTML, with markdown-it-py. HTML in the Markdown is text; comments are left out.

A link with an address that is not allowed is written as it stands.
"""

import re
from collections import Counter
from collections.abc import Callable

from markdown_it import MarkdownIt

# Addresses within the folder of the page, or https: nothing that runs code.
ADDRESS = re.compile(r"(https://|#|(?![\w+.-]*:)(?!//)).+")
COMMENT = re.compile(r"^<!--.*-->$", re.MULTILINE)


def to_html(text: str, picture: Callable[[str], str] = str) -> str:
    """A page of Markdown (CommonMark, with tables) as HTML. Headings get ids from their text, as GitHub gives them.

    picture: the address to write for a picture's address, such as a data URI; by default the same.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.validateLink = is_allowed  # type: ignore[method-assign]
    tokens = markdown.parse(COMMENT.sub("", text))
    used: Counter[str] = Counter()  # ids of headings
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            name = "-".join(re.findall(r"\w+", tokens[place + 1].content.lower()))
            token.attrSet("id", f"{name}-{used[name]}" if used[name] else name)
            used[name] += 1
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        for part in token.children or []:
            if part.type == "image":
                part.attrSet("src", picture(str(part.attrs["src"])))
    return markdown.renderer.render(tokens, markdown.options, {})


def is_allowed(url: str) -> bool:
    """Whether an address may be linked."""
    return bool(ADDRESS.fullmatch(url))
