"""Keys, tokens, capabilities, datagrams: what is genuine passes, everything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import CapabilityExpired, Fs3Error, InvalidRequest, Unauthenticated, WrongCluster
from fs3.identity.capability import CAPABILITY_BYTES, Capability, CapabilitySigner, Rights
from fs3.identity.datagram import NO_NONCE, WINDOW, Datagram, DatagramSigner, ReplayWindow
from fs3.identity.key_file import KeyFileError, new_cluster_key, read_cluster_key, write_cluster_key
from fs3.identity.keys import ClusterKey, Prover, proof
from fs3.identity.token import TokenClaims, make_token, parse_token, token_secret
from fs3.ids import ClientSessionId, Epoch, Generation, InodeId, NodeId

KEY = ClusterKey("alpha", 1, bytes(range(32)))
OTHER_SECRET = ClusterKey("alpha", 1, bytes(32))
OTHER_CLUSTER = ClusterKey("beta", 1, bytes(range(32)))
CAPABILITY = Capability(InodeId(77), Epoch(3), Rights.READ, ClientSessionId(16), 1000, 2, 5_000)
DATAGRAM = Datagram(1, NodeId(4), Generation(9), 12, NO_NONCE, b"beacon")


def _claims(**changes: object) -> TokenClaims:
    values: dict[str, object] = {"cluster": "alpha", "key_id": 1, "uid": 1000, "gid": 100, "nonce": b"n"}
    return TokenClaims(**(values | changes))  # type: ignore[arg-type]


def test_key_file_keeps_the_key_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    key = new_cluster_key("gamma", 3)
    write_cluster_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_cluster_key(path) == key
    with pytest.raises(FileExistsError):
        write_cluster_key(path, key)


def test_key_file_readable_by_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    write_cluster_key(path, KEY)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_cluster_key(path)


@pytest.mark.parametrize("text", ["", "cluster = x\n", "cluster=a\nkey_id=1\nsecret=00\n", "\xff\xfe"])
def test_key_file_with_bad_content_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"cluster\.key"):
        read_cluster_key(path)


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="nowhere"):
        read_cluster_key(tmp_path / "nowhere")


def test_secrets_are_not_shown() -> None:
    assert KEY.secret.hex() not in repr(KEY) and "secret" not in repr(KEY)
    token = make_token(KEY, _claims())
    assert "secret" not in repr(token)


def test_derived_keys_differ_by_purpose_cluster_and_key() -> None:
    keys = {KEY.derive("a"), KEY.derive("b"), OTHER_CLUSTER.derive("a"), replace(KEY, key_id=2).derive("a")}
    assert len(keys) == 4


@given(st.binary(max_size=64), st.binary(max_size=9), st.lists(st.binary(max_size=200), max_size=4))
def test_a_prover_makes_the_same_proofs(key: bytes, purpose: bytes, parts: list[bytes]) -> None:
    for shared in range(len(parts) + 1):
        prover = Prover(key, purpose, *parts[:shared])
        for _ in range(2):  # one proof leaves the next alone
            assert prover.proof(*parts[shared:]) == proof(key, purpose, *parts)


def test_proof_separates_its_parts() -> None:
    assert proof(b"k", b"p", b"ab", b"c") != proof(b"k", b"p", b"a", b"bc")


def test_token_text_round_trip() -> None:
    token = make_token(KEY, _claims(groups=(5, 6), is_admin=True, key_generation=3))
    again = parse_token(f" {token.to_text()}\n")
    assert again == token
    assert again.claims() == _claims(groups=(5, 6), is_admin=True, key_generation=3)
    assert token_secret(KEY, token.public) == token.secret
    assert token_secret(OTHER_SECRET, token.public) != token.secret


@pytest.mark.parametrize("text", ["", "fs3u1", "fs3u1..", "fs3u1.!!.!!", "fs3u2.AA.AA", "fs3u1.AAAA.AAAA"])
def test_text_that_is_no_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        parse_token(text)


@pytest.mark.parametrize("changes", [{"uid": -1}, {"gid": 1 << 32}, {"groups": tuple(range(65))}])
def test_token_ids_are_bounded(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        make_token(KEY, _claims(**changes))


def test_capability_round_trip_and_expiry() -> None:
    signer = CapabilitySigner(KEY)
    data = signer.sign(CAPABILITY)
    assert len(data) == CAPABILITY_BYTES == 64
    assert signer.verify(data, 4_999) == CAPABILITY
    with pytest.raises(CapabilityExpired):
        signer.verify(data, 5_000)


def test_capability_of_another_key() -> None:
    data = CapabilitySigner(KEY).sign(CAPABILITY)
    for key in (OTHER_SECRET, OTHER_CLUSTER):
        with pytest.raises(Unauthenticated):
            CapabilitySigner(key).verify(data, 0)
    with pytest.raises(CapabilityExpired):
        CapabilitySigner(replace(KEY, key_id=2)).verify(data, 0)


@given(st.integers(0, CAPABILITY_BYTES * 8 - 1))
def test_capability_with_one_bit_flipped(bit: int) -> None:
    data = bytearray(CapabilitySigner(KEY).sign(CAPABILITY))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Unauthenticated, CapabilityExpired)):
        CapabilitySigner(KEY).verify(bytes(data), 0)


def test_datagram_round_trip() -> None:
    signer = DatagramSigner(KEY)
    assert signer.open(signer.seal(DATAGRAM)) == DATAGRAM


def test_datagram_of_others() -> None:
    data = DatagramSigner(KEY).seal(DATAGRAM)
    with pytest.raises(Unauthenticated):
        DatagramSigner(OTHER_SECRET).open(data)
    with pytest.raises(WrongCluster):
        DatagramSigner(OTHER_CLUSTER).open(data)


def test_datagram_too_long() -> None:
    with pytest.raises(InvalidRequest):
        DatagramSigner(KEY).seal(msgspec.structs.replace(DATAGRAM, body=bytes(60_000)))


@given(st.integers(0, 69 * 8 - 1))
def test_datagram_with_one_bit_flipped(bit: int) -> None:
    data = bytearray(DatagramSigner(KEY).seal(DATAGRAM))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Fs3Error):
        DatagramSigner(KEY).open(bytes(data))


@given(st.binary(max_size=200))
def test_datagram_of_any_bytes(data: bytes) -> None:
    with pytest.raises(Fs3Error):
        DatagramSigner(KEY).open(data)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3 * WINDOW)), max_size=60))
def test_replay_window_accepts_each_once(arrivals: list[tuple[int, int]]) -> None:
    window = ReplayWindow()
    seen: dict[tuple[int, int], None] = {}
    newest = -1
    for generation, sequence in arrivals:
        highest = max((s for g, s in seen if g == generation), default=-1)
        newest_before = newest
        fresh = window.accept(generation, sequence)
        if (generation, sequence) in seen or generation < newest_before or sequence <= highest - WINDOW:
            assert not fresh
        else:
            assert fresh
            newest = max(newest, generation)
            seen[generation, sequence] = None
