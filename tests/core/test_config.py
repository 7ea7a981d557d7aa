"""Settings: what is accepted, and that every refusal names the line and what would be right."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.config import (
    FILE_BYTES_MAX,
    BadSettings,
    Between,
    Complaint,
    assert_names_carry_units,
    load_settings,
    parse_settings,
    to_toml,
)
from fs3.ids import NodeId


class Sync(enum.Enum):
    FULL = "full"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Disk:
    path: Path
    reserve_bytes: Annotated[int, Between(0, 1 << 40)] = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    node_id: NodeId
    name: str = "n"
    lease_s: Annotated[float, Between(0.1, 60)] = 1.5
    relaxed: bool = False
    sync: Sync = Sync.FULL
    level: Literal["low", "high"] = "low"
    zone: str | None = None
    disks: tuple[Disk, ...] = ()
    ports: tuple[int, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    main: Disk = field(default_factory=lambda: Disk(Path("/main")))


def parse(text: str) -> Settings:
    return parse_settings(Settings, text, "f.toml", base_directory=Path("/etc/fs3"))


def refusal(text: str) -> str:
    with pytest.raises(BadSettings) as caught:
        parse(text)
    return str(caught.value)


def test_every_kind_of_field_is_read() -> None:
    text = """
node_id = 7
lease_s = 2
relaxed = true
sync = "data"
level = "high"
zone = "rack-1"
ports = [1, 2]
tags = { a = "b" }
[[disks]]
path = "data"
[[disks]]
path = "/data/2"
reserve_bytes = 0
"""
    assert parse(text) == Settings(
        node_id=NodeId(7),
        lease_s=2.0,
        relaxed=True,
        sync=Sync.DATA,
        level="high",
        zone="rack-1",
        disks=(Disk(Path("/etc/fs3/data")), Disk(Path("/data/2"), 0)),
        ports=(1, 2),
        tags={"a": "b"},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.toml:1: node_id is missing: it must be set"),
        ("node_id = 1\nleese_s = 2", "f.toml:2: unknown key 'leese_s'; did you mean 'lease_s'?"),
        ("node_id = 1\nlease_ms = 2", "f.toml:2: unknown key 'lease_ms'; did you mean 'lease_s'?"),
        (
            "node_id = 1\n\n[main]\nqqq = 2",
            "f.toml:4: unknown key 'main.qqq'; known here: path, reserve_bytes",
        ),
        ("node_id = '1'", "f.toml:1: node_id must be an integer, not the string '1'"),
        ("node_id = true", "f.toml:1: node_id must be an integer, not the boolean true"),
        ("node_id = 1\nlease_s = 61", "f.toml:2: lease_s must be between 0.1 and 60, not 61.0"),
        ("node_id = 1\nlease_s = nan", "f.toml:2: lease_s must be finite, not nan"),
        ("node_id = 1\nrelaxed = 1", "f.toml:2: relaxed must be true or false, not the integer 1"),
        (
            "node_id = 1\nsync = 'dota'",
            "f.toml:2: sync must be one of full, data, not the string 'dota' (did you mean 'data'?)",
        ),
        ("node_id = 1\nlevel = 3", "f.toml:2: level must be one of low, high, not the integer 3"),
        ("node_id = 1\ndisks = 3", "f.toml:2: disks must be an array, not the integer 3"),
        ("node_id = 1\nmain = 3", "f.toml:2: main must be a table, not the integer 3"),
        ("node_id = 1\ntags = 3", "f.toml:2: tags must be a table, not the integer 3"),
        ("node_id = 1\nports = [1,\n'2']", "f.toml:2: ports[1] must be an integer, not the string '2'"),
        (
            "node_id = 1\n[[disks]]\npath='a'\n[[disks]]\nreserve_bytes=1",
            "f.toml:4: disks[1].path is missing: it must be set",
        ),
        ("node_id = 1\nname = ", "f.toml:2: not valid TOML: "),
        ("node_id = 1\nnode_id = 2", "f.toml:2: not valid TOML: "),
        ('node_id = 1\nname = """', "f.toml:2: not valid TOML: "),
    ],
)
def test_refusals_name_the_line(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


def test_a_check_of_the_whole_names_the_line_of_its_key() -> None:
    def check(settings: Settings) -> Iterator[Complaint]:
        if settings.lease_s > settings.main.reserve_bytes:
            yield Complaint("main.reserve_bytes", "must be above lease_s")

    with pytest.raises(BadSettings, match=r"^f:3: must be above lease_s$"):
        parse_settings(Settings, "node_id = 1\n[main]\nreserve_bytes = 1\npath = 'x'", "f", check)


def test_value_errors_of_a_class_name_its_table() -> None:
    @dataclass(frozen=True)
    class Even:
        size_bytes: int

        def __post_init__(self) -> None:
            if self.size_bytes % 2:
                raise ValueError("must be even")

    with pytest.raises(BadSettings, match=r"^f:1: settings: must be even$"):
        parse_settings(Even, "size_bytes = 3", "f")


def test_a_class_whose_numbers_have_no_unit_is_a_bug() -> None:
    @dataclass(frozen=True)
    class NoUnit:
        timeout: float = 1.0

    with pytest.raises(AssertionError, match="timeout: a number's name ends with its unit"):
        assert_names_carry_units(NoUnit)
    assert_names_carry_units(Settings.__mro__[0])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot be read: No such file"):
        load_settings(Settings, tmp_path / "absent")
    with pytest.raises(BadSettings, match="cannot be read: Is a directory"):
        load_settings(Settings, tmp_path)
    path = tmp_path / "settings.toml"
    path.write_bytes(b"node_id = 1\nname = '\xff'")
    with pytest.raises(BadSettings, match=r"settings.toml:2: not UTF-8"):
        load_settings(Settings, path)
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(BadSettings, match="longer than"):
        load_settings(Settings, path)
    path.write_text("node_id = 5")
    assert load_settings(Settings, path) == Settings(NodeId(5))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DISKS = st.builds(Disk, st.sampled_from([Path("/a"), Path("/b c/\"d'")]), st.integers(0, 1 << 40))


@given(
    st.builds(
        Settings,
        node_id=st.integers(0, 1 << 31).map(NodeId),
        name=TEXTS,
        lease_s=st.floats(0.1, 60),
        relaxed=st.booleans(),
        sync=st.sampled_from(Sync),
        zone=st.none() | TEXTS,
        disks=st.lists(DISKS, max_size=3).map(tuple),
        ports=st.lists(st.integers(-5, 5), max_size=3).map(tuple),
        tags=st.dictionaries(TEXTS, TEXTS, max_size=2),
        main=DISKS,
    )
)
def test_what_is_written_is_read_back(settings: Settings) -> None:
    assert parse(to_toml(settings, comment="two\nlines")) == settings
