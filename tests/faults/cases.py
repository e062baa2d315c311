"""The table of bad and odd calls, and what is right for each."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import attrib

from . import models
from .battery import Case, Equals, Passes, Problem, Raises, Refused, Right, plain
from .methods import DEFAULT, Method
from .models import Changed, Net, Two

Applies = Callable[[Method], bool]

CASES: list[Case] = []
GUIDED, HESSIANS = "guided_ig", "integrated_hessians"
TWICE = (HESSIANS, "conductance gauss-legendre")  # take second derivatives, by torch.func
INFLUENCE, NEURON = "internal_influence", "neuron_conductance"
EXCITATION = "excitation_backprop"
BLACK_BOX = ("completeness", "infidelity")  # measures that look at what a score says alone
MEASURES = (*BLACK_BOX, "max_sensitivity")

ONCE = 5
"""Calls before a refusal that needs an output of the model: a probe for every level of nesting."""


def add(
    group: str,
    name: str,
    fault: Callable[[], Problem],
    right: Right | Callable[[Method], Right],
    applies: Applies = lambda m: True,
    **more: Any,
) -> None:
    """Add a row."""
    CASES.append(Case(name, group, fault, right, applies, **more))


def like(sane: Callable[[], Problem], **more: Any) -> Equals:
    """As the answer to another problem."""
    return Equals(lambda m: sane(), **more)


def changed(**values: Any) -> Problem:
    """A correct call with some things changed."""
    problem = plain()
    for name, value in values.items():
        setattr(problem, name, value)
    return problem


def scored(own: Any, score: Callable[..., Tensor], **values: Any) -> Problem:
    """A correct call with a score that closes over something."""
    return changed(score=lambda x, *args: score(own, x, *args), watch=[own], **values)


def has(*options: str) -> Applies:
    """Methods that know all of these options."""
    return lambda m: all(m.knows(option) for option in options)


def is_not(*names: str) -> Applies:
    """All methods but these."""
    return lambda m: m.name not in names


def takes_baseline(m: Method) -> bool:
    """Methods with one baseline."""
    return m.base == "baseline"


def takes_baselines(m: Method) -> bool:
    """Methods with a set of baselines."""
    return m.base == "baselines"


def uses_gradients(m: Method) -> bool:
    """Methods that differentiate."""
    return m.name not in (*BLACK_BOX, "rise") and not (hides(m) or evaluates(m))


def evaluates(m: Method) -> bool:
    """Methods at sites that compare evaluations, or read."""
    return m.name in ("score_cam", "ablation_cam", "activation_patching") or reads(m)


def reads(m: Method) -> bool:
    """Methods that look at what a model computes on the way, whatever comes out."""
    return m.name in ("eigen_cam", "attention_rollout")


def maps(m: Method) -> bool:
    """Class activation maps, which have places."""
    return "_cam" in m.name


def needs_no_features(m: Method) -> bool:
    """Methods that need no dimension of features."""
    return m.name not in ("blur_ig", "activation_patching", "rise") and not maps(m)


def weighs_maps(m: Method) -> bool:
    """Those by derivatives of the score by a layer."""
    return maps(m) and not evaluates(m) and m.name != "guided_grad_cam"


def hides(m: Method) -> bool:
    """Methods that hide features, which may be integers."""
    kinds = ("feature_", "shapley", "kernel_shap", "banzhaf", "lime", "owen", "interactions")
    return any(name in m.name for name in kinds)


def mixes(m: Method) -> bool:
    """Methods whose rows have a layer made of all of x."""
    return m.name in ("score_cam", "eigen_cam") or attends(m)


def attends(m: Method) -> bool:
    """Methods of attention, here among all features of x."""
    return m.name in ("attention_rollout", "gradient_rollout")


def over_targets(m: Method) -> bool:
    """Methods that map over targets, by a transform if gradients are recorded."""
    return m.name.startswith("per_target")


def in_a_row(m: Method) -> bool:
    """Methods whose rows join all features of x, for which the score is evaluated beforehand."""
    return attends(m) or m.name.startswith("edge_")


def draws_coalitions(m: Method) -> bool:
    """Methods that hide random features: with more features they draw others."""
    drawing = ("shapley_sampling", "kernel_shap", "lime", "owen_values", "interactions", "rise")
    return m.name in drawing


def takes_site(m: Method) -> bool:
    """Methods that look at what passes a site."""
    return m.knows("site")


def may_embed(m: Method) -> bool:
    """Methods to which x may be integers, because they differentiate by what a site makes of it."""
    at_sites = "gradient_x_activation", "attribution_patching"
    if m.name.startswith("layer ") or m.name in at_sites:
        return True
    return weighs_maps(m) or in_a_row(m)


def takes_score(m: Method) -> bool:
    """Methods that are made from a score."""
    return not m.targets


def by_rules(m: Method) -> bool:
    """Methods that follow a model operation by operation."""
    return m.name in ("guided_backprop", "deconvolution") or compares(m) or propagates(m)


def propagates(m: Method) -> bool:
    """Methods that propagate relevance."""
    return m.name.startswith("lrp") or m.name == EXCITATION


def compares(m: Method) -> bool:
    """Methods that compare a model with itself at a baseline."""
    return "deep_lift" in m.name or "secant" in m.name


_VOCABULARY = torch.tensor([0.5, -1.0, 2.0, 4.0])
_TOKENS = torch.tensor([[0, 1, 2], [3, 3, 1]])
_MASK_TOKENS = torch.tensor([[2, 2, 2]])


def X() -> Tensor:
    """The input of the plain problem."""
    return plain().x


# ---------------------------------------------------------------------------------------- values


def _with_row(value: float, model: Any = None) -> Callable[[], Problem]:
    def problem() -> Problem:
        x = X()
        x[1, 2] = value
        return changed(model=model or Net(relu=True), x=x)

    return problem


def _broken(rows: slice) -> Callable[[Method, Any], Any]:
    def then(method: Method, answer: Any) -> Any:
        def fill(leaf: Tensor) -> Tensor:
            filled = leaf.detach().clone()
            (filled.movedim(1, 0) if method.targets else filled)[rows] = math.nan
            return filled

        return pytree.tree_map(fill, answer)

    return then


def _reports(m: Method) -> tuple[type[Warning], ...]:
    return () if m.name == "attention_rollout" else (attrib.NonFiniteWarning,)


for _value in (math.nan, math.inf, -math.inf):
    add(
        "values",
        f"{_value} in one row",
        _with_row(_value),
        lambda m: Equals(
            lambda m: changed(model=Net(relu=True)), then=_broken(slice(1, 2)), warns=_reports(m)
        ),
        # The score that grad_and_score also returns may be infinite, which is not NaN; and what one
        # feature adds to the baseline does not depend on the others.
        lambda m: m.name not in ("grad_and_score", "feature_inclusion"),
    )


def _nan_parameter() -> Problem:
    model = Net(relu=True)
    with torch.no_grad():
        model.out.bias.fill_(math.nan)
    return changed(model=model)


add(
    "values",
    "NaN parameter",
    _nan_parameter,
    lambda m: Equals(lambda m: plain(), then=_broken(slice(None)), warns=_reports(m)),
)
add(
    "values",
    "infinite score of one row",
    lambda: changed(
        model=Changed(after=lambda out: out / (torch.arange(len(out)) % 3 != 1)[:, None])
    ),
    lambda m: Equals(lambda m: plain(), then=_broken(slice(1, 2)), warns=_reports(m)),
    # Baselines that all examples share are rows of their own, and have places of their own.
    is_not("grad_and_score", "expected deep_lift", "attention_rollout"),
)
add(
    "values",
    "NaN baseline",
    lambda: changed(base=torch.full((3, 4), math.nan)),
    lambda m: Equals(lambda m: plain(), then=_broken(slice(None)), warns=_reports(m)),
    takes_baseline,
)
add(
    "values",
    "NaN baselines",
    lambda: changed(base=torch.full((2, 4), math.nan)),
    lambda m: Equals(lambda m: plain(), then=_broken(slice(None)), warns=_reports(m)),
    takes_baselines,
)

# ---------------------------------------------------------------------------------------- inputs

add(
    "inputs",
    "empty batch",
    lambda: changed(x=torch.zeros(0, 4)),
    Equals(lambda m: plain(), then=lambda m, a: _rows(m, a, slice(0, 0))),
)
add(
    "inputs",
    "integers",
    lambda: changed(x=torch.arange(12).reshape(3, 4)),
    Refused("x.dtype", "x: .*int64.*floating", TypeError),
    lambda m: uses_gradients(m) and not may_embed(m),
)
add(
    "inputs",
    "booleans",
    lambda: changed(x=torch.ones(3, 4, dtype=torch.bool)),
    Refused("x.dtype", "x: .*bool.*floating", TypeError),
    lambda m: uses_gradients(m) and not may_embed(m),
)
add(
    "inputs",
    "complex",
    lambda: changed(x=torch.randn(3, 4, dtype=torch.complex64), base=torch.zeros(2, 4)),
    Refused("x.dtype", "x: complex.*complex64.*view_as_real", TypeError),
)
add(
    "inputs",
    "complex in the second leaf",
    lambda: changed(model=Two(), x=(X(), X().to(torch.complex64))),
    Refused("x.dtype", r"x\[1\]: complex.*complex64", TypeError),
    takes_baseline,
)
add(
    "inputs",
    "sparse",
    lambda: changed(x=X().to_sparse(), base=torch.zeros(2, 4)),
    Refused("x.layout", "x: .*dense.*sparse_coo.*to_dense", TypeError),
)
add(
    "inputs",
    "sparse csr",
    lambda: changed(x=_csr(), base=torch.zeros(2, 4)),
    Refused("x.layout", "x: .*dense.*sparse_csr.*to_dense", TypeError),
)
for _name, _thing in {
    "numpy": np.ones((3, 4), dtype=np.float32),
    "number": 1.5,
    "string": "a photo",
    "list of numbers": [1.0, 2.0],
    "an object": object(),
}.items():
    add(
        "inputs",
        f"{_name} for x",
        lambda thing=_thing: changed(x=thing, base=torch.zeros(2, 4)),
        Refused(
            "x.type", r"x(\[0\])?: must be a tensor, got (ndarray|float|str|object)", TypeError
        ),
    )
for _name, _thing in {"None": None, "empty tuple": (), "empty dict": {}}.items():
    add(
        "inputs",
        f"{_name} for x",
        lambda thing=_thing: changed(x=thing, base=torch.zeros(2, 4)),
        Refused("x.type", r"x: must hold at least one tensor, got (NoneType|\(\)|\{\})", TypeError),
    )
add(
    "inputs",
    "list of tensors",
    lambda: changed(model=Two(), x=[X(), X() + 1]),
    Equals(lambda m: changed(model=Two(), x=(X(), X() + 1)), then=lambda m, a: _as_lists(a)),
    is_not(HESSIANS, "grad_and_score", *MEASURES),
)
for _dtype in (torch.bfloat16, torch.float16):
    add(
        "inputs",
        str(_dtype),
        lambda dtype=_dtype: changed(model=Net().to(dtype), x=X().to(dtype)),
        Equals(
            lambda m: plain(),
            then=lambda m, a, d=_dtype: pytree.tree_map(lambda t: t.to(d), a),
            loose=True,
        ),
        # Another dtype draws other noise.
        lambda m: not ({"std", "radius", "samples"} & m.options.keys()),
    )
add(
    "inputs",
    "float64",
    lambda: changed(model=Net().double(), x=X().double()),
    Equals(lambda m: plain(), then=lambda m, a: pytree.tree_map(lambda t: t.double(), a)),
    lambda m: not ({"std", "radius", "samples"} & m.options.keys()),
)
add("inputs", "non-contiguous", lambda: changed(x=X().T.contiguous().T), like(plain))
add("inputs", "a view with an offset and a stride", lambda: changed(x=_strided(X())), like(plain))
add(
    "inputs",
    "expanded",
    lambda: changed(x=X()[:1].expand(3, 4)),
    like(lambda: changed(x=X()[:1].repeat(3, 1))),
)
add(
    "inputs",
    "negative bit",
    lambda: changed(x=torch.complex(X(), -X()).conj().imag),
    like(plain),
)
add("inputs", "leaf that requires grad", lambda: changed(x=_leaf(X())), like(plain))
add("inputs", "leaf with a gradient", lambda: changed(x=_leaf(X(), grad=True)), like(plain))
add("inputs", "non-leaf", lambda: changed(x=_leaf(X()) * 1), like(plain))
add("inputs", "parameter", lambda: changed(x=nn.Parameter(X())), like(plain))
add("inputs", "inference tensor", lambda: changed(x=_inference(X())), like(plain))
add("inputs", "frozen parameters", lambda: changed(model=Net().requires_grad_(False)), like(plain))
add("inputs", "parameters with gradients", lambda: changed(model=_trained()), like(plain))
add(
    "inputs",
    "batch of one",
    lambda: changed(x=X()[:1]),
    Equals(lambda m: plain(), then=lambda m, a: _rows(m, a, slice(0, 1))),
    # Noise drawn for a batch of three is other noise, and a gap below tol is that of the worst row.
    lambda m: not ({"std", "radius", "samples", "tol"} & m.options.keys()),
)
add(
    "inputs",
    "one example without a batch",
    lambda: changed(x=X()[0]),
    Equals(lambda m: plain(), then=lambda m, a: _rows(m, a, 0)),
    lambda m: (
        m.base != "baselines"
        and not ({"std", "radius", "samples", "tol"} & m.options.keys())
        # Their rows take dimension 0 for that of the examples.
        and m.name not in ("ablation_cam", "activation_patching")
    ),
)
add(
    "inputs",
    "no dimension at all",
    lambda: changed(score=lambda x: x.sin() * 2, x=torch.tensor(0.7)),
    Equals(
        lambda m: changed(score=lambda x: x.sin().sum(-1) * 2, x=torch.tensor([0.7])),
        then=lambda m, a: pytree.tree_map(torch.Tensor.squeeze, a),
    ),
    lambda m: (
        takes_score(m)
        and needs_no_features(m)
        and m.base != "baselines"
        and m.name != "max_sensitivity"
    ),
)
add(
    "inputs",
    "one number per example",
    lambda: changed(score=lambda x: x.sin() * 2, x=torch.tensor([0.7, -0.1, 0.2])),
    Equals(
        lambda m: changed(
            score=lambda x: x.sin().sum(-1) * 2, x=torch.tensor([[0.7], [-0.1], [0.2]])
        ),
        then=lambda m, a: pytree.tree_map(torch.Tensor.squeeze, a),
    ),
    lambda m: takes_score(m) and needs_no_features(m),
)
add(
    "inputs",
    "one feature",
    lambda: changed(model=Net(features=1), x=X()[:, :1]),
    like(lambda: scored(Net(features=1), lambda net, x: net(x)[..., 1], x=X()[:, :1])),
    takes_score,
)
add(
    "inputs",
    "tuple of two",
    lambda: changed(model=Two(), x=(X(), X() + 1)),
    like(lambda: scored(Two(), lambda net, x: net(*x)[..., 1], x=(X(), X() + 1))),
    takes_score,
)
add(
    "inputs",
    "dict with an integer leaf",
    lambda: changed(
        model=models.Named(), x={"values": X(), "mask": torch.ones(3, 4, dtype=torch.int64)}
    ),
    Equals(
        lambda m: changed(model=models.Named(), x={"values": X()}), then=lambda m, a: _with_none(a)
    ),
    lambda m: not hides(m),
)
add(
    "inputs",
    "tokens, hidden by another one",
    lambda: scored(_VOCABULARY, lambda table, x: table[x].sum(-1), x=_TOKENS, base=_MASK_TOKENS),
    like(
        lambda: scored(
            None,
            lambda _, x: x.sum(-1),
            x=_VOCABULARY[_TOKENS],
            base=_VOCABULARY[_MASK_TOKENS],
        )
    ),
    lambda m: hides(m) and takes_score(m),
)
for _name, _base in {"a fraction": 0.5, "infinite": -math.inf, "floats": torch.zeros(3)}.items():
    add(
        "inputs",
        f"tokens, hidden by a baseline that is {_name}",
        lambda base=_base: scored(
            _VOCABULARY, lambda table, x: table[x].sum(-1), x=_TOKENS, base=base
        ),
        Refused("baseline.dtype", "baseline: .*integers.*got.*int64", TypeError),
        lambda m: hides(m) and takes_baseline(m),
    )
add(
    "inputs",
    "dict with an absent leaf",
    lambda: changed(model=models.Named(), x={"values": X(), "mask": None}),
    Equals(
        lambda m: changed(model=models.Named(), x={"values": X()}), then=lambda m, a: _with_none(a)
    ),
)
add(
    "inputs",
    "dict with an absent leaf first",
    lambda: changed(model=models.Named(), x={"mask": None, "values": X()}),
    Equals(
        lambda m: changed(model=models.Named(), x={"values": X()}),
        then=lambda m, a: _with_none(a, first=True),
    ),
)
add(
    "inputs",
    "the same tensor twice",
    lambda: _aliased(),
    like(lambda: changed(model=Two(), x=(X(), X()))),
)
add(
    "inputs",
    "the same tensor as input and argument",
    lambda: _aliased(argument=True),
    like(lambda: changed(model=Two(), args=(X(),))),
)
add(
    "inputs",
    "views of one tensor",
    lambda: _views(),
    like(lambda: changed(model=Two(), x=(X(), X().flip(0)))),
)
add(
    "inputs",
    "unused leaf",
    lambda: changed(model=Changed(), x=(X(), X() + 1)),
    Equals(lambda m: plain(), then=lambda m, a: _with_zeros(m, a)),
    lambda m: (
        m.name not in (HESSIANS, GUIDED, "grad_and_score", "completeness")
        and not ({"std", "radius"} & m.options.keys())
        and not (draws_coalitions(m) or mixes(m))
    ),
)
add(
    "inputs",
    "leaves with different batches",
    lambda: scored(
        Net(), lambda net, x: net(x[0])[..., 1] + net(x[1]).sum(), x=(X(), X()[:2]), base=0.25
    ),
    Refused(
        "score.shape",
        r"one number per example, got shape \(.*\) for x of shape .*\(2, 4\)",
        calls=8,
    ),
    lambda m: (
        takes_score(m)
        and uses_gradients(m)
        and m.base != "baselines"
        and not (takes_site(m) or in_a_row(m))
    ),
)

# ------------------------------------------------------------------------------------- baselines

for _name, _base, _right in (
    (
        "wrong features",
        torch.zeros(3, 5),
        Refused("baseline.shape", r"baseline: .*\(3, 5\).*\(3, 4\)"),
    ),
    (
        "wrong batch",
        torch.zeros(2, 4),
        Refused("baseline.shape", r"baseline: .*\(2, 4\).*\(3, 4\)"),
    ),
    (
        "wrong features, batch of one",
        torch.zeros(1, 5),
        Refused("baseline.shape", r"\(1, 5\).*\(3, 4\)"),
    ),
    (
        "one dimension too many",
        torch.zeros(1, 3, 4),
        Refused("baseline.shape", r"\(1, 3, 4\).*\(3, 4\)"),
    ),
    (
        "meta device",
        torch.zeros(3, 4, device="meta"),
        Refused("baseline.device", "baseline: .*meta.*cpu"),
    ),
    (
        "string",
        "black",
        Refused("baseline.type", "baseline: .*number or .*tensor, got str", TypeError),
    ),
    ("None", None, Refused("baseline.type", "baseline: .*got NoneType", TypeError)),
    ("boolean", True, Refused("baseline.type", "baseline: .*got bool", TypeError)),
    ("numpy", np.zeros((3, 4)), Refused("baseline.type", "baseline: .*got ndarray", TypeError)),
    (
        "complex",
        torch.zeros(3, 4, dtype=torch.complex64),
        Refused("baseline.type", "complex64", TypeError),
    ),
    ("function", torch.zeros_like, Refused("baseline.type", "baseline: .*got builtin", TypeError)),
    (
        "tuple for a tensor",
        (torch.zeros(3, 4), 0),
        Refused("baseline.structure", r"baseline: structure.*\(3, 4\)"),
    ),
    ("empty tuple", (), Refused("baseline.structure", "baseline: structure")),
):
    add(
        "baselines",
        f"baseline: {_name}",
        lambda base=_base: changed(base=base),
        _right,
        takes_baseline,
    )

add(
    "baselines",
    "baseline: sparse",
    lambda: changed(base=torch.zeros(3, 4).to_sparse()),
    Refused("baseline.type", "baseline: .*dense", TypeError),
    takes_baseline,
)
for _name, _base, _right in (
    ("too few", (0.0,), Refused("baseline.structure", "baseline: structure")),
    ("too many", (0.0, 0.0, 0.0), Refused("baseline.structure", "baseline: structure")),
    ("a list for a tuple", [0.0, 0.0], Refused("baseline.structure", "baseline: structure")),
    (
        "a dict for a tuple",
        {"a": 0.0, "b": 0.0},
        Refused("baseline.structure", "baseline: structure"),
    ),
    (
        "second wrong",
        (0.0, torch.zeros(5)),
        Refused("baseline.shape", r"baseline\[1\]: .*\(5,\).*\(3, 4\)"),
    ),
    (
        "second a string",
        (0.0, "black"),
        Refused("baseline.type", r"baseline\[1\]: .*got str", TypeError),
    ),
    (
        "second absent",
        (0.0, None),
        Refused("baseline.type", r"baseline\[1\]: .*NoneType", TypeError),
    ),
):
    add(
        "baselines",
        f"baseline of a tuple: {_name}",
        lambda base=_base: changed(model=Two(), x=(X(), X() + 1), base=base),
        _right,
        takes_baseline,
    )

for _name, _base, _full in (
    ("a number", 0.5, torch.full((3, 4), 0.5)),
    ("an integer", 1, torch.ones(3, 4)),
    ("a tensor without dimensions", torch.tensor(0.5), torch.full((3, 4), 0.5)),
    ("one column", torch.arange(3.0)[:, None], torch.arange(3.0)[:, None].repeat(1, 4)),
    ("one row", torch.arange(4.0)[None], torch.arange(4.0).repeat(3, 1)),
    ("without a batch", torch.arange(4.0), torch.arange(4.0).repeat(3, 1)),
    ("float64", torch.full((3, 4), 0.5, dtype=torch.float64), torch.full((3, 4), 0.5)),
    ("integers", torch.ones(3, 4, dtype=torch.int64), torch.ones(3, 4)),
    ("bf16", torch.full((3, 4), 0.5, dtype=torch.bfloat16), torch.full((3, 4), 0.5)),
    ("numpy scalar", np.float64(0.5), torch.full((3, 4), 0.5)),
    ("expanded", torch.tensor(0.5).expand(3, 4), torch.full((3, 4), 0.5)),
):
    add(
        "baselines",
        f"baseline: {_name}",
        lambda base=_base: changed(base=base),
        like(lambda full=_full: changed(base=full.clone())),
        takes_baseline,
    )
add(
    "baselines",
    "baseline: inference tensor",
    lambda: changed(base=_inference(torch.ones(3, 4))),
    like(lambda: changed(base=torch.ones(3, 4))),
    takes_baseline,
)
add(
    "baselines",
    "baseline: requires grad",
    lambda: changed(base=_leaf(torch.ones(3, 4), grad=True)),
    like(lambda: changed(base=torch.ones(3, 4))),
    takes_baseline,
)
add(
    "baselines",
    "baseline: x itself",
    lambda: _own_baseline(),
    like(lambda: changed(base=X())),
    takes_baseline,
)
add(
    "baselines",
    "baseline: x itself gives zero",
    lambda: _own_baseline(),
    Equals(lambda m: changed(base=X()), then=lambda m, a: torch.zeros_like(a)),
    lambda m: (
        takes_baseline(m) and m.name not in ("average_gradient", "completeness", "rise", INFLUENCE)
    ),
)
for _name, _base, _right in (
    ("none at all", torch.zeros(0, 4), Refused("baselines.shape", r"baselines: .*\(0, 4\)")),
    ("wrong features", torch.zeros(2, 3), Refused("baselines.shape", r"baselines: .*\(.*3.*\)")),
    ("a number", 0, Refused("baselines.shape", "baselines: .*got int")),
    ("no dimension", torch.tensor(0.0), Refused("baselines.shape", r"baselines: .*\(\)")),
):
    add(
        "baselines",
        f"baselines: {_name}",
        lambda base=_base: changed(base=base),
        _right,
        takes_baselines,
    )
add(
    "baselines",
    "baselines: tuple for a tensor",
    lambda: changed(base=(torch.zeros(2, 4),)),
    lambda m: Refused(
        "baselines.structure" if m.name == "expected_gradients" else "baselines.shape",
        "baselines: ",
    ),
    takes_baselines,
)
add(
    "baselines",
    "baselines: string",
    lambda: changed(base="black"),
    lambda m: (
        Refused("baselines.type", "baselines: .*got str", TypeError)
        if m.name == "expected_gradients"
        else Refused("baselines.shape", "baselines: .*got str")
    ),
    takes_baselines,
)
add(
    "baselines",
    "baselines: meta device",
    lambda: changed(base=torch.zeros(2, 4, device="meta")),
    lambda m: Refused(
        "baselines.device" if m.name == "expected_gradients" or hides(m) else "baseline.device",
        "meta.*cpu",
    ),
    takes_baselines,
)
add(
    "baselines",
    "baselines: different counts",
    lambda: changed(model=Two(), x=(X(), X() + 1), base=(torch.zeros(2, 4), torch.zeros(3, 4))),
    Refused("baselines.shape", r"baselines: .*same number.*\(2, 4\).*\(3, 4\)"),
    takes_baselines,
)
add(
    "baselines",
    "baselines: one missing",
    lambda: changed(model=Two(), x=(X(), X() + 1), base=(torch.zeros(2, 4),)),
    lambda m: Refused(
        "baselines.structure" if m.name == "expected_gradients" else "baselines.shape",
        "baselines: ",
    ),
    takes_baselines,
)
for _dtype in (torch.float64, torch.int64):
    add(
        "baselines",
        f"baselines: {_dtype}",
        lambda dtype=_dtype: changed(base=torch.ones(2, 4, dtype=dtype)),
        like(lambda: changed(base=torch.ones(2, 4))),
        takes_baselines,
    )
add(
    "baselines",
    "baselines: one row",
    lambda: changed(base=torch.zeros(1, 4)),
    like(lambda: changed(base=torch.zeros(2, 4))),
    lambda m: m.name == "expected",
)

# --------------------------------------------------------------------------------------- targets

for _name, _index, _right in (
    ("out of range", 7, Refused("target.range", r"index: 7 .*3 outputs.*\[-3, 2\]", calls=ONCE)),
    ("very negative", -7, Refused("target.range", r"index: -7 .*3 outputs", calls=ONCE)),
    (
        "tensor out of range",
        torch.tensor(7),
        Refused("target.range", "index: 7 .*3 outputs", calls=ONCE),
    ),
    (
        "tensor very negative",
        torch.tensor(-7),
        Refused("target.range", "index: -7 .*3 outputs", calls=ONCE),
    ),
    (
        "one of many out of range",
        torch.tensor([0, 3, 1]),
        Refused("target.range", "index: 3 .*3 outputs", calls=ONCE),
    ),
    (
        "one of many negative",
        torch.tensor([0, -4, 1]),
        Refused("target.range", "index: -4 .*3 outputs", calls=ONCE),
    ),
    ("tuple out of range", (7,), Refused("target.range", "index: 7 .*3 outputs", calls=ONCE)),
    (
        "short tensor",
        torch.tensor([0, 1]),
        Refused("target.shape", r"index: .*\(2, classes\)", calls=ONCE),
    ),
    (
        "long tensor",
        torch.tensor([0, 1, 2, 0]),
        Refused("target.shape", r"index: .*\(4, classes\)", calls=ONCE),
    ),
    (
        "empty tensor",
        torch.tensor([], dtype=torch.int64),
        Refused("target.shape", r"index: .*\(0, classes\)", calls=ONCE),
    ),
    (
        "column",
        torch.tensor([[0], [1], [2]]),
        Refused("target.shape", r"index: .*\(3, 1\).*\(batch,\)"),
    ),
    (
        "tuple too long",
        (0, 1),
        Refused("target.shape", r"index: .*\(0, 1\).*expected an integer", calls=ONCE),
    ),
    ("empty tuple", (), Refused("target.shape", r"index: .*\(\)", calls=ONCE)),
    ("list", [0, 1, 2], Refused("target.type", "index: .*got list", TypeError)),
    ("float", 1.0, Refused("target.type", "index: .*integer, got float", TypeError)),
    ("string", "cat", Refused("target.type", "index: .*integer, got str", TypeError)),
    ("boolean", True, Refused("target.type", "index: .*integer, got bool", TypeError)),
    ("numpy array", np.array([0, 1, 2]), Refused("target.type", "index: .*got ndarray", TypeError)),
    ("tuple with a float", (0.5,), Refused("target.type", "index: .*got float", TypeError)),
    (
        "float tensor",
        torch.tensor([0.0, 1.0, 2.0]),
        Refused("target.type", "index: .*float32.*long", TypeError),
    ),
    ("mask", torch.tensor([True, False, True]), Refused("target.type", "index: .*bool", TypeError)),
    (
        "none for many outputs",
        None,
        Refused("target.missing", r"index: missing.*\(\d+, 3\).*\[-3, 2\]", calls=ONCE),
    ),
    (
        "function of nothing",
        lambda out: out.detach()[0, 0].item(),
        Refused("score.type", "f: .*tensor, got float", TypeError, calls=ONCE),
    ),
    (
        "function that selects nothing",
        lambda out: out,
        Refused("score.shape", "f: .*one number per example", calls=9),
    ),
):
    add(
        "targets",
        f"index: {_name}",
        lambda index=_index: changed(index=index),
        _right,
        lambda m, right=_right: (
            takes_score(m)
            and (uses_gradients(m) or right.code != "score.type")
            # These look at the score themselves, or have nothing to look at.
            and not ((m.name == NEURON or in_a_row(m)) and right.code == "score.type")
            and not (mixes(m) and right.calls == 9)
        ),
        modes=(False,) if "nothing" in _name and "selects" not in _name else (False, True),
    )
for _name, _index, _plain_index in (
    ("negative", -2, 1),
    ("numpy integer", np.int64(1), 1),
    ("tensor without dimensions", torch.tensor(1), 1),
    ("tensor with one entry", torch.tensor([1]), 1),
    ("tuple with one entry", (1,), 1),
    ("tensor with one entry per example", torch.tensor([1, 1, 1]), 1),
    ("negative entries", torch.tensor([-2, 1, -2]), 1),
    ("int32", torch.tensor([1, 1, 1], dtype=torch.int32), 1),
    ("uint8", torch.tensor([1, 1, 1], dtype=torch.uint8), 1),
    ("function", lambda out: out[..., 1], 1),
):
    add(
        "targets",
        f"index: {_name}",
        lambda index=_index: changed(index=index),
        like(lambda index=_plain_index: changed(index=index)),
        takes_score,
    )
add(
    "targets",
    "index: one class per example",
    lambda: changed(index=torch.tensor([2, 0, 1])),
    like(lambda: scored(Net(), lambda net, x: (net(x) * torch.eye(3)[[2, 0, 1]]).sum(-1))),
    takes_score,
)
add(
    "targets",
    "index: given for one output per example",
    lambda: changed(model=Changed(after=lambda out: out[:, 1]), index=1),
    Refused(
        "target.shape", r"index: .*1 for an output of shape \(\d+,\).*expected None", calls=ONCE
    ),
    takes_score,
)
add(
    "targets",
    "index: none for one output per example",
    lambda: changed(model=Changed(after=lambda out: out[:, 1]), index=None),
    like(plain),
    takes_score,
)
add(
    "targets",
    "index: none for one column",
    lambda: changed(model=Changed(after=lambda out: out[:, 1:2]), index=None),
    like(plain),
    takes_score,
)
add(
    "targets",
    "index: an integer for dense outputs",
    lambda: changed(model=Changed(after=lambda out: out[:, :, None].expand(-1, -1, 5)), index=1),
    Refused("target.shape", r"index: .*\(\d+, 3, 5\).*tuple of 2", calls=ONCE),
    takes_score,
)
add(
    "targets",
    "index: a tuple for dense outputs",
    lambda: changed(
        model=Changed(after=lambda out: out[:, :, None].expand(-1, -1, 5)), index=(1, -1)
    ),
    like(plain),
    takes_score,
)
for _name, _targets, _right in (
    ("none", [], Refused("targets.type", "targets: ", TypeError)),
    ("a number", 3, Refused("targets.type", "targets: .*got int", TypeError)),
    ("None", None, Refused("targets.type", "targets: .*got NoneType", TypeError)),
    ("a float", [0.5], Refused("targets.type", "targets: .*got float", TypeError)),
    ("a string", "01", Refused("targets.type", "targets: .*got str", TypeError)),
    (
        "a float tensor",
        torch.tensor([0.0, 1.0]),
        Refused("targets.type", "targets: .*float32", TypeError),
    ),
    ("a mask", torch.tensor([True, False]), Refused("targets.type", "targets: .*bool", TypeError)),
    (
        "a matrix",
        torch.tensor([[0, 1]]),
        Refused("targets.type", r"targets: .*\(1, 2\)", TypeError),
    ),
    ("out of range", [0, 7], Refused("target.range", "7 .*3 outputs", calls=ONCE)),
    ("very negative", [-7, 0], Refused("target.range", "-7 .*3 outputs", calls=ONCE)),
):
    add(
        "targets",
        f"targets: {_name}",
        lambda targets=_targets: changed(options={"targets": targets}),
        _right,
        has("targets"),
    )
for _name, _targets in {
    "a range": range(2),
    "a tuple": (0, 1),
    "a tensor": torch.tensor([0, 1]),
    "numpy integers": list(np.arange(2)),
    "a numpy array": np.arange(2),
    "int32": torch.tensor([0, 1], dtype=torch.int32),
    "negative": [-3, -2],
}.items():
    add(
        "targets",
        f"targets: {_name}",
        lambda targets=_targets: changed(options={"targets": targets}),
        like(lambda: changed(options={"targets": [0, 1]})),
        has("targets"),
    )

# --------------------------------------------------------------------------------------- outputs


def _after(after: Callable[[Tensor], Any], **more: Any) -> Callable[[], Problem]:
    return lambda: changed(model=Changed(after=after), **more)


for _name, _after_, _output in (
    ("tuple and position", lambda out: (out.exp(), out), 1),
    ("tuple and negative position", lambda out: (out, out.exp()), -2),
    ("tuple with one tensor", lambda out: (out, None), None),
    ("list with one tensor", lambda out: [out], None),
    ("dict and key", lambda out: {"a": out, "b": out.exp()}, "a"),
    ("dict with logits", lambda out: {"loss": out.exp(), "logits": out}, None),
    ("dict with one tensor", lambda out: {"scores": out, "name": "net"}, None),
    ("dict and position", lambda out: {"a": out.exp(), "b": out}, 1),
    ("dict and function", lambda out: {"a": out, "b": out}, lambda result: result["b"]),
    ("dataclass", lambda out: models.Result(out, out.exp()), None),
    ("dataclass and attribute", lambda out: models.Result(out.exp(), out), "hidden"),
    ("ModelOutput", lambda out: models.ModelOutput(logits=out, hidden=out.exp()), None),
    ("ModelOutput and key", lambda out: models.ModelOutput(logits=out.exp(), hidden=out), "hidden"),
    ("nested and function", lambda out: (out.exp(), {"heads": [out]}), lambda r: r[1]["heads"][0]),
):
    add("outputs", _name, _after(_after_, output=_output), like(plain))
_READ = {"kind": TypeError, "calls": ONCE}
for _name, _after_, _output, _right in (
    (
        "two tensors",
        lambda out: (out, out),
        None,
        Refused("model.output", "model: .*tensor, got tuple of 2.*output=", **_READ),
    ),
    (
        "two keys",
        lambda out: {"a": out, "b": out},
        None,
        Refused("model.output", "model: .*dict with a, b.*output=", **_READ),
    ),
    ("None", lambda out: None, None, Refused("model.output", "model: .*got NoneType", **_READ)),
    ("string", lambda out: "cat", None, Refused("model.output", "model: .*got str", **_READ)),
    ("number", lambda out: 1.5, None, Refused("model.output", "model: .*got float", **_READ)),
    ("empty tuple", lambda out: (), None, Refused("model.output", "model: .*got tuple", **_READ)),
    (
        "integers",
        lambda out: out.argmax(-1),
        None,
        Refused("model.output_dtype", "model: .*int64.*logit", **_READ),
    ),
    (
        "booleans",
        lambda out: out > 0,
        None,
        Refused("model.output_dtype", "model: .*bool", **_READ),
    ),
    (
        "complex",
        lambda out: torch.complex(out, out),
        None,
        Refused("model.output_dtype", "model: .*complex64", **_READ),
    ),
    (
        "no such key",
        lambda out: {"a": out},
        "b",
        Refused("output.unknown", "output: .*'b'.*dict with a", calls=ONCE),
    ),
    (
        "no such attribute",
        lambda out: models.Result(out),
        "b",
        Refused("output.unknown", "output: .*'b'.*Result with logits", calls=ONCE),
    ),
    (
        "key of a tensor",
        lambda out: out,
        "b",
        Refused("output.unknown", "output: .*'b'.*Tensor", calls=ONCE),
    ),
    (
        "no such position",
        lambda out: (out, out),
        5,
        Refused("output.unknown", "output: .*5.*tuple of 2", calls=ONCE),
    ),
    (
        "function to nothing",
        lambda out: (out, out),
        lambda r: None,
        Refused("model.output", "model: .*got NoneType", **_READ),
    ),
    (
        "not a tensor there",
        lambda out: (out, "cat"),
        1,
        Refused("model.output", "model: .*got str", **_READ),
    ),
):
    add("outputs", f"{_name}: refused", _after(_after_, output=_output), _right)
for _value in (1.5, ["logits"], True):
    add(
        "outputs",
        f"output={_value!r}: refused",
        lambda value=_value: changed(output=value),
        Refused("output.type", f"output: .*got {type(_value).__name__}", TypeError),
    )
add(
    "outputs",
    "numpy: refused",
    lambda: changed(model=Changed(after=lambda out: out.detach().numpy())),
    Refused("model.output", "model: .*got ndarray", **_READ),
    # A tensor inside of a transform has no numpy array: torch says so.
    modes=(False,),
)
add(
    "outputs",
    "one number for the batch",
    lambda: changed(model=Changed(after=lambda out: out[:, 1].sum()), index=None),
    # A probability is divided by the score, which then is that of the whole batch; maps of a whole
    # batch have places in all of it.
    like(plain),
    lambda m: (
        takes_score(m)
        and m.name not in (GUIDED, HESSIANS, EXCITATION, "grad_and_score", *BLACK_BOX)
        and not (draws_coalitions(m) or (maps(m) and m.name not in ("hires_cam", "layer_cam")))
        and m.name not in ("attention_rollout", "gradient_rollout", "activation_patching")
    ),
)

# --------------------------------------------------------------------------------------- numbers

_COUNTS = (
    (0, "range", "0.*at least", ValueError),
    (-1, "range", "-1.*at least", ValueError),
    (2.5, "type", "integer, got float", TypeError),
    ("5", "type", "integer, got str", TypeError),
    (True, "type", "integer, got bool", TypeError),
    (None, "type", "integer, got NoneType", TypeError),
    (torch.tensor([1, 2]), "type", "integer, got Tensor", TypeError),
)
_NUMBERS = (
    (-0.1, "range", "-0.1", ValueError),
    (math.nan, "range", "nan", ValueError),
    (math.inf, "range", "inf", ValueError),
    ("a", "type", "number, got str", TypeError),
    (None, "type", "number, got NoneType", TypeError),
    (True, "type", "number, got bool", TypeError),
    (1j, "type", "number, got complex", TypeError),
    (torch.zeros(4), "type", "number, got Tensor", TypeError),
)
_ABOVE_ZERO = (*_NUMBERS, (0, "range", "0.*above 0", ValueError))
_UP_TO_ONE = (*_NUMBERS, (1.5, "range", "1.5.*at most 1", ValueError))


def _to_a_number(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
    return x.sum() * alpha


def _to_a_pair(x: Tensor, baseline: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    return x * alpha, baseline


def _without_derivative(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
    return x * alpha.detach()


def _standing_still(x: Tensor, baseline: Tensor, alpha: Tensor) -> Tensor:
    return x


def _wrong(option: str, values: tuple[tuple[Any, str, str, type[Exception]], ...]) -> None:
    for value, cause, words, kind in values:
        shown = getattr(value, "__name__", None) or repr(value)
        shown = f"Tensor{tuple(value.shape)}" if isinstance(value, Tensor) else shown
        add(
            "numbers",
            f"{option}={shown}",
            lambda value=value: changed(options={option: value}),
            Refused(f"{option}.{cause}", f"{option}: .*{words}", kind),
            has(option),
        )


_wrong("steps", _COUNTS)
_wrong("samples", _COUNTS)
_wrong("chunk_size", tuple(row for row in _COUNTS if row[0] is not None and row[0] != "5"))
_wrong("chunk_size", (("all", "type", "'all'.*integer, \"auto\" or None", TypeError),))
_wrong("std", _NUMBERS)
_wrong("radius", _NUMBERS)
_wrong("tol", tuple(row for row in _ABOVE_ZERO if row[0] is not None))
_wrong("fraction", (*_ABOVE_ZERO, _UP_TO_ONE[-1]))
_wrong("max_distance", _UP_TO_ONE)
_wrong("max_sigma", _ABOVE_ZERO)
_wrong(
    "quadrature",
    (
        ("simpson", "unknown", "'simpson'.*midpoint", ValueError),
        (None, "unknown", "None.*midpoint", ValueError),
        (3, "unknown", "3.*midpoint", ValueError),
    ),
)
_wrong(
    "dims",
    (
        ((0, 1), "range", r"\(0, 1\)", ValueError),
        ((), "range", r"\(\)", ValueError),
        ((-1, -1), "range", r"\(-1, -1\)", ValueError),
        ((-3,), "range", r"\(-3,\).*\(3, 4\)", ValueError),
        (-1, "type", "got int", TypeError),
        (("width",), "type", "got str", TypeError),
        ((-1.0,), "type", "got float", TypeError),
    ),
)
_wrong(
    "generator",
    (
        (0, "type", "torch.Generator, got int", TypeError),
        ("cpu", "type", "torch.Generator, got str", TypeError),
        (np.random, "type", "torch.Generator, got module", TypeError),
    ),
)
_wrong(
    "path",
    (
        ("straight", "type", "callable, got str", TypeError),
        (_to_a_number, "shape", r"tree like x, got \(\)", ValueError),
        (_to_a_pair, "shape", "tree like x", ValueError),
        (_without_derivative, "independent", "depend on alpha", ValueError),
        (_standing_still, "independent", "depend on alpha", ValueError),
    ),
)


def _reduce_right(m: Method) -> Refused:
    if m.name == "integrated_gradients":
        return Refused("reduce.unknown", "reduce: .*attrib.total")
    return Refused("reduce.type", "reduce: .*callable, got str", TypeError)


add(
    "numbers",
    "reduce='mean'",
    lambda: changed(options={"reduce": "mean"}),
    _reduce_right,
    has("reduce"),
)
add(
    "numbers",
    "reduce=estimate without tol",
    lambda: changed(options={"reduce": attrib.estimate}),
    Refused("reduce.unknown", "reduce: .*with tol"),
    lambda m: m.name == "integrated_gradients",
)
add(
    "numbers",
    "trapezoid of one step",
    lambda: changed(options={"steps": 1, "quadrature": "trapezoid"}),
    Refused("steps.range", "steps: .*1.*at least 2"),
    lambda m: has("quadrature")(m) and not m.knows("dims") and "tol" not in m.options,
)
add(
    "numbers",
    "tol with too few steps",
    lambda: changed(options={"steps": 8, "tol": 0.1}),
    Refused("steps.range", "steps: .*8.*at least 9"),
    has("tol"),
)
add(
    "numbers",
    "tol with a quadrature",
    lambda: changed(options={"steps": 9, "tol": 0.1, "quadrature": "midpoint"}),
    Refused("quadrature.tol", "quadrature: .*'midpoint'"),
    has("tol", "quadrature"),
)
add(
    "numbers",
    "too many steps for the rule",
    lambda: changed(options={"steps": 201}),
    Refused("steps.range", "steps: .*201.*at most 200"),
    lambda m: m.name == HESSIANS,
)
for _option, _scale in (("std", (0.1, 0.2)), ("radius", {"a": 0.1})):
    add(
        "numbers",
        f"{_option} structured differently from x",
        lambda option=_option, scale=_scale: changed(options={option: scale}),
        Refused(f"{_option}.structure", f"{_option}: structure.*got \\d numbers"),
        has(_option),
    )
for _option, _value, _same in (
    ("steps", np.int64(3), 3),
    ("samples", np.int32(3), 3),
    ("chunk_size", np.int64(2), 2),
    ("chunk_size", 10_000, None),
    ("chunk_size", 1, "auto"),
    ("std", np.float64(0.1), 0.1),
    ("std", 0, 0.0),
):
    add(
        "numbers",
        f"{_option}={_value!r} is as {_same!r}",
        lambda option=_option, value=_value: changed(options={option: value}),
        like(lambda option=_option, value=_same: changed(options={option: value})),
        lambda m, option=_option: (
            m.knows(option) and not (option == "steps" and "tol" in m.options)
        ),
    )
add(
    "numbers",
    "std per leaf",
    lambda: changed(model=Two(), x=(X(), X() + 1), options={"std": (0.0, 0.0)}),
    like(lambda: changed(model=Two(), x=(X(), X() + 1), options={"std": 0.0})),
    has("std"),
)
add(
    "numbers",
    "misspelt option",
    lambda: changed(options={"n_steps": 5}),
    Raises(TypeError, "unexpected keyword argument 'n_steps'"),
)

# ----------------------------------------------------------------------------------------- model

add(
    "model",
    "dropout in train mode",
    lambda: changed(model=models.Dropped().train()),
    Refused("model.training", r"model: module 'drop' .*train mode, got Dropout.*eval\(\)"),
)
add(
    "model",
    "batch normalisation in train mode",
    lambda: changed(model=models.Normalised().train()),
    Refused("model.training", r"model: module 'norm' .*train mode, got BatchNorm1d.*eval\(\)"),
)
add(
    "model",
    "batch normalisation in train mode, stochastic",
    lambda: changed(model=models.Normalised().train(), stochastic=True),
    Refused("model.training", r"model: module 'norm' .*train mode, got BatchNorm1d.*eval\(\)"),
)
add(
    "model",
    "train mode where nothing depends on it",
    lambda: changed(model=Net().train()),
    like(plain),
)
add(
    "model",
    "train mode with inactive layers",
    lambda: changed(model=_inactive()),
    like(lambda: changed(model=models.Normalised())),
)
add(
    "model",
    "dropout, stochastic",
    lambda: changed(model=models.Dropped().train(), stochastic=True),
    like(lambda: changed(model=models.Dropped().train(), stochastic=True)),
    lambda m: not compares(m) and not propagates(m),
    # The model draws from the global generator: its own doing.
    ignore=frozenset({"torch rng"}),
)
add(
    "model",
    "dropout that rules do not know",
    lambda: changed(model=models.Dropped().train(), stochastic=True),
    Refused("rules.training", r"dropout: .*model\.eval", calls=ONCE),
    lambda m: compares(m) or propagates(m),
    ignore=frozenset({"torch rng"}),
)

_MINE = ValueError("the model's own words")


def _failing(exception: BaseException, at: int = 1) -> Callable[[], Problem]:
    return lambda: changed(model=models.Failing(exception, at=at))


add(
    "model",
    "raises at the first call",
    _failing(_MINE),
    lambda m: Passes(_MINE, note=m.points and m.name != "max_sensitivity"),
)
_interrupt = KeyboardInterrupt()
add("model", "interrupted", _failing(_interrupt), Passes(_interrupt))
_exit = SystemExit(3)
add("model", "exits", _failing(_exit), Passes(_exit))
for _second in (ValueError("second"), KeyboardInterrupt()):
    add(
        "model",
        f"{type(_second).__name__} at the second call",
        lambda exception=_second: changed(
            model=models.Failing(exception, at=2), options={"chunk_size": 1}
        ),
        Passes(_second),
        lambda m: m.points and m.knows("chunk_size"),
    )
add(
    "model",
    "raises at the second step",
    lambda: changed(model=models.Failing(_MINE, at=3)),
    Passes(_MINE),
    lambda m: m.name == GUIDED,
)
add(
    "model",
    "raises in the backward pass",
    lambda: changed(model=Changed(after=lambda out: models.FailingBackward.apply(out, [_MINE]))),
    Passes(_MINE),
    lambda m: uses_gradients(m) and not by_rules(m),
)
add(
    "model",
    "an operation of its own",
    lambda: changed(model=Changed(after=lambda out: models.FailingBackward.apply(out, [_MINE]))),
    Refused("rules.unseen", r"autograd\.Function", calls=4),
    by_rules,
)


def _without_gradient(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)[..., 1]


_INDEPENDENT = Refused("score.independent", r"f: .*not depend on x.*detach\(\)", calls=ONCE)
_UNUSED = Refused("site.unused", r"site: the score does not depend on it.*detach\(\)", calls=ONCE)


def _independent(m: Method) -> Refused:
    by_site = (
        "gradient_x_activation",
        "attribution_patching",
        INFLUENCE,
        "conductance",
        "conductance gauss-legendre",
    )
    if m.name in by_site or weighs_maps(m) or m.name.startswith(("layer ", "guided_grad_cam")):
        return _UNUSED
    # The score is evaluated beforehand.
    return replace(_UNUSED, calls=2 * ONCE) if in_a_row(m) else _INDEPENDENT


for _name, _after_ in {
    "detached output": lambda out: out.detach(),
    "output through .data": lambda out: out.data,
    "constant output": lambda out: torch.ones(len(out), 3),
}.items():
    add("model", _name, _after(_after_), _independent, uses_gradients)
for _name, _before in {
    "detached input": lambda x: x.detach(),
    "input through .data": lambda x: x.data,
    "input replaced": lambda x: torch.ones_like(x),
}.items():
    add(
        "model",
        _name,
        lambda before=_before: changed(model=Changed(before=before)),
        _independent,
        uses_gradients,
    )
add(
    "model",
    "output of the parameters alone",
    lambda: scored(Net(), lambda net, x: net(torch.ones_like(x))[..., 1]),
    _independent,
    lambda m: takes_score(m) and uses_gradients(m),
)
add(
    "model",
    "constant output that requires grad",
    lambda: scored(nn.Parameter(torch.ones(3)), lambda constant, x: constant * 2),
    _independent,
    lambda m: takes_score(m) and uses_gradients(m),
)
add(
    "model",
    "no_grad inside",
    lambda: scored(Net(), _without_gradient),
    _independent,
    lambda m: takes_score(m) and uses_gradients(m),
)
add(
    "model",
    "inference_mode inside",
    lambda: changed(model=Changed(after=_inference)),
    _independent,
    uses_gradients,
    modes=(False,),
)
add(
    "model",
    "edits its argument in place",
    lambda: changed(model=Changed(before=lambda x: x.mul_(2))),
    like(lambda: changed(model=Changed(before=lambda x: x * 2))),
)
add(
    "model",
    "edits its argument in place, plain function",
    lambda: scored(Net(), lambda net, x: net(x.mul_(2))[..., 1]),
    like(lambda: changed(model=Changed(before=lambda x: x * 2))),
    takes_score,
)
add(
    "model",
    "edits a further argument in place",
    lambda: scored(Net(), _weighted_in_place, args=(torch.ones(3, 3),)),
    like(
        lambda: scored(
            Net(), lambda net, x, w: (net(x) * (w * 2)).sum(-1), args=(torch.ones(3, 3),)
        )
    ),
    takes_score,
)
add(
    "model",
    "edits a leaf of its argument in place",
    lambda: scored(
        Two(), lambda net, x: net(x["a"].add_(1), x["b"])[..., 1], x={"a": X(), "b": X() + 1}
    ),
    like(
        lambda: scored(
            Two(), lambda net, x: net(x["a"] + 1, x["b"])[..., 1], x={"a": X(), "b": X() + 1}
        )
    ),
    takes_score,
)
add(
    "model",
    "adds a key to its argument",
    lambda: scored(Net(), _greedy, x={"a": X()}),
    like(lambda: scored(Net(), lambda net, x: net(x["a"])[..., 1], x={"a": X()})),
    takes_score,
)
add(
    "model",
    "edits an activation in place",
    lambda: changed(model=Changed(after=lambda out: out.mul_(2).add_(1))),
    like(lambda: changed(model=Changed(after=lambda out: out * 2 + 1))),
)
add(
    "model",
    "one activation module twice, in place",
    lambda: changed(model=models.Reused()),
    like(lambda: scored(Net(after=6), lambda net, x: (net(x).relu() - 0.1).relu()[..., 1])),
    takes_score,
)
add(
    "model",
    "functional activation",
    lambda: scored(Net(), _functional),
    like(lambda: changed(model=Net(relu=True))),
    takes_score,
)
add("model", "plain function", lambda: _closing_over(Net()), like(plain))
add(
    "model",
    "plain function that closes over rows",
    lambda: scored((Net(), X()[:, :3]), lambda own, x: (own[0](x) * own[1]).sum(-1)),
    like(lambda: _with_rows(Net(), X()[:, :3])),
    takes_score,
)
add(
    "model",
    "keyword-only arguments",
    lambda: changed(model=models.Named(), x={"values": X()}),
    Equals(lambda m: plain(), then=lambda m, a: _in_dict(m, a)),
    is_not(HESSIANS, *MEASURES),
)
add(
    "model",
    "forward hook",
    lambda: changed(model=_hooked("forward")),
    like(lambda: changed(model=Changed(after=lambda o: o * 2))),
)
add(
    "model",
    "forward pre-hook",
    lambda: changed(model=_hooked("pre")),
    like(lambda: changed(model=Changed(before=lambda x: x * 2))),
)
for _kind in ("backward", "backward pre"):
    add(
        "model",
        f"full {_kind}-hook",
        lambda kind=_kind: changed(model=_hooked(kind)),
        like(plain),
        lambda m: m.name not in TWICE and not over_targets(m),
    )
    add(
        "model",
        f"full {_kind}-hook, many targets",
        lambda kind=_kind: changed(model=_hooked(kind)),
        like(plain),
        over_targets,
        modes=(False,),
    )
add(
    "model",
    "full backward hook, many targets, recording gradients",
    lambda: changed(model=_hooked("backward")),
    Raises(RuntimeError, "hook|setup_context"),
    over_targets,
    modes=(True,),
)
add(
    "model",
    "checkpointing",
    lambda: changed(model=models.Checkpointed(use_reentrant=False)),
    # Evaluated again without the rules, it saves other tensors.
    lambda m: Raises(RuntimeError, "checkpoint") if compares(m) or propagates(m) else like(plain),
    lambda m: m.name not in TWICE and not (over_targets(m) and uses_gradients(m)),
    # What torch imports to tell of it, the first time.
    ignore=frozenset({"warning filters"}),
)
add(
    "model",
    "checkpointing, many targets",
    lambda: changed(model=models.Checkpointed(use_reentrant=False)),
    like(plain),
    over_targets,
    modes=(False,),
    ignore=frozenset({"warning filters"}),
)
add(
    "model",
    "reentrant checkpointing",
    lambda: changed(model=models.Checkpointed(use_reentrant=True)),
    Raises(RuntimeError, "use_reentrant|checkpoint"),
    # Those that also look at the plain score make torch warn that nothing requires a gradient.
    lambda m: (
        uses_gradients(m)
        and m.name not in (GUIDED, HESSIANS)
        and not by_rules(m)
        and not (takes_site(m) or in_a_row(m))
    ),
    modes=(False,),
)
add(
    "model",
    "recurrent kernel",
    lambda: changed(model=models.Recurrent()),
    like(lambda: changed(model=models.Recurrent(), options=_one_at_a_time)),
    has("chunk_size"),
    modes=(False,),
    ignore=frozenset({"torch rng"}),
)

# ----------------------------------------------------------------------------------------- sites


def at(site: Any, model: Any = None, **values: Any) -> Callable[[], Problem]:
    """A correct call with a site."""
    options = {"site": site, **values.pop("options", {})}
    return lambda: changed(model=Net() if model is None else model(), options=options, **values)


def tapped(function: Callable[..., Tensor], own: Callable[[], Any] = Net) -> Callable[[], Problem]:
    """A call at ``tap("h", ..)`` in functional code."""
    return lambda: scored(own(), function, options={"site": "h"})


def _site_after(net: Net, x: Tensor) -> Tensor:
    return net.out(net.activation(attrib.tap("h", net.hidden(x))))[..., 1]


for _name, _site, _right in (
    ("a number", 3, Refused("site.type", "site: .*module or a name, got int", TypeError)),
    ("none at all", [], Refused("site.type", "site: .*at least one", TypeError)),
    (
        "misspelt",
        "hiden",
        Refused("site.unknown", "site: .*'hiden'.*near names: 'hidden'", calls=ONCE),
    ),
    (
        "of another model",
        nn.Linear(4, 6),
        Refused("site.unreached", "site: never reached, got Linear", calls=ONCE),
    ),
    (
        "a position in a tensor",
        attrib.Site("hidden", leaf=1),
        Refused("site.leaf", "site: nothing at leaf 1 of 'hidden', got Tensor", calls=ONCE),
    ),
    (
        "a key of a tensor",
        attrib.Site("hidden", leaf="h"),
        Refused("site.leaf", "site: nothing at leaf 'h' of 'hidden', got Tensor", calls=ONCE),
    ),
    (
        "a call that never happens",
        attrib.Site("hidden", call=1),
        Refused("site.calls", "site: call 1 of 'hidden' never happened, got 1 call;", calls=ONCE),
    ),
):
    add("sites", _name, at(_site), _right, takes_site)
add(
    "sites",
    "never reached",
    at("unused", models.Unused),
    Refused("site.unreached", "site: never reached, got 'unused', a Linear", calls=ONCE),
    takes_site,
)
add(
    "sites",
    "a name in a score that does not tell its model",
    lambda: scored(Net(), lambda net, x: net(x)[..., 1], options={"site": "hidden"}),
    Refused("site.unknown", "site: neither .*'hidden'.*pass the module itself", calls=ONCE),
    takes_site,
)
add(
    "sites",
    "used twice",
    at("activation", models.Reused),
    Refused("site.calls", "site: reached 2 times, got 'activation'; .*call=0", calls=ONCE),
    takes_site,
)
add(
    "sites",
    "one of two uses",
    at(attrib.Site("activation", call=0), models.Reused),
    like(
        tapped(
            lambda net, x: (attrib.tap("h", net(x).relu()) - 0.1).relu()[..., 1],
            lambda: Net(after=6),
        )
    ),
    takes_site,
)
add(
    "sites",
    "written over by what follows",
    at("net.out", models.Reused),
    like(
        tapped(
            lambda net, x: (attrib.tap("h", net(x)).relu() - 0.1).relu()[..., 1],
            lambda: Net(after=6),
        )
    ),
    takes_site,
)
add(
    "sites",
    "called by keyword",
    at(attrib.Site("net", of="input"), models.ByKeyword),
    like(tapped(lambda net, x: net(attrib.tap("h", 2 * x))[..., 1])),
    takes_site,
)
add("sites", "a module", lambda: _at_module(), like(at("hidden")), takes_site)
add("sites", "a name", at("hidden"), like(tapped(_site_after)), takes_site)
add(
    "sites",
    "a module of a model in a plain function",
    lambda: _in_closure(),
    like(at("hidden")),
    takes_site,
)
add(
    "sites",
    "a module with hooks of its own",
    lambda: changed(model=_hooked("forward"), options={"site": ""}),
    like(tapped(lambda net, x: attrib.tap("h", 2 * net(x))[..., 1])),
    takes_site,
)
add(
    "sites",
    "a tree of them",
    lambda: changed(model=Two(), x=(X(), X() + 1), options={"site": {"a": "first.hidden"}}),
    Equals(
        lambda m: changed(model=Two(), x=(X(), X() + 1), options={"site": "first.hidden"}),
        then=lambda m, a: {"a": a},
    ),
    lambda m: takes_site(m) and m.name != NEURON,
)
add(
    "sites",
    "one behind another",
    at(["hidden", "out"]),
    Refused("site.behind", "site: one is behind another, got 'out'", calls=ONCE),
    lambda m: m.name.startswith("layer ") or m.name == "conductance secant",
)
add(
    "sites",
    "the examples not in front",
    at("turned", models.Turned),
    Refused(
        "site.batch", r"site: .*first dimension, got \(6, \d+\) for \d+.*batch_dim", calls=ONCE
    ),
    # What reshape makes of it is no map.
    lambda m: takes_site(m) and m.name not in ("score_cam", "eigen_cam"),
)
add(
    "sites",
    "integers alone",
    tapped(lambda net, x: net(x)[..., 1] + 0 * attrib.tap("h", x.long()).sum(-1)),
    Refused("site.dtype", "site: .*int64", TypeError, calls=ONCE),
    lambda m: takes_site(m) and m.name != "activation_patching",
)
add(
    "sites",
    "without an effect",
    tapped(lambda net, x: net(x + 0 * len(attrib.tap("h", x)))[..., 1]),
    _UNUSED,
    lambda m: takes_site(m) and not evaluates(m),
)
add(
    "sites",
    "cut off from x",
    tapped(lambda net, x: net(attrib.tap("h", x.detach()))[..., 1]),
    _INDEPENDENT,
    lambda m: m.name in (NEURON, "conductance gauss-legendre"),
)
add(
    "sites",
    "a model that raises behind it",
    lambda: changed(model=models.Failing(_MINE), options={"site": "net"}),
    Passes(_MINE),
    takes_site,
)
add(
    "sites",
    "a plain function that raises behind it",
    lambda: _failing_closure(),
    Passes(_MINE),
    takes_site,
)
add(
    "sites",
    "an overridden score",
    lambda: changed(
        score=attrib.override(attrib.target(Net(), 1), {"tanh": attrib.rules.gradient()}),
        options={"site": "hidden"},
    ),
    Refused("override.called", r"f: an overridden score cannot be split"),
    takes_site,
)
for _index, _right in (
    (6, Refused("target.range", "index: 6 .*6 outputs", calls=ONCE)),
    (-7, Refused("target.range", "index: -7 .*6 outputs", calls=ONCE)),
    ((0, 0), Refused("target.shape", r"index: .*\(0, 0\)", calls=ONCE)),
    (None, Refused("target.missing", "index: missing", calls=ONCE)),
    (1.0, Refused("target.type", "index: .*integer, got float", TypeError)),
    (True, Refused("target.type", "index: .*got bool", TypeError)),
    (torch.sum, Refused("target.type", "index: must be a position, got a function", TypeError)),
):
    add(
        "sites",
        f"neuron {getattr(_index, '__name__', _index)!r}",
        at("hidden", options={"neuron": _index}),
        _right,
        has("neuron"),
    )

# ------------------------------------------------------------------------------ maps and rollouts


def _failing_reshape(h: Tensor) -> Tensor:
    raise _MINE


add(
    "maps",
    "a layer without places",
    at("hidden", options={"reshape": None}),
    Refused("site.spatial", r"site: yields no spatial dimensions, got \(\d+, 6\)", calls=ONCE),
    has("reshape"),
)
for _name, _reshape, _right in (
    ("a word", "vit", Refused("reshape.type", "reshape: must be callable, got str", TypeError)),
    (
        "of no tensor",
        lambda h: (h, h),
        Refused("reshape.type", r"reshape: must return a tensor", TypeError, calls=ONCE),
    ),
    (
        "to no maps",
        lambda h: h,
        Refused("reshape.shape", r"reshape: does not return feature maps, got .*6\)", calls=ONCE),
    ),
    ("that raises", _failing_reshape, Passes(_MINE)),
):
    add(
        "maps",
        f"reshape {_name}",
        at("hidden", options={"reshape": _reshape}),
        _right,
        has("reshape"),
    )
_wrong(
    "mode",
    (
        ("bilinear", "unknown", "'bilinear'.*'linear'", ValueError),
        (None, "unknown", "None.*'linear'", ValueError),
    ),
)
add(
    "maps",
    "a mode for images alone",
    lambda: changed(options={"mode": "cubic"}),
    Refused("mode.unknown", "mode: .*'cubic' in 1 spatial", calls=ONCE),
    has("mode"),
)
_wrong(
    "head_fusion",
    (("sum", "unknown", "'sum'.*'mean'", ValueError), (2, "unknown", "2.*'mean'", ValueError)),
)
_wrong("residual", _UP_TO_ONE)

# --------------------------------------------------------------------------------------- context


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


for _name, _context in {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default dtype float64": lambda: _default_dtype(torch.float64),
    "default dtype bfloat16": lambda: _default_dtype(torch.bfloat16),
    "default device meta": lambda: torch.device("meta"),
}.items():
    # The model is made outside of the context, as usual.
    add(
        "context",
        _name,
        lambda context=_context: changed(context=context),
        like(plain),
        modes=(False,) if _name == "no_grad" else (False, True),
    )
add(
    "context",
    "autocast",
    lambda: changed(context=lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    Equals(lambda m: plain(), loose=True),
    is_not("grad_and_score", "completeness"),
)

# --------------------------------------------------------------------------------------- helpers


_one_at_a_time = {"chunk_size": 1}


def _csr() -> Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return X().to_sparse_csr()


def _strided(x: Tensor) -> Tensor:
    wide = torch.zeros(x.shape[0] + 1, 2 * x.shape[1] + 1)
    wide[1:, 1::2] = x
    return wide[1:, 1::2]


def _at_module() -> Problem:
    model = Net()
    return changed(model=model, options={"site": model.hidden})


def _in_closure() -> Problem:
    model = Net()
    return changed(score=lambda x: model(x)[..., 1], options={"site": model.hidden}, watch=[model])


def _failing_closure() -> Problem:
    model = models.Failing(_MINE)
    return changed(
        score=lambda x: model(x)[..., 1], options={"site": model.net.hidden}, watch=[model]
    )


def _leaf(x: Tensor, *, grad: bool = False) -> Tensor:
    x = x.clone().requires_grad_()
    if grad:
        x.grad = torch.full_like(x, 5.0)
    return x


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def _trained() -> Net:
    model = Net()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    return model


def _rows(m: Method, answer: Any, rows: int | slice) -> Any:
    return pytree.tree_map(lambda leaf: leaf[:, rows] if m.targets else leaf[rows], answer)


def _as_lists(answer: Any) -> Any:
    return list(answer)


def _with_none(answer: Any, first: bool = False) -> Any:
    if isinstance(answer, tuple):
        return tuple(_with_none(part, first) for part in answer)
    if not isinstance(answer, dict):
        return answer
    inner = {key: _with_none(value, first) for key, value in answer.items()}
    return {"mask": None} | inner if first else inner | {"mask": None}


def _in_dict(m: Method, answer: Any) -> Any:
    return ({"values": answer[0]}, answer[1]) if m.name == "grad_and_score" else {"values": answer}


def _with_zeros(m: Method, answer: Any) -> Any:
    return (answer, torch.zeros_like(answer))


def _aliased(*, argument: bool = False) -> Problem:
    x = X()
    return changed(model=Two(), x=x, args=(x,)) if argument else changed(model=Two(), x=(x, x))


def _views() -> Problem:
    x = X()
    both = torch.cat([x, x.flip(0)])
    return changed(model=Two(), x=(both[:3], both[3:]))


def _own_baseline() -> Problem:
    x = X()
    return changed(x=x, base=x)


def _inactive() -> nn.Module:
    model = models.Normalised().train()
    model.norm.eval()
    return model


def _weighted_in_place(net: Net, x: Tensor, weight: Tensor) -> Tensor:
    return (net(x) * weight.mul_(2)).sum(-1)


def _greedy(net: Net, x: dict[str, Tensor]) -> Tensor:
    x["b"] = x.pop("a")
    return net(x["b"])[..., 1]


def _functional(net: Net, x: Tensor) -> Tensor:
    return net.out(torch.nn.functional.relu(net.hidden(x)))[..., 1]


def _closing_over(net: Net) -> Problem:
    return changed(model=lambda x: net(x), watch=[net])


def _with_rows(net: Net, rows: Tensor) -> Problem:
    return changed(score=attrib.batched(lambda x, rows: (net(x) * rows).sum(-1), rows=[rows]))


def _hooked(kind: str) -> Net:
    model = Net()
    if kind == "forward":
        model.register_forward_hook(lambda module, args, out: out * 2)
    elif kind == "pre":
        model.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    elif kind == "backward":
        model.hidden.register_full_backward_hook(lambda module, before, after: None)
    else:
        model.hidden.register_full_backward_pre_hook(lambda module, gradient: None)
    return model


__all__ = ["CASES", "DEFAULT"]
