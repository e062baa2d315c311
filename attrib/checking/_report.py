"""What a check found, as plain data that prints as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Counterexample", "Finding", "Report", "Verdict"]

Verdict: TypeAlias = Literal["holds", "fails", "not applicable"]
"""What can be said of a law."""


class Counterexample(NamedTuple):
    """The number by which a law fails most.

    Attributes:
        leaf: Which leaf of the attribution, written as the one of ``x`` that it belongs to.
        row: Which example, one index for each batch dimension.
        feature: Which feature of it; ``None`` if the number belongs to the whole example.
        found: The number.
        expected: What it should be.
    """

    leaf: str
    row: tuple[int, ...]
    feature: tuple[int, ...] | None
    found: float
    expected: float

    def __str__(self) -> str:
        where = self.leaf
        if self.row:
            where += f", row {', '.join(map(str, self.row))}"
        if self.feature:
            where += f", feature {', '.join(map(str, self.feature))}"
        return f"{where}: {self.found:.9g} instead of {self.expected:.9g}"


@dataclass(frozen=True)
class Finding:
    """What was found about one law.

    Attributes:
        law: Its name, a key of `attrib.checking.LAWS`.
        verdict: ``"holds"``, ``"fails"`` or ``"not applicable"``.
        gap: By how much it was missed, in the unit that the law says; ``None`` if not measured.
        tolerance: The largest gap with which it holds.
        note: Why it is not applicable, or what else there is to say about a failure.
        counterexample: The number by which it fails most.
    """

    law: str
    verdict: Verdict
    gap: float | None = None
    tolerance: float | None = None
    note: str = ""
    counterexample: Counterexample | None = None


@dataclass(frozen=True)
class Report:
    """The findings of a check, one for each law; true where no law fails.

    Attributes:
        findings: In the order of `attrib.checking.LAWS`.
    """

    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings of laws that fail."""
        return tuple(finding for finding in self if finding.verdict == "fails")

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The findings by law, as plain dicts."""
        return {finding.law: asdict(finding) for finding in self}

    def __bool__(self) -> bool:
        return not self.failures

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, law: str) -> Finding:
        return {finding.law: finding for finding in self}[law]

    def __str__(self) -> str:
        rows = [("law", "verdict", "gap", "tolerance", ""), *map(_row, self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        return "\n".join(
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
            for row in rows
        )


def _row(finding: Finding) -> tuple[str, ...]:
    said = [str(finding.counterexample)] if finding.counterexample else []
    return (
        finding.law,
        finding.verdict,
        *(("" if v is None else f"{v:.2g}") for v in (finding.gap, finding.tolerance)),
        "; ".join([*said, *filter(None, [finding.note])]),
    )
