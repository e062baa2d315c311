"""`attrib.check` says of every method what the table of laws says."""

from __future__ import annotations

from typing import Any

import pytest

import attrib
from attrib.types import Attribute, Score
from laws.methods import METHODS, Law, MethodInfo, Sample, every
from laws.networks import data, network

# What a method claims in the table, and the law of the check that asks for it.
CLAIMED = {
    Law.COMPLETE: "completeness",
    Law.SYMMETRIC: "symmetry",
    Law.LINEAR: "linearity",
    Law.AFFINE: "affine",
    Law.ANTISYMMETRIC: "antisymmetry",
    Law.PERMUTED: "permutation",
    Law.ALONE: "rows",
    Law.VMAP: "vmap",
}
# What nobody needs to claim.
ALWAYS = {"finite", "dtype", "determinism", "purity", "derivative", "chunks"}


def checked(info: MethodInfo, **options: Any) -> attrib.checking.Report:
    """The check of a method on a smooth network."""
    drawn = Sample(*(data("tanh", seed, batch=(3,)) for seed in (1, 2, 3)))
    f = attrib.target(network("tanh", 4), 1)

    def method(f: Score) -> Attribute:
        made = info.factory(f, **info.precise)
        # The check knows a baseline by its name.
        named: dict[str, Any] = {
            "baseline": lambda x, baseline: made(x, baseline),
            "baselines": lambda x, baselines: made(x, baselines),
        }
        return named.get(info.takes, made)

    x, *args = info.arguments(drawn)
    return attrib.check(method(f), f, x, *args, method=method, **options)


def expected(info: MethodInfo) -> set[str]:
    """The laws that hold for a method by the table."""
    laws = {CLAIMED[law] for law in info.laws & set(CLAIMED)}
    laws |= {"dummy"} if info.dummies else set()
    laws |= {"scale"} if info.degree == 1 else set()
    laws |= {"negation"} if info.odd and info.degree == 1 else set()
    return laws | ALWAYS


@every()
def test_what_a_method_claims_the_check_does_not_refute(info: MethodInfo) -> None:
    refuted = {finding.law for finding in checked(info).failures}
    assert not refuted & expected(info), checked(info)


@pytest.mark.parametrize(
    ("name", "laws"),
    [
        ("smooth_grad_sq", {"scale", "linearity"}),
        ("integrated_gradients[left]", {"completeness", "antisymmetry"}),
        ("feature_ablation", {"completeness", "antisymmetry"}),
        ("guided_backprop", {"linearity", "negation"}),
    ],
)
def test_what_a_method_cannot_claim_the_check_refutes(name: str, laws: set[str]) -> None:
    info = next(info for info in METHODS if info.name == name)
    assert not laws & expected(info)
    x = data("relu", 1, batch=(3,))
    f = attrib.target(network("relu", 4), 1)
    report = attrib.check(info.factory(f), f, x, method=info.factory)
    assert laws <= {finding.law for finding in report.failures}, report
