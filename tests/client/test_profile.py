"""Which cluster, path and token a text names, and what is said when it names none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fs3.client.address import Address, BadAddress, parse_address
from fs3.client.profile import NoCluster, find_profile
from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, make_token

KEY = ClusterKey("alpha", 1, bytes(32))


def token(uid: int) -> str:
    return make_token(KEY, TokenClaims(cluster="alpha", key_id=1, uid=uid, gid=uid)).to_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Address()),
        ("dev", Address(name="dev")),
        ("fs3://dev", Address(name="dev")),
        ("fs3://dev/a/b", Address(name="dev", path="/a/b")),
        ("fs3:///a", Address(path="/a")),
        ("fs3://localhost/a", Address(seeds=("localhost:7300",), path="/a")),
        ("fs3://h.example:1,10.0.0.1/", Address(seeds=("h.example:1", "10.0.0.1:7300"))),
        ("fs3://[::1]:9/x%20y", Address(seeds=("[::1]:9",), path="/x y")),
        ("fs3://[::1]/", Address(seeds=("[::1]:7300",))),
        ("some/client.toml", Address(file="some/client.toml")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["fs3://h:0/", "fs3://h:x/", "fs3://a:1,,b/", "a b", "fs3://:7/"])
def test_bad_addresses_say_what_is_wrong(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


def test_a_named_cluster_and_its_token(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(f'seeds = ["h:1"]\ntoken = "{token(5)}"\n')
    (tmp_path / "t").write_text(token(7) + "\n")
    (tmp_path / "two.toml").write_text('seeds = ["i:1", "j:1"]\ntoken_file = "t"\n')
    (tmp_path / "broken.toml").write_text("seeds = 3\n")
    here = {"FS3_CONFIG_DIR": str(tmp_path)}

    def uid(where: str | None, given: str | None = None, **more: str) -> int:
        return find_profile(where, given, here | more).token.claims().uid

    assert find_profile("one", None, here).seeds == ("h:1",)
    assert (uid("one"), uid("two"), uid("fs3://two/x")) == (5, 7, 7)
    assert uid("one", token(9)) == 9
    assert uid("one", FS3_TOKEN=token(10)) == 10
    assert uid("one", FS3_TOKEN_FILE=str(tmp_path / "t")) == 7
    assert uid("fs3://j:1/") == 7  # the configured cluster that has this seed
    assert uid(None, FS3_CLUSTER="two") == 7
    assert uid(str(tmp_path / "one.toml")) == 5


@pytest.mark.parametrize(
    ("where", "number", "said"),
    [
        ("dev", errno.ENOENT, "fs3 dev up"),
        ("other", errno.ENOENT, "other.toml does not exist"),
        ("fs3://h:1/", errno.EACCES, "no token"),
        ("bad", errno.EINVAL, "bad.toml:1"),
        ("damaged", errno.EACCES, "not a user token"),
        ("empty", errno.EINVAL, "no seeds"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, where: str, number: int, said: str) -> None:
    (tmp_path / "bad.toml").write_text("sedes = []\n")
    (tmp_path / "damaged.toml").write_text('seeds = ["h:2"]\ntoken = "fs3u1.x"\n')
    (tmp_path / "empty.toml").write_text("seeds = []\n")
    with pytest.raises(NoCluster) as caught:
        find_profile(where, None, {"FS3_CONFIG_DIR": str(tmp_path)})
    assert caught.value.errno == number
    assert said in str(caught.value)
