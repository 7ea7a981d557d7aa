"""Every mistake still fits the product's source, and has judges; the loader does what it says."""

from __future__ import annotations

import pytest

from .__main__ import chosen
from .child import is_broken
from .judging import ROOT, Job, Kind, Result, Verdict, control_jobs, jobs_of, run_job
from .mistake import DoesNotApply, Edit, Mistake, changed
from .report import DOCS, Findings, rows_of
from .table import COMPULSORY, MISTAKES

NAMES = sorted(MISTAKES)


@pytest.mark.parametrize("name", NAMES)
def test_it_applies_once_and_compiles(name: str) -> None:
    sources: dict[str, str] = {}
    for edit in MISTAKES[name].edits:
        source = sources.get(edit.path) or (ROOT / edit.path).read_text()
        sources[edit.path] = changed(source, edit)
        assert sources[edit.path] != source
    for path, source in sources.items():
        compile(source, path, "exec", dont_inherit=True)


def test_what_must_be_there_is_there() -> None:
    missing = {rule: names for rule, names in COMPULSORY.items() if any(n not in MISTAKES for n in names)}
    assert not missing
    own = set(MISTAKES) - {name for names in COMPULSORY.values() for name in names}
    assert len(own) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_its_judges_are_there(name: str) -> None:
    mistake = MISTAKES[name]
    assert mistake.aimed or mistake.walks, "chance alone is no judge"
    for test in mistake.aimed:
        path, *function = test.split("::")
        text = (ROOT / path).read_text()
        for part in function:
            assert f"def {part.split('[')[0]}(" in text, test
    for walks in mistake.walks:
        assert walks.model in ("chain", "lease") and walks.count > 0


def test_the_page_has_a_row_for_each() -> None:
    assert rows_of(DOCS.read_text()) == {m.name: m.rule for m in MISTAKES.values()}, (
        "make mutants ARGS=--docs writes the table"
    )


def test_text_that_is_not_there_once_is_told() -> None:
    edit = Edit("storage/gate.py", "x = 1", "x = 2")
    for source in ("y = 1", "x = 1; x = 1"):
        with pytest.raises(DoesNotApply):
            changed(source, edit)


def test_jobs_are_ordered_by_cost_and_checked_without_the_mistake() -> None:
    for mistake in MISTAKES.values():
        kinds = [job.kind for job in jobs_of(mistake)]
        assert kinds == sorted(kinds, key=list(Kind).index)
    some: list[Mistake] = [m for m in MISTAKES.values() if m.walks][:3]
    tests = {test for m in some for test in m.aimed}
    control = control_jobs(some, 0, 4)
    assert {test for job in control for test in job.tests} == tests
    assert sum(job.count for job in control if job.kind is Kind.SEEDS) == 4


def test_a_mistake_is_seen_in_its_process_and_nowhere_else() -> None:
    name = "lease counted from receipt"
    job = jobs_of(MISTAKES[name])[0]
    before = (ROOT / MISTAKES[name].edits[0].path).read_bytes()
    assert run_job(job, name).verdict is Verdict.CAUGHT
    assert run_job(job, None).verdict is Verdict.MISSED
    assert (ROOT / MISTAKES[name].edits[0].path).read_bytes() == before


def test_a_judge_that_does_not_import_the_module_has_not_seen_it() -> None:
    job = jobs_of(MISTAKES["lease counted from receipt"])[0]
    result = run_job(job, "spill without intent")
    assert result.verdict is Verdict.UNSEEN and "fs3.meta.ops.spill" in result.detail


def test_a_mistake_that_cannot_run_is_nobodys_finding() -> None:
    assert is_broken("test_x: NameError: name 'y' is not defined")
    assert is_broken("3: UnboundLocalError: cannot access local variable")
    assert not is_broken("test_x: AssertionError: assert [] == [1]")


def test_what_a_run_fails_for() -> None:
    mistake = MISTAKES["version reused"]
    aimed, walks = (next(job for job in jobs_of(mistake) if job.kind is kind) for kind in list(Kind)[:2])
    caught, missed = Result(Verdict.CAUGHT, 1, "test_x: it is wrong"), Result(Verdict.MISSED, 1)

    def problems(of_aimed: Result, of_walks: Result, control: Result = missed) -> list[str]:
        found: list[tuple[str | None, Job, Result]] = [(None, walks, control)]
        found += [(mistake.name, aimed, of_aimed), (mistake.name, walks, of_walks)]
        return Findings(found, [mistake]).problems

    assert problems(caught, caught) == problems(caught, missed) == []
    assert ["does not notice" in text for text in problems(missed, caught)] == [True]
    assert problems(missed, missed)[0] == f"nobody noticed: {mistake.name}"
    assert "has not seen it" in problems(caught, Result(Verdict.UNSEEN))[0]
    assert problems(caught, caught, caught)[0].startswith("without a mistake, walks")
    assert problems(caught, caught, Result(Verdict.MISSED, 0, "not finished")), "a control that did not end"


def test_a_wrong_name_is_told() -> None:
    with pytest.raises(SystemExit, match="no mistake is called"):
        chosen(["no such mistake"])
    assert [mistake.name for mistake in chosen(["version reused"])] == ["version reused"]
