"""Where in a TOML file a key stands: ``tomllib`` reads values but forgets lines, and errors must name them.

``locate`` walks over text that ``tomllib`` has already accepted, so it needs to understand only where
statements, strings, brackets and comments begin and end. Keys inside an inline table get the line of the
statement they are in. Pure.

Source: design 2.10; TOML 1.0.
"""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]
"""Table names, indices of arrays of tables, and the key: ``("disks", 0, "path")``."""

_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*""")
_ENDS = {'"""': '"""', "'''": "'''", '"': '"', "'": "'"}


def locate(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table header and of every key; ``text`` must be valid TOML."""
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        elif text[at] == "[":
            is_array = text.startswith("[[", at)
            names, _ = _dotted(text, at + (2 if is_array else 1))
            table = _resolve(names, counts)
            if is_array:
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            found.setdefault(table, _line_of(text, at))
            at = _line_end(text, at)
        else:
            names, after = _dotted(text, at)
            path = table
            for name in names:
                path = (*path, name)
                found.setdefault(path, _line_of(text, at))
            at = _value_end(text, after)
    return found


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """The line of ``path``, else of the nearest table around it, else 1."""
    for length in range(len(path), 0, -1):
        line = lines.get(path[:length])
        if line is not None:
            return line
    return 1


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _dotted(text: str, at: int) -> tuple[list[str], int]:
    """The parts of a dotted key at ``at``, and where it ends."""
    names: list[str] = []
    while (match := _PART.match(text, at)) is not None:
        names.append(next(group for group in match.groups() if group is not None))
        at = match.end()
        if not text.startswith(".", at):
            break
        at += 1
    return names, at


def _resolve(names: list[str], counts: dict[KeyPath, int]) -> KeyPath:
    """The path of a header: a name that is an array of tables means its last element."""
    path: KeyPath = ()
    for place, name in enumerate(names):
        path = (*path, name)
        if path in counts and place + 1 < len(names):
            path = (*path, counts[path])
    return path


def _value_end(text: str, at: int) -> int:
    """Where the statement whose key ended at ``at`` ends: its newline outside strings and brackets."""
    depth = 0
    while at < len(text):
        quote = next((q for q in _ENDS if text.startswith(q, at)), None)
        if quote is not None:
            at = _string_end(text, at + len(quote), quote)
        elif text[at] == "#":
            at = _line_end(text, at)
        elif text[at] == "\n" and depth == 0:
            return at
        else:
            depth += (text[at] in "[{") - (text[at] in "]}")
            at += 1
    return at


def _string_end(text: str, at: int, quote: str) -> int:
    is_basic = quote[0] == '"'
    while at < len(text):
        if is_basic and text[at] == "\\":
            at += 2
        elif text.startswith(quote, at):
            at += len(quote)
            while len(quote) == 3 and text.startswith(quote[0], at):
                at += 1  # up to two quotes may stand right before the closing three
            return at
        else:
            at += 1
    return at
