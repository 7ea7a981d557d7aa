"""Settings: a strict TOML file becomes a frozen dataclass, or an error that names the file and the line.

A settings class is a frozen dataclass; its fields say everything::

    @dataclass(frozen=True, slots=True)
    class DiskSettings:
        path: Path
        reserve_bytes: Annotated[int, Between(0, 1 << 40)] = 1 << 30

    @dataclass(frozen=True, slots=True)
    class StorageSettings:
        node_id: NodeId
        disks: tuple[DiskSettings, ...]
        lease_s: Annotated[float, Between(0.1, 60)] = 1.5

Field types: ``bool int float str Path``, an ``Enum`` by value, ``Literal``, ``NewType`` of these,
``X | None``, ``tuple[X, ...]`` (an array, or an array of tables), ``dict[str, X]``, and another settings
class (a table). A field without default is required. ``__post_init__`` may raise ValueError: it becomes an
error of that table. What several fields must fulfil together (timings) is a function that yields complaints,
see ``Complaint``.

Rules: an unknown key is an error which names the nearest known one; a number's name ends with its unit
(asserted of the class); a bool is never taken for a number, nor an int for a string; relative paths are
relative to the file. There are no other sources: no environment, no hidden defaults.

Source: design 2.10.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from fs3.errors import Rejected
from fs3.toml_lines import KeyPath, line_of, locate

T = TypeVar("T")

FILE_BYTES_MAX = 1 << 20
"""A settings file longer than this is something else."""

_UNIT = re.compile(
    r"(^|_)(s|ms|us|ns|bytes|kib|mib|gib|count|ratio|percent|id|port|number|version|generation|replication|mode"
    r"|max|depth|uid|gid|weight|level|per_s)$"
)


class BadSettings(Rejected):
    """A settings file cannot be used; the message is ``file:line: what, and what would be right``."""


class Complaint(NamedTuple):
    """What a check of a whole settings object found: ``key`` (dotted, "" for all) gives the line."""

    key: str
    message: str


Check = Callable[[T], Iterable[Complaint]]


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a number (both allowed), written ``Annotated[float, Between(low, high)]``."""

    low: float
    high: float


class _Wrong(Exception):
    """A value cannot be taken; carries the path at which it stands."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def load_settings(kind: type[T], path: Path, check: Check[T] | None = None) -> T:
    """Read ``path`` into settings class ``kind``; raises BadSettings."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise BadSettings(f"{path}: longer than {FILE_BYTES_MAX} bytes: this is no settings file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadSettings(f"{path}:{line}: not UTF-8 (byte {error.start})") from error
    return parse_settings(kind, text, str(path), check, base_directory=path.absolute().parent)


def parse_settings(
    kind: type[T],
    text: str,
    origin: str,
    check: Check[T] | None = None,
    *,
    base_directory: Path = Path(),
) -> T:
    """Settings of class ``kind`` from TOML text; ``origin`` is named in errors. Raises BadSettings."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(_syntax_message(origin, str(error), text)) from error
    lines = locate(text)
    try:
        settings = _Reader(base_directory).table(kind, table, ())
    except _Wrong as wrong:
        raise BadSettings(f"{origin}:{line_of(lines, wrong.path)}: {wrong.message}") from wrong
    for complaint in check(settings) if check is not None else ():
        path: KeyPath = tuple(complaint.key.split(".")) if complaint.key else ()
        raise BadSettings(f"{origin}:{line_of(lines, path)}: {complaint.message}")
    return settings


def _syntax_message(origin: str, message: str, text: str) -> str:
    found = re.search(r"\(at line (\d+), column (\d+)\)|\(at end of document\)", message)
    line = int(found[1]) if found and found[1] else text.count("\n") + 1
    said = message[: found.start()].strip() if found else message
    return f"{origin}:{line}: not valid TOML: {said}"


def _name(path: KeyPath) -> str:
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


def assert_names_carry_units(kind: type[object]) -> None:
    """Assert that every number of settings class ``kind`` says its unit in its name, tables included."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # checked by the caller
        bare = _bare(hints[field.name])
        if dataclasses.is_dataclass(bare):
            assert_names_carry_units(typing.cast("type[object]", bare))
        elif bare in (int, float):
            singular = field.name.removesuffix("s")  # ports = [1, 2]
            assert _UNIT.search(field.name) or _UNIT.search(singular), (
                f"{kind.__name__}.{field.name}: a number's name ends with its unit"
            )


def _bare(hint: Any) -> Any:
    """The element type under Annotated, NewType, Optional and tuple."""
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif typing.get_origin(hint) in (Annotated, tuple, typing.Union, types.UnionType):
            hint = typing.get_args(hint)[0]
        elif typing.get_origin(hint) is dict:
            hint = typing.get_args(hint)[1]
        else:
            return hint


