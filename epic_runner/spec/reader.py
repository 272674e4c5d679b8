"""YAML text to plain data, with the line of every value and without YAML's surprises.

Only what JSON can hold is read, by the rules of YAML 1.2: `no` and `on` are text, so are dates and
`1:30`. Tags, merge keys, duplicate keys and control characters are mistakes. Aliases of simple
anchors are fine; what they expand to is counted before anything is copied, so that no file can
cost more than its size allows. The text is read as a stream of events with a stack of our own:
nesting is limited long before Python's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

BYTES_LIMIT: Final = 1_000_000
NESTING_LIMIT: Final = 40
VALUES_LIMIT: Final = 20_000
MISTAKES_LIMIT: Final = 100

Path = tuple[str | int, ...]

_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The controls and non-characters that YAML refuses as well (decoded text has no surrogates).
_UNREADABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,30}", re.ASCII)
_BASED: Final = re.compile(r"0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,9})?", re.ASCII
)
_SPECIAL: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class Place:
    """Where a value was written.

    Attributes:
        where: `FILE:LINE`, or the option that set the value.
        order: Sorts places: the number of the file, then the line from 1.
        text: What was written for a scalar; empty for lists and mappings.
    """

    where: str
    order: tuple[int, int]
    text: str = ""


@dataclass(frozen=True)
class Problem:
    """A mistake in what was read, with its place still to sort by."""

    place: Place
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Source:
    """A text to read.

    Attributes:
        name: What people call it.
        number: Its place in the order of files.
        content: Its bytes.
        folder: From where paths in it are meant.
    """

    name: str
    number: int
    content: bytes
    folder: FilePath = field(default_factory=FilePath)

    def place(self, line: int, text: str = "") -> Place:
        """Return the place of a line, counted from 1."""
        return Place(f"{self.name}:{line}", (self.number, line), text)

    @property
    def whole(self) -> Place:
        """The place of what concerns the whole file."""
        return Place(self.name, (self.number, 0))


@dataclass(frozen=True)
class Document:
    """One YAML document as plain data, with the place of every value by its path.

    A key of a mapping gives its value's place. The path of the document itself is `()`.
    """

    source: Source
    data: Any
    places: dict[Path, Place]

    def place(self, path: Path) -> Place:
        """Return the place of `path`, or of the innermost value around it that was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.source.whole


def read_file(name: str, number: int) -> Source:
    """Return the source of the file `name`, no more of it than shows that it is too large.

    Raises:
        OSError: It cannot be read.
    """
    with FilePath(name).open("rb") as stream:
        content = stream.read(BYTES_LIMIT + 1)
    return Source(printable(name), number, content, FilePath(name).parent)


def unreadable(name: str, number: int, error: Exception) -> Problem:
    """Return the problem that the file `name` cannot be opened or read."""
    place = Source(printable(name), number, b"").whole
    if isinstance(error, FileNotFoundError):
        return Problem(place, "There is no such file.")
    reason = error.strerror if isinstance(error, OSError) else None
    return Problem(place, f"The file cannot be read: {reason or error}.")


def path_text(path: Path) -> str:
    """Return a path for people: `roles.worker.services[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[\w<@~-][\w<@~/-]{0,59}", part) is not None
            text += ("." if text else "") + (part if plain else quoted(part))
    return text


def printable(text: str) -> str:
    """Return `text` without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def quoted(value: object, limit: int = 60) -> str:
    """Return `value` in quotes on one line, cut where it is long."""
    text = printable(" ".join(str(value)[: 4 * limit].split()))
    return f'"{text[: limit - 1]}…"' if len(text) > limit else f'"{text}"'


def read(source: Source, problems: list[Problem]) -> list[Document]:
    """Return the documents of `source`; what is wrong with them is added to `problems`.

    Empty documents are left out. After a mistake in the syntax, the documents before it are still
    returned, so that their mistakes can be shown at the same time.
    """
    text = _decoded(source, problems)
    if text is None:
        return []
    known = len(problems)
    documents = [
        document
        for document in _documents(source, text, problems)
        if document.data is not None or document.places[()].text
    ]
    if not documents and len(problems) == known:
        problems.append(Problem(source.whole, "The file is empty."))
    return documents


