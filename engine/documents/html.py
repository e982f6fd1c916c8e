"""HTML to one page of readable text with selectolax (Lexbor). Runs in the reading process only.

Blocks become lines, table cells are separated by tabs, list items start with "- "; scripts, styles and
what the page hides are left out, and so is the frame around the article when the page marks it.
"""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from engine.documents.failure import damaged, too_large
from engine.documents.limits import ParseLimits
from engine.documents.normalise import normalise
from engine.documents.plain import decode


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID = _tags("area base br col embed hr img input link meta param source track wbr")
_SELF_CLOSING = _tags("p li dt dd td th tr thead tbody tfoot option optgroup colgroup rp rt")
_SKIPPED = _tags("script style noscript template svg iframe object math head select textarea button canvas")
_FRAME = _tags("nav header footer aside")
_PARAGRAPH = _tags("p h1 h2 h3 h4 h5 h6 ul ol dl table blockquote pre figure section article")
_LINE = _tags(
    "address body caption center dd details dialog div dt fieldset figcaption form hr li main nav header"
    " footer aside summary tbody tfoot thead tr legend search hgroup"
)
_CELL = frozenset(("td", "th"))
_BLOCK_TAG = re.compile(rf"(?=</?(?:{'|'.join(sorted(_PARAGRAPH | _LINE | _CELL))})[\s/>])", re.I)
_MIN_MAIN_CHARS = 200
_MIN_MAIN_SHARE = 0.4

_TAG_START = re.compile(r"<!--|<(/?)([a-zA-Z][^\s/>]*)")
_IN_TAG = re.compile(r"[\"'>]|[\s/]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
_XML_ENCODING = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)", re.I)
_SPACE = re.compile(r"[ \t\r\n\f]+")


def html_text(data: bytes, limits: ParseLimits) -> str:
    """The text a reader of the page sees, normalised. Raises `Unreadable` (damaged or too large)."""
    source = decode(data, declared_charset(data))
    refuse_quadratic(source, limits)
    tree = LexborHTMLParser(_keep_words_apart(source))
    root = tree.body or tree.root
    text = _readable(tree, root) if root is not None else ""
    if not text.strip():
        raise damaged("holds no text to read (pages made by scripts must be saved from a browser)")
    return text


def declared_charset(data: bytes) -> str | None:
    """The encoding that the file names for itself, if any; UTF-16 cannot be declared in ASCII."""
    head = data[:4096]
    found = _CHARSET.search(head) or _XML_ENCODING.search(head)
    charset = found[1].decode("ascii").lower() if found else None
    if charset in ("iso-8859-1", "latin-1", "latin1", "ascii", "us-ascii"):
        return "windows-1252"
    return None if charset and charset.startswith("utf-16") else charset


def _keep_words_apart(source: str) -> str:
    """A space before each block's tag: the parser drops one that is out of place and joins what it parted."""
    return _BLOCK_TAG.sub(" ", source)


def refuse_quadratic(source: str, limits: ParseLimits) -> None:
    """Raises DocumentTooLarge for nesting or attribute counts that would parse for minutes.

    One linear pass over the tags. Elements whose end tag may be left out are not counted as open.
    """
    depth = position = 0
    while tag := _TAG_START.search(source, position):
        if tag[0] == "<!--":
            end = source.find("-->", tag.end())
            position = len(source) if end < 0 else end + 3
            continue
        depth = max(depth + _nesting(tag[2].lower(), closing=bool(tag[1])), 0)
        if depth > limits.max_depth:
            raise too_large(f"nests HTML elements more than {limits.max_depth:,} deep")
        position = _tag_end(source, tag.end(), limits.max_attributes)


def _tag_end(source: str, position: int, max_attributes: int) -> int:
    """Where the tag closes; quoted values may hold ">". Gaps between attributes bound their number."""
    gaps = 0
    quote = ""
    for mark in _IN_TAG.finditer(source, position):
        if quote:
            quote = "" if mark[0] == quote else quote
        elif mark[0] == ">":
            return mark.end()
        elif mark[0] in "\"'":
            quote = mark[0] if source[mark.start() - 1] in "= \t\n\r\f" else ""
        else:
            gaps += 1
            if gaps > max_attributes:
                raise too_large(f"has an HTML element with more than {max_attributes:,} attributes")
    return len(source)


def _nesting(tag: str, *, closing: bool) -> int:
    if tag in _VOID or tag in _SELF_CLOSING:
        return 0
    return -1 if closing else 1


