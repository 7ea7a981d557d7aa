"""docs/wire.md says what the code packs: its tables are compared with the code, field by field."""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from pathlib import Path

import msgpack  # type: ignore[import-untyped]

import fs3.identity.capability as capability_module
import fs3.identity.datagram as datagram_module
import fs3.rpc.framing as framing_module
from fs3.identity.capability import Capability, CapabilitySigner, Rights
from fs3.identity.datagram import Datagram, DatagramSigner
from fs3.identity.handshake import Challenge, Hello, Plane, Proof, Welcome
from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import ClientSessionId, Epoch, Generation, InodeId, NodeId
from fs3.rpc.framing import HEADER_FIELDS, Flag, Kind

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
KEY = ClusterKey("alpha", 1, bytes(range(32)))


def _section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _table(title: str) -> list[tuple[int, int, str]]:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", _section(title), re.MULTILINE)
    return [(int(offset), int(size), name) for offset, size, name in rows]


def _docstring_table(text: str) -> list[tuple[int, int, str]]:
    rows = re.findall(r"^ +(\d+) +(\d+)  (\w+)(?: |$)", text, re.MULTILINE)
    return [(int(offset), int(size), name) for offset, size, name in rows]


def _cut(data: bytes, title: str) -> dict[str, bytes]:
    return {name: data[offset : offset + size] for offset, size, name in _table(title)}


def test_tables_equal_those_of_the_code() -> None:
    for title, module in (
        ("Frame", framing_module),
        ("Capability", capability_module),
        ("Datagram", datagram_module),
    ):
        assert _table(title) == _docstring_table(module.__doc__ or ""), title
        end = 0
        for offset, size, name in _table(title):
            assert offset == end, (title, name)
            end = offset + size
    assert [(size, name) for _, size, name in _table("Frame")] == [(s, n) for n, s in HEADER_FIELDS]


def test_kinds_and_flags() -> None:
    kinds = dict(re.findall(r"^\| ([A-Z]+) \| (\d+) \|", _section("Frame"), re.MULTILINE))
    assert kinds == {kind.name: str(kind.value) for kind in Kind}
    assert "Flags: 1 HELD" in PAGE and [(f.name, f.value) for f in Flag] == [("HELD", 1)]


def test_handshake_messages() -> None:
    section = _section("Handshake")
    for kind, message in (("HELLO", Hello), ("CHALLENGE", Challenge), ("PROOF", Proof), ("WELCOME", Welcome)):
        fields = [name.replace("versions", "[oldest, newest]") for name in message.__struct_fields__]
        assert f"| {kind} | `[{', '.join(fields)}]` |" in section
    assert "`plane` is 1 (small) or 2 (bulk)" in section and [p.value for p in Plane] == [1, 2]


def test_token_read_with_an_independent_library() -> None:
    claims = TokenClaims(cluster="alpha", key_id=1, uid=5, gid=6, groups=(7,), is_admin=True, nonce=b"n")
    public = make_token(KEY, claims).public
    assert msgpack.unpackb(public) == ["alpha", 1, 5, 6, [7], True, 0, b"n"]
    listed = re.search(r"array `\[(.*?)\]`", _section("User token"), re.DOTALL)
    assert listed is not None
    assert re.split(r",\s+", listed[1]) == list(TokenClaims.__struct_fields__)


def test_capability_read_by_the_table() -> None:
    made = Capability(InodeId(0x0102), Epoch(3), Rights.WRITE, ClientSessionId(16), 1000, 2, 0x0A0B0C, 99)
    data = CapabilitySigner(KEY).sign(made)
    numbers = {name: int.from_bytes(value, "little") for name, value in _cut(data, "Capability").items()}
    signature = numbers.pop("signature")
    assert numbers == {
        "version": 1,
        "rights": 2,
        "reserved": 0,
        "key_id": 1,
        "inode": 0x0102,
        "session": 16,
        "epoch": 3,
        "uid": 1000,
        "key_generation": 2,
        "expires_ms": 0x0A0B0C,
        "checked_s": 99,
    }
    derived = hmac.digest(KEY.secret, b"fs3/alpha/1/capability\x01", "sha256")
    parts = b"".join(struct.pack("<I", len(p)) + p for p in (b"capability", data[:48]))
    assert signature.to_bytes(16, "little") == hmac.digest(derived, parts, "sha256")[:16]


def test_datagram_read_by_the_table() -> None:
    data = DatagramSigner(KEY).seal(Datagram(3, NodeId(4), Generation(5), 6, b"n" * 16, b"body"))
    cut = _cut(data, "Datagram")
    assert cut["magic"] == b"fd" and data[64:] == b"body" and cut["nonce"] == b"n" * 16
    assert cut["cluster"] == hashlib.sha256(b"alpha").digest()[:8]
    names = ("version", "purpose", "sender", "generation", "sequence")
    assert [int.from_bytes(cut[name], "little") for name in names] == [1, 3, 4, 5, 6]
    derived = hmac.digest(KEY.secret, b"fs3/alpha/1/datagram\x01", "sha256")
    parts = b"".join(struct.pack("<I", len(p)) + p for p in (b"datagram", b"alpha", data[:48], b"body"))
    assert cut["signature"] == hmac.digest(derived, parts, "sha256")[:16]
