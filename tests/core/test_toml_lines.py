"""Lines of keys: by hand for the traps, by Hypothesis against text whose lines are known."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.toml_lines import KeyPath, line_of, locate

TRAPS = '''# comment = 1
a = 1
"quoted key" = """
b = 2
[not.a.table] ""\\""""
c.d = [ # not = 3
  "]", ']',
  4,
]
[table]
e = { f = 1, g = [1] } # inline
[[list]]
h = "#"
[[list]]
h = \'\'\'
h = 3\'\'\'
[list.sub]
i = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("quoted key",), 3),
        (("c",), 6),
        (("c", "d"), 6),
        (("table",), 10),
        (("table", "e"), 11),
        (("list", 0), 12),
        (("list", 0, "h"), 13),
        (("list", 1, "h"), 15),
        (("list", 1, "sub", "i"), 18),
    ],
)
def test_traps(path: KeyPath, line: int) -> None:
    tomllib.loads(TRAPS)
    assert locate(TRAPS)[path] == line


def test_a_key_that_has_no_line_of_its_own_gets_that_of_what_is_around_it() -> None:
    lines = locate(TRAPS)
    assert line_of(lines, ("table", "e", "f", "x")) == 11
    assert line_of(lines, ("list", 1, "absent")) == 14
    assert line_of(lines, ("absent",)) == 1


VALUES = st.sampled_from(
    ["1", '"x # = ["', "'['", '"""\n[t]\nk = 1\n"""', "[1,\n2, # ]\n3]", "{ a = [1], b = '}' }", "1979-05-27"]
)


@given(st.lists(st.tuples(VALUES, st.sampled_from(["", "\n", "# [x]\n", "\r\n"])), max_size=12))
def test_every_key_is_found_at_its_line(statements: list[tuple[str, str]]) -> None:
    text, expected = "", {}
    for number, (value, gap) in enumerate(statements):
        text += gap
        expected[(f"key{number}",)] = text.count("\n") + 1
        text += f"key{number} = {value}\n"
    tomllib.loads(text)
    assert locate(text) == expected