def scalar(text: str) -> Any:
    """Return what a plain scalar means: null, a truth, a number, or else the text itself."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _decoded(source: Source, problems: list[Problem]) -> str | None:
    content = source.content
    if len(content) > BYTES_LIMIT:
        problems.append(
            Problem(source.whole, "The file is larger than 1 MB, which no such file needs to be.")
        )
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(
            Problem(source.place(line), "This is not UTF-8 text.", "Save the file as UTF-8.")
        )
        return None
    bad = _UNREADABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        problems.append(
            Problem(source.place(line), f"A character here is not text (U+{ord(bad[0]):04X}).")
        )
        return None
    return text


@dataclass
class _Node:
    """A value while it is read. `weight` counts the values in it, aliases expanded."""

    line: int
    weight: int = 1
    height: int = 1
    text: str = ""
    data: Any = None
    items: list[_Node] | None = None
    entries: dict[str, tuple[int, _Node]] | None = None


@dataclass
class _Frame:
    """A list or mapping whose end has not been read yet."""

    node: _Node
    anchor: str | None
    path: Path
    key: str | None = None
    key_line: int = 0
    # The key cannot be kept (given twice, or a merge key): its value is read and dropped.
    dropped: bool = False


class _ReadingError(Exception):
    """The rest of the file cannot be read; the problem is already noted."""


@dataclass
class _Builder:
    """Makes one document of the events of the parser."""

    source: Source
    problems: list[Problem]
    root: _Node | None = None
    stack: list[_Frame] = field(default_factory=list)
    anchors: dict[str, _Node] = field(default_factory=dict)
    # Values of the documents before this one, aliases expanded, and of this one as written.
    before: int = 0
    values: int = 0

    def problem(self, line: int, message: str, hint: str | None = None) -> None:
        if len(self.problems) > MISTAKES_LIMIT:
            raise _ReadingError
        self.problems.append(Problem(self.source.place(line), message, hint))

    def handle(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.alias(str(event.anchor), line)
        elif isinstance(event, yaml.ScalarEvent):
            self.tag(event, line)
            self.scalar(event, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self.tag(event, line)
            self.begin(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self.stack.pop()
            self.add(frame.node, frame.anchor)

    def here(self) -> Path:
        if not self.stack:
            return ()
        frame = self.stack[-1]
        if frame.node.items is not None:
            return (*frame.path, len(frame.node.items))
        return frame.path if frame.key is None else (*frame.path, frame.key)

    def tag(self, event: Any, line: int) -> None:
        if event.tag is not None:
            shown = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
            self.problem(line, f"The tag {quoted(shown)} is not allowed.", "Write the plain value.")

    def begin(self, event: Any, line: int) -> None:
        if len(self.stack) >= NESTING_LIMIT:
            self.problem(line, f"The values are nested more than {NESTING_LIMIT} deep.")
            raise _ReadingError
        if self.expects_key():
            self.problem(line, "A key must be text, not a list or a mapping.")
            raise _ReadingError
        node = _Node(line)
        if isinstance(event, yaml.MappingStartEvent):
            node.entries = {}
        else:
            node.items = []
        self.stack.append(_Frame(node, event.anchor, self.here()))

    def expects_key(self) -> bool:
        return bool(self.stack) and (
            self.stack[-1].node.entries is not None and self.stack[-1].key is None
        )

    def scalar(self, event: Any, line: int) -> None:
        text = event.value
        if self.expects_key():
            self.keyed(text, line, plain=event.implicit[0])
            if event.anchor is not None:
                self.anchors[event.anchor] = _Node(line, text=text, data=text)
            return
        data = scalar(text) if event.implicit[0] else text
        self.add(_Node(line, text=text or '""' * (data is not None), data=data), event.anchor)

    def keyed(self, text: str, line: int, *, plain: bool) -> None:
        frame = self.stack[-1]
        entries = frame.node.entries or {}
        frame.key, frame.key_line = text, line
        if plain and text == "<<":
            self.problem(line, "Merge keys (<<) are not allowed.", "Write the keys out.")
            frame.dropped = True
        elif text in entries:
            name = path_text((*frame.path, text))
            first = entries[text][0]
            self.problem(line, f"{name} is given twice, first on line {first}.")
            frame.dropped = True

    def alias(self, anchor: str, line: int) -> None:
        node = self.anchors.get(anchor)
        if node is None:
            inside = any(frame.anchor == anchor for frame in self.stack)
            self.problem(
                line,
                f"The alias *{anchor} stands inside its own anchor."
                if inside
                else f"There is no anchor &{anchor} before this alias.",
            )
            node = _Node(line)
        if not self.expects_key():
            self.add(node, None)
        elif isinstance(node.data, str):
            self.keyed(node.data, line, plain=False)
        else:
            self.problem(line, "A key must be text.")
            raise _ReadingError

    def add(self, node: _Node, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = node
        self.values += 1
        if self.before + max(node.weight, self.values) > VALUES_LIMIT:
            self.problem(node.line, f"The file holds more than {VALUES_LIMIT} values.")
            raise _ReadingError
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if frame.node.items is not None:
            frame.node.items.append(node)
        elif frame.key is not None and frame.node.entries is not None:
            key, frame.key = frame.key, None
            if frame.dropped:
                frame.dropped = False
                return
            frame.node.entries[key] = (frame.key_line, node)
        frame.node.weight += node.weight
        frame.node.height = max(frame.node.height, node.height + 1)
        if frame.node.height + len(self.stack) > NESTING_LIMIT + 1:
            self.problem(node.line, f"The values are nested more than {NESTING_LIMIT} deep.")
            raise _ReadingError

    def document(self, root: _Node) -> Document:
        places: dict[Path, Place] = {}
        data = self.plain(root, (), root.line, places)
        return Document(self.source, data, places)

    def plain(self, node: _Node, path: Path, line: int, places: dict[Path, Place]) -> Any:
        """Return the data of `node`, each alias a copy of its own; depth is limited by now."""
        places[path] = self.source.place(line, node.text)
        if node.entries is not None:
            return {
                key: self.plain(item, (*path, key), key_line, places)
                for key, (key_line, item) in node.entries.items()
            }
        if node.items is not None:
            return [
                self.plain(item, (*path, index), item.line, places)
                for index, item in enumerate(node.items)
            ]
        return node.data


def _documents(source: Source, text: str, problems: list[Problem]) -> Iterator[Document]:
    builder = _Builder(source, problems)
    before = 0
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            if isinstance(event, yaml.DocumentStartEvent):
                builder = _Builder(source, problems, before=before)
            elif isinstance(event, yaml.DocumentEndEvent):
                if builder.root is not None:
                    before += builder.root.weight
                    yield builder.document(builder.root)
            else:
                builder.handle(event)
    except _ReadingError:
        return
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(source, text, error))


# What a parser complains of, in our words: found in its message, or in what it was doing.
_COMPLAINTS: Final = (
    (
        "mapping values are not allowed",
        "A colon stands where none can be.",
        "Check the indentation, and put text that holds a colon and a space in quotes.",
    ),
    (
        "could not find expected ':'",
        "A key is not followed by a colon.",
        "Write it as KEY: VALUE.",
    ),
    ("quoted scalar", "A quotation mark is not closed before here.", None),
    ("flow", "A list or mapping in brackets is not closed, or lacks a comma, before here.", None),
    ("block", "The indentation does not fit what stands before.", None),
    (
        "cannot start any token",
        "A value cannot begin like this.",
        "Put it in quotes.",
    ),
)


def _syntax_problem(source: Source, text: str, error: yaml.YAMLError) -> Problem:
    """Return a parser's complaint in our words, where they are better."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = str(getattr(error, "problem", None) or "it cannot be read")
    doing = str(getattr(error, "context", None) or "")
    lines = text.splitlines() or [""]
    line = min(mark.line + 1 if mark is not None else 1, len(lines))
    place = source.place(line)
    written = lines[line - 1]
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return Problem(place, "The line is indented with a tab.", "Indent with spaces.")
    for part, message, hint in _COMPLAINTS:
        if part in said or (part in doing and part in {"quoted scalar", "flow", "block"}):
            return Problem(place, message, hint)
    return Problem(place, f"This is not valid YAML: {said}.")
