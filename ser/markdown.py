"""From Markdown to HTML: the part of Markdown that RESULTS.md uses.

Headings, paragraphs, lists (`- `, nested by two spaces), tables, code blocks, and within a line code, bold, italic,
links and pictures. Comments are left out. Anything else is text. All text is escaped, so Markdown cannot contain HTML.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

# Where a line has several, the first that begins wins; so code hides what it contains.
INLINE = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<url>[^()\s]*)\)"
    r"|\*\*(?P<bold>.+?)\*\*"
    r"|(?<![\w*])\*(?P<italic>[^\s*]|[^\s*][^*]*[^\s*])\*(?![\w*])"
    r"|\\(?P<literal>[!-/:-@\[-`{-~])"
)
# Addresses within the folder of the page, or https: nothing that runs code.
ADDRESS = re.compile(r"(https://|#|(?![\w+.-]*:)(?!//)).+")
COMMENT = re.compile(r"<!--.*-->")
ITEM = re.compile(r"( *)- (.*)")
RULE = re.compile(r"\|?( *:?-+:? *\|)+ *(:?-+:?)? *")  # the second line of a table


def to_html(text: str, picture: Callable[[str], str] = str) -> str:
    """A page of Markdown as HTML. Headings get ids from their text, as GitHub gives them.

    picture: the address to write for a picture's address, such as a data URI; by default the same.
    """
    lines, place, blocks = text.split("\n"), 0, []
    used: Counter[str] = Counter()  # ids of headings
    while place < len(lines):
        line = lines[place]
        end = place + 1
        if not line.strip() or COMMENT.fullmatch(line):
            block = ""
        elif line.startswith("```"):
            end = next((n for n in range(end, len(lines)) if lines[n].startswith("```")), len(lines)) + 1
            block = f"<pre><code>{escape(chr(10).join(lines[place + 1 : end - 1]))}</code></pre>"
        elif line.startswith("    "):
            end = next((n for n in range(end, len(lines)) if not lines[n].startswith("    ")), len(lines))
            block = f"<pre><code>{escape(chr(10).join(part[4:] for part in lines[place:end]))}</code></pre>"
        elif match := re.match(r"(#{1,6}) (.+)", line):
            name = name_of(match[2])
            number = f"-{used[name]}" if used[name] else ""
            used[name] += 1
            block = f'<h{len(match[1])} id="{name}{number}">{inline(match[2], picture)}</h{len(match[1])}>'
        elif line.startswith("|") and RULE.fullmatch("".join(lines[end : end + 1])):
            end = next((n for n in range(end, len(lines)) if not lines[n].startswith("|")), len(lines))
            block = table(lines[place:end], picture)
        elif ITEM.match(line):
            end = next((n for n in range(end, len(lines)) if not re.match(r" +\S| *- ", lines[n])), len(lines))
            block = items(lines[place:end], picture)
        else:
            end = next((n for n in range(end, len(lines)) if begins(lines[n])), len(lines))
            block = f"<p>{inline(' '.join(lines[place:end]), picture)}</p>"
        blocks.append(block)
        place = end
    return "\n".join(filter(None, blocks))


def begins(line: str) -> bool:
    """Whether a line ends the paragraph before it."""
    return not line.strip() or bool(re.match(r"#{1,6} |\||```|- ", line))


def name_of(heading: str) -> str:
    """The id of a heading."""
    return "-".join(re.findall(r"\w+", heading.lower()))


def table(lines: Sequence[str], picture: Callable[[str], str]) -> str:
    """A table; the first line is its head, the second is left out."""
    head, _, *body = (
        [inline(cell.strip(), picture) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines
    )
    rows = ["".join(f'<th scope="col">{cell}</th>' for cell in head)]
    rows += ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    first, *others = (f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead>{first}</thead><tbody>{''.join(others)}</tbody></table>"


def items(lines: Sequence[str], picture: Callable[[str], str]) -> str:
    """A list; items that are indented further belong to the item before them."""
    depths: list[int] = []
    texts: list[str] = []
    for line in lines:
        if match := ITEM.match(line):
            depths.append(len(match[1]) // 2)
            texts.append(match[2])
        else:
            texts[-1] += f" {line.strip()}"
    html, depth = "", -1
    for wanted, text in zip(depths, texts, strict=True):
        wanted = min(wanted, depth + 1)
        html += "<ul>" if wanted > depth else "</li></ul>" * (depth - wanted) + "</li>"
        html += f"<li>{inline(text, picture)}"
        depth = wanted
    return html + "</li></ul>" * (depth + 1)


def inline(text: str, picture: Callable[[str], str]) -> str:
    """The text of a line, escaped, with its code, bold, italic, links and pictures."""
    html, place = "", 0
    for match in INLINE.finditer(text):
        html += escape(text[place : match.start()]) + span(match, picture)
        place = match.end()
    return html + escape(text[place:])


def span(match: re.Match[str], picture: Callable[[str], str]) -> str:
    """The HTML of a match of INLINE. A link with an address that is not allowed is written as it stands."""
    if match["code"]:
        return f"<code>{escape(match['code'])}</code>"
    if match["bold"]:
        return f"<strong>{inline(match['bold'], picture)}</strong>"
    if match["italic"]:
        return f"<em>{inline(match['italic'], picture)}</em>"
    if match["literal"]:
        return escape(match["literal"])
    if not ADDRESS.fullmatch(match["url"]):
        return escape(match[0])
    if match["picture"]:
        return f'<img alt="{escape(match["text"])}" src="{escape(picture(match["url"]))}">'
    return f'<a href="{escape(match["url"])}">{inline(match["text"], picture)}</a>'