def _readable(tree: LexborHTMLParser, root: LexborNode) -> str:
    """The page's marked main part if it holds much of the text, else the page without its frame."""
    everything = _text(root, _SKIPPED)
    framed = _text(root, _SKIPPED | _FRAME)
    if len(framed) < min(_MIN_MAIN_CHARS, _MIN_MAIN_SHARE * len(everything)):
        framed = everything
    for selector in ("main, [role=main]", "article"):
        parts = tree.css(selector)
        if len(parts) == 1:
            text = _text(parts[0], _SKIPPED | {"nav"})
            if len(text) >= _MIN_MAIN_SHARE * len(framed):
                return text
    return framed


def _text(root: LexborNode, skipped: frozenset[str]) -> str:
    writer = _Writer()
    for node, entering in _walk(root, skipped):
        tag = node.tag or ""
        if not entering:
            writer.close(tag)
        elif node.is_text_node:
            writer.text(node.text_content or "")
        else:
            writer.open(tag)
    return normalise("".join(writer.parts))


def _walk(root: LexborNode, skipped: frozenset[str]) -> Iterator[tuple[LexborNode, bool]]:
    """(node, entering) in document order, each element also when it is left; no recursion."""
    stack: list[tuple[LexborNode, bool]] = [(root, True)]
    while stack:
        node, entering = stack.pop()
        if not entering:
            yield node, False
            continue
        if node.is_text_node:
            yield node, True
        elif node.is_element_node and (node.mem_id == root.mem_id or not _is_skipped(node, skipped)):
            yield node, True
            stack.append((node, False))
            child = node.last_child
            while child is not None:
                stack.append((child, True))
                child = child.prev


def _is_skipped(node: LexborNode, skipped: frozenset[str]) -> bool:
    if node.tag in skipped:
        return True
    attributes = node.attributes
    return "hidden" in attributes or attributes.get("aria-hidden") == "true"


class _Writer:
    """Lays text out in lines. Gaps are only noted, and written when text follows: they never pile up."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._breaks = 0
        self._tabs = 0
        self._space = False
        self._glued = False
        self._pre = 0
        self._cells = [0]

    def open(self, tag: str) -> None:
        self._leave_line(tag)
        if tag == "br":
            self._break(self._breaks + 1)
        elif tag == "table":
            self._cells.append(0)
        elif tag == "tr":
            self._cells[-1] = 0
            self._start_row()
        elif tag in _CELL:
            self._cell()
        elif tag == "li":
            self._write("- ")
            self._glued = True
        elif tag == "pre":
            self._pre += 1

    def close(self, tag: str) -> None:
        self._leave_line(tag)
        if tag == "pre":
            self._pre -= 1
        elif tag == "table":
            self._cells.pop()
            self._glued = False
        elif tag == "li":
            self._glued = False
        elif tag in _CELL:
            self._breaks, self._glued = 0, False

    def text(self, text: str) -> None:
        if self._pre:
            self._write(text)
            return
        words = _SPACE.sub(" ", text)
        self._space = self._space or words.startswith(" ")
        if words.strip(" "):
            self._write(words.strip(" "))
            self._space = words.endswith(" ")

    def _leave_line(self, tag: str) -> None:
        if tag in _PARAGRAPH:
            self._break(2)
        elif tag in _LINE:
            self._break(1)

    def _start_row(self) -> None:
        """Writes the line end at once, so that empty first cells keep their tabs."""
        if self.parts and self._breaks:
            self.parts.append("\n" * self._breaks)
        self._breaks = 0

    def _cell(self) -> None:
        """The first cell of a row starts its line, each other one follows a tab; blocks inside stay on it."""
        if self._cells[-1]:
            self._breaks = 0
            self._tabs += 1
        self._cells[-1] += 1
        self._glued = True

    def _break(self, count: int) -> None:
        """Asks for line ends before the next text, except right after a bullet or a cell's start."""
        if not self._glued:
            self._breaks = max(self._breaks, count)
            self._tabs = 0

    def _write(self, text: str) -> None:
        if not text:
            return
        if self.parts and self._breaks:
            self.parts.append("\n" * self._breaks)
        elif self._tabs:
            self.parts.append("\t" * self._tabs)
        elif self._space and self.parts and not self._glued:
            self.parts.append(" ")
        self.parts.append(text)
        self._breaks = self._tabs = 0
        self._space = self._glued = False
