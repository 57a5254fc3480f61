"""Reads pages with the standard library's parser, into a tree that tests can ask."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"br", "col", "img", "input", "link", "meta"}


@dataclass
class Node:
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    parts: list[Node | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        """All elements below, in order."""
        for part in self.parts:
            if isinstance(part, Node):
                yield part
                yield from part

    @property
    def text(self) -> str:
        return "".join(p if isinstance(p, str) else p.text for p in self.parts)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def all(self, name: str, class_: str | None = None) -> list[Node]:
        return [n for n in self if n.name == name and (class_ is None or class_ in n.classes)]

    def section(self, heading: str) -> Node:
        """The one section with this heading."""
        (found,) = [s for s in self.all("section") if s.all("h2")[0].text == heading]
        return found

    def headings(self) -> list[str]:
        return [s.all("h2")[0].text for s in self.all("section")]

    def rows(self) -> list[list[str]]:
        """Texts of the cells of all rows of all tables below, without their heads."""
        return [
            [cell.text for cell in row if cell.name in ("td", "th")]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in <{tag}>"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parse(text: str) -> Node:
    """Return the tree; every element must be closed in its place."""
    builder = _Builder()
    builder.feed(text)
    builder.close()
    assert len(builder.open) == 1, f"<{builder.open[-1].name}> stays open"
    return builder.root


def read_page(path: Path) -> Node:
    """Parse a page and check what holds for all: closed, self-contained, without dead links."""
    page = parse(path.read_text(encoding="utf-8"))
    ids = [n.attributes["id"] for n in page if "id" in n.attributes]
    assert len(ids) == len(set(ids)), "an id twice"
    for node in page:
        assert "style" not in node.attributes, "its policy would drop the style"
        assert not any(name.startswith("on") for name in node.attributes), "nor run the handler"
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            address = node.attributes.get(name)
            if address is None:
                continue
            assert address.startswith("data:image/jpeg;base64,") or address[1:] in ids, address
    (style,), (script,) = page.all("style"), page.all("script")
    assert not re.search(r"@import|url\((?!#)", style.text)
    assert not re.search(r"fetch|XMLHttp|import\(|WebSocket|sendBeacon|eval|innerHTML", script.text)
    (policy,) = [
        n.attributes["content"]
        for n in page.all("meta")
        if n.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name, node in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(node.text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    return page
