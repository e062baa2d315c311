"""Which laws an attribution keeps on a user's own model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from attrib._checks import check_choice, check_number
from attrib._tree import leaves
from attrib.checking import _of_calls, _of_scores
from attrib.checking._report import Finding, Report
from attrib.checking._state import attempt
from attrib.checking._subject import NotApplicable, Outcome, Subject, draws, examine, raised
from attrib.errors import AttribTypeError
from attrib.types import Attribute, Score, Tree

__all__ = ["LAWS", "check"]


class _Law(NamedTuple):
    """How a law is measured.

    Attributes:
        measure: Gives the gap.
        single: The largest gap in float32 with which it holds.
        double: The same in float64.
        compares: Whether it compares attributions, which must be numbers that come again.
        moves: Whether entries or examples change places, so that random numbers fall on others.
    """

    measure: Callable[[Subject], Outcome]
    single: float = 0.0
    double: float = 0.0
    compares: bool = True
    moves: bool = False


_LAWS: dict[str, _Law] = {
    "finite": _Law(_of_calls.finite, compares=False),
    "dtype": _Law(_of_calls.dtype, compares=False),
    "determinism": _Law(_of_calls.determinism, compares=False),
    "purity": _Law(_of_calls.purity, compares=False),
    "completeness": _Law(_of_calls.completeness, 2e-5, 1e-8),
    "dummy": _Law(_of_scores.dummy, 2e-6, 1e-12),
    "symmetry": _Law(_of_scores.symmetry, 1e-5, 1e-11, moves=True),
    "linearity": _Law(_of_scores.linearity, 1e-5, 1e-11),
    "scale": _Law(_of_scores.scale),
    "negation": _Law(_of_scores.negation),
    "implementation": _Law(_of_scores.implementation, 2e-6, 1e-12),
    "affine": _Law(_of_scores.affine, 2e-5, 1e-11, moves=True),
    "antisymmetry": _Law(_of_calls.antisymmetry, 2e-5, 1e-8, moves=True),
    "permutation": _Law(_of_calls.permutation, 2e-5, 1e-12, moves=True),
    "rows": _Law(_of_calls.rows, 2e-5, 1e-12, moves=True),
    "chunks": _Law(_of_calls.chunks, 2e-5, 1e-12),
    "vmap": _Law(_of_calls.vmap, 2e-5, 1e-12),
    "derivative": _Law(_of_calls.derivative, 2e-2, 1e-4),
}

LAWS: Mapping[str, str] = MappingProxyType(
    {name: (law.measure.__doc__ or "").split("\n\n")[0] for name, law in _LAWS.items()}
)
"""The laws by name, and what they say."""

# Numbers of 16 bits agree to a few of their bits at best.
_HALF = 6e-2


def check(
    attribute: Attribute,
    f: Score,
    x: Tree,
    *args: Any,
    method: Callable[..., Attribute] | None = None,
    laws: str | Iterable[str] | None = None,
    tolerances: Mapping[str, float] | None = None,
) -> Report:
    r"""Which laws an attribution keeps, on your own model, method and data.

    Every law is an equation between attributions, and its gap is by how much it is missed: the norm
    of the difference, relative to that of the larger side, of the worst example,

    .. math:: \max_n \frac{\lVert \phi_n - \psi_n \rVert}
              {\max(\lVert \phi_n \rVert, \lVert \psi_n \rVert)}.

    The gap of completeness is relative to the largest score, that of a derivative to the slope, and
    those of the laws about numbers, dtypes and purity count what is wrong. A law that cannot be
    measured here is not applicable, and the report says why. Nothing need be known of the score:
    others are made of it by exchanging, fixing and rescaling its features, and adding it up.

    All calls start from the same global random numbers, which are put back at the end. Where two
    equal calls differ all the same, or numbers are NaN, nothing is compared.

    Args:
        attribute: Attribution function, called as ``attribute(x, *args)``.
        f: The score that it explains.
        x: What is explained. A few examples show more than one.
        *args: What else `attribute` takes: the baseline, if its second argument is called
            ``baseline``; the rest goes to the score too. A baseline left out is what the function
            says, or zero.
        method: What made `attribute`, from a score to an attribution, for the laws about other
            scores: ``attrib.saliency``, or ``lambda f: attrib.lime(f, samples=50)``. If it takes
            ``chunk_size`` or ``generator``, so that their laws are measured too.
        laws: Which of `attrib.checking.LAWS`; ``None`` means all.
        tolerances: Other tolerances, by law.

    Returns:
        A `Report`, true if no law fails. It prints as a table; ``report.failures`` holds the
        findings with the number that is off most, ``report.as_dict()`` everything.

    Raises:
        AttribTypeError: If an argument is of another type than it should be.
        AttribValueError: If a law is unknown, `x` or the attribution do not fit the score, or
            `method` gives another attribution than `attribute`.

    References:
        Sundararajan, Taly & Yan (2017), https://arxiv.org/abs/1703.01365

        Sundararajan & Najmi (2020), affine scale invariance, https://arxiv.org/abs/1908.08474

    Example:
        >>> import torch, attrib
        >>> f = lambda x: x[..., 0] * x[..., 1].sin()
        >>> x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
        >>> method = attrib.integrated_gradients
        >>> bool(check(method(f), f, x, method=method))
        True
        >>> report = check(method(f, quadrature="left"), f, x, laws="completeness")
        >>> [finding.law for finding in report.failures]
        ['completeness']
    """
    chosen = _chosen(laws)
    allowed = _tolerances(tolerances)
    subject = examine(attribute, f, x, args, method)
    if isinstance(subject, Exception):
        note = raised(subject)
        return Report(tuple(Finding(name, "fails", note=note) for name in chosen))
    reason = _incomparable(subject)
    return Report(tuple(_find(subject, name, reason, allowed.get(name)) for name in chosen))


def _find(subject: Subject, name: str, reason: str, allowed: float | None) -> Finding:
    law = _LAWS[name]
    tolerance = _tolerance(subject, law) if allowed is None else allowed
    if law.compares and reason:
        return Finding(name, "not applicable", note=reason)
    outcome = attempt(law.measure, subject)
    subject.restore()
    if isinstance(outcome, NotApplicable):
        return Finding(name, "not applicable", note=str(outcome))
    if isinstance(outcome, Exception):
        return Finding(name, "fails", None, tolerance, raised(outcome))
    if outcome.gap <= tolerance:
        return Finding(name, "holds", outcome.gap, tolerance, outcome.note)
    if law.moves and draws(subject):
        why = "the attribution draws random numbers, which fall on other entries there"
        return Finding(name, "not applicable", outcome.gap, tolerance, why)
    return Finding(name, "fails", outcome.gap, tolerance, outcome.note, outcome.counterexample)


def _incomparable(subject: Subject) -> str:
    """Why comparing two attributions would say nothing, if it would not."""
    if subject.score.numel() == 0:
        return "x holds no example"
    if any(p is not None and not bool(p.isfinite().all()) for p in leaves(subject.found)):
        return "the attribution is not finite"
    outcome = attempt(_of_calls.determinism, subject)
    if isinstance(outcome, Exception):
        return f"a second call {raised(outcome)}"
    return "" if outcome.gap == 0 else "two calls with the same x and seed differ"


def _tolerance(subject: Subject, law: _Law) -> float:
    of_dtype = {torch.float64: law.double, torch.float32: law.single}
    if subject.score.dtype in of_dtype:
        return of_dtype[subject.score.dtype]
    return _HALF if law.single > 0 else 0.0


def _chosen(laws: Any) -> list[str]:
    if laws is None:
        return list(_LAWS)
    names: Any = [laws] if isinstance(laws, str) else laws
    if not hasattr(names, "__iter__"):
        raise AttribTypeError(
            f"laws: must be names of laws, got {type(laws).__name__}; pass some of "
            "attrib.checking.LAWS",
            code="laws.type",
        )
    wanted: list[Any] = list(names)
    for name in wanted:
        check_choice(name, "laws", list(_LAWS))
    return [name for name in _LAWS if name in wanted]


def _tolerances(tolerances: Any) -> dict[str, float]:
    if tolerances is None:
        return {}
    given: Any = tolerances
    if not isinstance(given, Mapping):
        raise AttribTypeError(
            f"tolerances: must be numbers by law, got {type(tolerances).__name__}; pass a dict "
            'such as {"completeness": 0.01}',
            code="tolerances.type",
        )
    own: dict[Any, Any] = {**tolerances}
    for name in own:
        check_choice(name, "tolerances", list(_LAWS))
    return {name: check_number(value, "tolerances") for name, value in own.items()}
