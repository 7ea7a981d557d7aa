"""What the judges found, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .judging import ROOT, Job, Kind, Result, Verdict
from .mistake import Mistake

DOCS = ROOT / "docs" / "mutants.md"
BEGIN, END = "<!-- the table: make mutants ARGS=--docs -->", "<!-- end of the table -->"
HEAD = (
    "| mistake | breaks | aimed test | walks of a model | seeds |",
    "|---|---|---|---|---|",
)


class Findings:
    """Results by mistake, in the order of the table of mistakes."""

    def __init__(
        self, results: Sequence[tuple[str | None, Job, Result]], mistakes: Sequence[Mistake]
    ) -> None:
        self.mistakes = tuple(mistakes)
        self.control = [(job, result) for name, job, result in results if name is None]
        self.of: dict[str, list[tuple[Job, Result]]] = {mistake.name: [] for mistake in mistakes}
        for name, job, result in results:
            if name is not None:
                self.of[name].append((job, result))

    def is_caught(self, name: str) -> bool:
        """Whether anybody noticed."""
        return any(result.verdict is Verdict.CAUGHT for _, result in self.of[name])

    @property
    def uncaught(self) -> list[str]:
        """Mistakes that nobody noticed."""
        return [mistake.name for mistake in self.mistakes if not self.is_caught(mistake.name)]

    @property
    def problems(self) -> list[str]:
        """Everything for which the run fails."""
        found = [f"nobody noticed: {name}" for name in self.uncaught]
        for job, result in self.control:
            if result.verdict is not Verdict.MISSED or result.detail:
                found.append(f"without a mistake, {job.label}: {result.verdict}: {result.detail}")
        for name, results in self.of.items():
            for job, result in results:
                if result.verdict is Verdict.MISSED and job.kind is Kind.AIMED:
                    found.append(f"{name}: {job.label} does not notice it: {result.detail or 'passed'}")
                if result.verdict is Verdict.UNSEEN:
                    found.append(f"{name}: {job.label} has not seen it: {result.detail}")
        return found

    def cost_lines(self) -> list[str]:
        """What each kind of judge took, controls apart."""
        every = [(job.kind, result) for results in self.of.values() for job, result in results]
        lines = []
        for kind in Kind:
            own = [result for of, result in every if of is kind]
            control = [result for job, result in self.control if job.kind is kind]
            caught = sum(result.verdict is Verdict.CAUGHT for result in own)
            cpu_s, control_s = (sum(result.cpu_s for result in found) for found in (own, control))
            lines.append(
                f"{kind}: {caught} of {len(own)} noticed, {cpu_s:.0f} s of CPU; "
                f"without a mistake {len(control)}, {control_s:.0f} s"
            )
        return lines


def report_of(findings: Findings, first_seed: int, took_s: float) -> dict[str, Any]:
    """The keys that others read."""
    return {
        "mistakes": [
            {
                "name": mistake.name,
                "breaks": mistake.rule,
                "caught": findings.is_caught(mistake.name),
                "judges": [_judge(job, result) for job, result in findings.of[mistake.name]],
            }
            for mistake in findings.mistakes
        ],
        "uncaught": findings.uncaught,
        "without_a_mistake": [_judge(job, result) for job, result in findings.control],
        "first_seed": first_seed,
        "took_s": round(took_s, 1),
    }


def _judge(job: Job, result: Result) -> dict[str, Any]:
    return {"kind": job.kind, "what": job.label, **asdict(result)}


def table_of(findings: Findings) -> str:
    """As Markdown, a row a mistake."""
    return "\n".join((*HEAD, *(_row(mistake, findings.of[mistake.name]) for mistake in findings.mistakes)))


def _row(mistake: Mistake, results: Sequence[tuple[Job, Result]]) -> str:
    cells: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for job, result in results:
        cells[job.kind].append(_cell(job, result))
    shown = (", ".join(cells[kind]) or "–" for kind in Kind)
    return f"| {mistake.name} | {mistake.rule} | {' | '.join(shown)} |"


def _cell(job: Job, result: Result) -> str:
    is_caught = result.verdict is Verdict.CAUGHT
    if job.kind is Kind.AIMED:
        return f"`{result.detail.split(':')[0]}`" if is_caught else "not noticed"
    count = str(result.took) if is_caught else f"not in {result.took}"
    return f"{job.model} {job.focus or 'any'}: {count}" if job.kind is Kind.WALKS else count


def rows_of(text: str) -> dict[str, str]:
    """The rows of a page's table: name of the mistake → what it breaks."""
    part = text.split(BEGIN)[1].split(END)[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows[1:]}


def with_table(page: str, table: str) -> str:
    """The page with its table replaced."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"