class _Reader:
    """Turns plain TOML values into fields; every error carries the path of the value."""

    def __init__(self, base_directory: Path) -> None:
        self._base = base_directory

    def table(self, kind: type[T], table: object, path: KeyPath) -> T:
        assert dataclasses.is_dataclass(kind), kind
        if not isinstance(table, dict):
            raise _Wrong(path, f"{_name(path)} must be a table, not {_shown(table)}")
        if not path:
            assert_names_carry_units(kind)
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
        for key in table:
            if key not in fields:
                raise _Wrong((*path, key), _unknown(key, path, fields))
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in table:
                values[name] = self.value(hints[name], table[name], (*path, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise _Wrong(path, f"{_name((*path, name))} is missing: it must be set")
        try:
            return typing.cast("T", kind(**values))
        except ValueError as error:
            raise _Wrong(path, f"{_name(path) or 'settings'}: {error}") from error

    def value(self, hint: Any, value: object, path: KeyPath) -> object:
        """``value`` as the field type ``hint``."""
        if isinstance(hint, typing.NewType):
            return self.value(hint.__supertype__, value, path)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            taken = self.value(arguments[0], value, path)
            _check_bounds(arguments[1:], taken, path)
            return taken
        if origin in (typing.Union, types.UnionType):
            assert len(arguments) == 2 and arguments[1] is types.NoneType, f"{_name(path)}: {hint}"
            return self.value(arguments[0], value, path)
        if origin is Literal:
            return _choice({str(a): a for a in arguments}, value, path)
        if origin in (tuple, dict):
            return self._many(origin, arguments, value, path)
        if dataclasses.is_dataclass(hint):
            return self.table(typing.cast("type[object]", hint), value, path)
        return self._scalar(hint, value, path)

    def _many(self, origin: type, arguments: tuple[Any, ...], value: object, path: KeyPath) -> object:
        if origin is tuple:
            assert len(arguments) == 2 and arguments[1] is ..., f"{_name(path)}: only tuple[X, ...]"
            if not isinstance(value, list):
                raise _Wrong(path, f"{_name(path)} must be an array, not {_shown(value)}")
            return tuple(self.value(arguments[0], item, (*path, i)) for i, item in enumerate(value))
        if not isinstance(value, dict):
            raise _Wrong(path, f"{_name(path)} must be a table, not {_shown(value)}")
        return {key: self.value(arguments[1], item, (*path, key)) for key, item in value.items()}

    def _scalar(self, hint: Any, value: object, path: KeyPath) -> object:
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return hint(_choice({str(member.value): member.value for member in hint}, value, path))
        if hint is Path and isinstance(value, str):
            return self._base / Path(value).expanduser()
        words = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Path: "a path"}
        assert hint in words, f"{_name(path)}: settings cannot hold {hint}"
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise _Wrong(path, f"{_name(path)} must be {words[hint]}, not {_shown(value)}")
        if hint is float and not abs(typing.cast("float", value)) < float("inf"):
            raise _Wrong(path, f"{_name(path)} must be finite, not {value}")
        return value


def _shown(value: object) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "table"}
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"the {kinds.get(type(value), type(value).__name__)} {text[:60]}"


def _check_bounds(extras: tuple[Any, ...], value: Any, path: KeyPath) -> None:
    for extra in extras:
        if isinstance(extra, Between) and not extra.low <= value <= extra.high:
            raise _Wrong(path, f"{_name(path)} must be between {extra.low} and {extra.high}, not {value}")


def _choice(allowed: dict[str, Any], value: object, path: KeyPath) -> Any:
    for one in allowed.values():
        if type(one) is type(value) and one == value:
            return one
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise _Wrong(path, f"{_name(path)} must be one of {', '.join(allowed)}, not {_shown(value)}{hint}")


def _unknown(key: str, path: KeyPath, fields: Iterable[str]) -> str:
    names = list(fields)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
    return f"unknown key {_name((*path, key))!r}; {hint}"


def to_toml(settings: object, *, comment: str = "") -> str:
    """The TOML text that ``parse_settings`` reads back as ``settings``; ``comment`` heads the file."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "".join(_table_lines(settings, ""))


def _table_lines(settings: object, prefix: str) -> Iterable[str]:
    assert dataclasses.is_dataclass(settings) and not isinstance(settings, type), settings
    tables: list[str] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        path = f"{prefix}{field.name}"
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            tables += [f"\n[{path}]\n", *_table_lines(value, f"{path}.")]
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for item in value:
                tables += [f"\n[[{path}]]\n", *_table_lines(item, f"{path}.")]
        else:
            yield f"{field.name} = {_literal(value)}\n"
    yield from tables


def _literal(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return _literal(value.value)
        case int() | float():
            return repr(value)
        case str() | Path():
            return _quoted(str(value))
        case tuple():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return "{" + ", ".join(f"{_quoted(k)} = {_literal(v)}" for k, v in value.items()) + "}"
        case _:
            raise AssertionError(f"settings cannot hold {value!r}")


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
