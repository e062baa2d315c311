"""Errors of attrib: one base class, a stable code, a sentence that says what to write instead."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.errors import AttribTypeError, AttribValueError

SOURCE = Path(attrib.__file__).parent
TABLE = (SOURCE.parent / "docs" / "errors.md").read_text(encoding="utf-8")


class Refusal(NamedTuple):
    """A call, and the error that is right for it."""

    call: Callable[[], object]
    code: str
    kind: type[Exception]
    words: str


def model() -> nn.Module:
    """Four features, three classes."""
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def f() -> attrib.types.Score:
    """One output of the model."""
    return attrib.target(model(), 1)


def mapped(x: Tensor) -> Tensor:
    """A score that any transform takes."""
    return x.square().sum(-1)


X = torch.linspace(-1, 1, 12).reshape(3, 4)
FACTORIES = (
    attrib.saliency,
    attrib.input_x_gradient,
    attrib.grad_and_score,
    attrib.integrated_gradients,
    attrib.average_gradient,
    attrib.expected_gradients,
    attrib.integrated_hessians,
    attrib.guided_ig,
    attrib.blur_ig,
    attrib.metrics.completeness,
    attrib.batched,
)
ATTRIBUTIONS = (
    lambda a: attrib.smooth(a, attrib.perturb.gaussian(0.1)),
    lambda a: attrib.smooth_grad(a, 0.1),
    lambda a: attrib.smooth_grad_sq(a, 0.1),
    lambda a: attrib.var_grad(a, 0.1),
    lambda a: attrib.expected(a),
)
REDUCERS = (
    attrib.total,
    attrib.mean,
    attrib.variance,
    attrib.second_moment,
    attrib.maximum,
    attrib.minimum,
    attrib.estimate,
)

REFUSALS: dict[str, Refusal] = {
    **{
        f"{factory.__name__} of nothing": Refusal(
            lambda factory=factory: factory(None),
            "f.type",
            TypeError,
            "f: .*callable, got NoneType",
        )
        for factory in FACTORIES
    },
    **{
        f"smoothing {place} of nothing": Refusal(
            lambda wrap=wrap: wrap(3), "attribute.type", TypeError, "attribute: .*callable, got int"
        )
        for place, wrap in enumerate(ATTRIBUTIONS)
    },
    **{
        f"{reducer.__name__} of no samples": Refusal(
            lambda reducer=reducer: reducer([]), "chunks.empty", ValueError, "chunks: empty"
        )
        for reducer in REDUCERS
    },
    "a model without an index": Refusal(
        lambda: attrib.saliency(model())(X),
        "score.shape",
        ValueError,
        r"f: .*got shape \(3, 3\) for x of shape \(3, 4\).*attrib.target\(model, 3\)",
    ),
    "a score like x": Refusal(
        lambda: attrib.saliency(lambda x: x * 2)(X),
        "score.shape",
        ValueError,
        r"f: .*got shape \(3, 4\)",
    ),
    "an integer score": Refusal(
        lambda: attrib.saliency(lambda x: x.sum(-1).long())(X),
        "score.dtype",
        TypeError,
        "f: .*floating-point, got torch.int64",
    ),
    "a complex score": Refusal(
        lambda: attrib.saliency(lambda x: torch.complex(x, x).sum(-1))(X),
        "score.dtype",
        TypeError,
        "f: .*got torch.complex64",
    ),
    "a score that is a number": Refusal(
        lambda: attrib.saliency(lambda x: 1.0)(X), "score.type", TypeError, "f: .*got float"
    ),
    "no model": Refusal(
        lambda: attrib.target(None, 1), "model.type", TypeError, "model: .*callable, got NoneType"
    ),
    "nothing to contrast with": Refusal(
        lambda: attrib.contrast(f(), None), "g.type", TypeError, "g: .*callable, got NoneType"
    ),
    "rows in one tensor": Refusal(
        lambda: attrib.batched(mapped, rows=torch.ones(3)),
        "rows.type",
        TypeError,
        r"rows: .*list of tensors, got \(3,\)",
    ),
    "rows that are a number": Refusal(
        lambda: attrib.batched(mapped, rows=3), "rows.type", TypeError, "rows: .*got int"
    ),
    "rows of numbers": Refusal(
        lambda: attrib.batched(mapped, rows=[1, 2]), "rows.type", TypeError, "rows: .*got .*int"
    ),
    "no method": Refusal(
        lambda: attrib.per_target(3, model(), [0]), "method.type", TypeError, "method: .*got int"
    ),
    "no model for the targets": Refusal(
        lambda: attrib.per_target(attrib.saliency, None, [0]), "model.type", TypeError, "model: "
    ),
    "no function to perturb with": Refusal(
        lambda: attrib.smooth(attrib.saliency(f()), 0.1),
        "perturb.type",
        TypeError,
        r"perturb: .*got float.*gaussian\(0.1\)",
    ),
    "a perturbation that drops rows": Refusal(
        lambda: attrib.smooth(attrib.saliency(f()), lambda x: x[:2])(X),
        "perturb.shape",
        ValueError,
        r"perturb: .*like x, got \(2, 4\) for \(3, 4\)",
    ),
    "a perturbation to nothing": Refusal(
        lambda: attrib.smooth(attrib.saliency(f()), lambda x: None)(X),
        "perturb.shape",
        ValueError,
        r"perturb: .*got NoneType for \(3, 4\)",
    ),
    "a perturbation to a pair": Refusal(
        lambda: attrib.smooth(attrib.saliency(f()), lambda x: (x, x))(X),
        "perturb.shape",
        ValueError,
        r"perturb: .*got \(\(3, 4\), \(3, 4\)\) for \(3, 4\)",
    ),
    "the attribution of fewer rows": Refusal(
        lambda: attrib.metrics.completeness(f())(X[:2], X),
        "attribution.shape",
        ValueError,
        r"attribution: .*got \(2, 4\) for x \(3, 4\)",
    ),
    "an attribution of another structure": Refusal(
        lambda: attrib.metrics.completeness(f())((X, X), X),
        "attribution.shape",
        ValueError,
        r"attribution: .*got \(\(3, 4\), \(3, 4\)\)",
    ),
    **{
        f"an attribution that is a {type(thing).__name__}": Refusal(
            lambda thing=thing: attrib.metrics.completeness(f())(thing, X),
            "attribution.type",
            TypeError,
            f"attribution: .*got {type(thing).__name__}",
        )
        for thing in (None, "map", X.numpy())
    },
    "a tolerance inside of vmap": Refusal(
        lambda: torch.vmap(attrib.integrated_gradients(mapped, tol=0.1))(X),
        "tol.traced",
        ValueError,
        "tol: .*steps=",
    ),
    "a tolerance inside of grad": Refusal(
        lambda: torch.func.grad(lambda x: attrib.integrated_gradients(mapped, tol=0.1)(x).sum())(X),
        "tol.traced",
        ValueError,
        "tol: .*steps=",
    ),
    "a guided path inside of vmap": Refusal(
        lambda: torch.vmap(attrib.guided_ig(mapped))(X),
        "guided_ig.traced",
        ValueError,
        "guided_ig: .*vmap",
    ),
    "a blurred path of a word": Refusal(
        lambda: attrib.blur_path("wide"), "max_sigma.type", TypeError, "max_sigma: .*got str"
    ),
    "a monitor that is a number": Refusal(
        lambda: attrib.progress(3).__enter__(), "callback.type", TypeError, "callback: .*got int"
    ),
    "a noise without a size": Refusal(
        lambda: attrib.perturb.gaussian(None), "std.type", TypeError, "std: .*got NoneType"
    ),
    "noise for a leaf without a size": Refusal(
        lambda: attrib.perturb.gaussian({"a": None})({"a": X}),
        "std.type",
        TypeError,
        "std: .*got NoneType",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_wrong_call_is_refused_by_name_value_and_remedy(name: str) -> None:
    call, code, kind, words = REFUSALS[name]
    with pytest.raises(attrib.AttribError, match=words) as refused:
        call()
    assert isinstance(refused.value, kind)
    assert refused.value.code == code


# The classes.


@pytest.mark.parametrize("kind", [AttribTypeError, AttribValueError])
def test_an_error_survives_copying_and_pickling(kind: type[attrib.AttribError]) -> None:
    error = kind("x: wrong, got 3; pass 4", code="x.range")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert twin.code == "x.range"


def test_values_are_value_errors_and_types_are_type_errors() -> None:
    assert issubclass(AttribValueError, (attrib.AttribError, ValueError))
    assert issubclass(AttribTypeError, (attrib.AttribError, TypeError))


def test_cancelling_is_no_error_of_a_call() -> None:
    assert not issubclass(attrib.Cancelled, attrib.AttribError)
    assert issubclass(attrib.NonFiniteWarning, UserWarning)


# What every refusal in the source looks like.


class Raised(NamedTuple):
    """A refusal as it is written in the source; braces stand for what is put in."""

    place: str
    text: str
    code: str


def written(node: ast.expr) -> str:
    """The text of a literal, with braces for its variable parts."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return "{}"


def raised() -> Iterator[Raised]:
    """Every refusal in the source."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            made = node.exc
            if isinstance(made.func, ast.Name) and made.func.id.startswith(("AttribV", "AttribT")):
                codes = [written(word.value) for word in made.keywords if word.arg == "code"]
                assert len(codes) == 1, f"{path.name}:{node.lineno}: no code"
                yield Raised(f"{path.name}:{node.lineno}", written(made.args[0]), codes[0])


def test_every_refusal_names_the_argument_and_what_came() -> None:
    found = list(raised())
    assert len(found) > 40
    for place, text, code in found:
        assert re.match(r"[\w{}\[\]]+: ", text), f"{place}: {text}"
        # An index out of range is itself the value that came.
        assert " got " in text or code == "target.range", f"{place}: {text}"
        assert not text.endswith("."), f"{place}: {text}"


def documented() -> set[str]:
    """The codes in the table of the documentation."""
    return set(re.findall(r"^\| `(.+?)` \|", TABLE, re.MULTILINE))


def test_every_code_is_in_the_table_of_the_documentation() -> None:
    listed = documented()
    for place, _, code in raised():
        general = "<argument>." + code.rpartition(".")[2]
        # A code that is itself put in belongs to an argument that is.
        assert code == "{}" or {code, general} & listed, f"{place}: {code}"


def test_every_code_in_the_table_of_the_documentation_exists() -> None:
    codes = {code for _, _, code in raised()}
    for code in documented():
        subject, _, cause = code.rpartition(".")
        put_in = {"{}", "{}." + cause}
        assert code in codes or (codes & put_in), code
        assert subject


def test_no_option_can_be_misspelt_in_silence() -> None:
    for name in attrib.__all__:
        thing = getattr(attrib, name)
        if inspect.isfunction(thing):
            kinds = {p.kind for p in inspect.signature(thing).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_no_list_is_cut_to_the_length_of_another() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                strict = any(word.arg == "strict" for word in node.keywords)
                assert node.func.id != "zip" or strict, f"{path.name}:{node.lineno}"


def test_a_large_tree_is_described_in_two_hundred_characters() -> None:
    tree = {f"leaf number {place}": X for place in range(100)}
    with pytest.raises(attrib.AttribError) as refused:
        attrib.integrated_gradients(f())(X, tree)
    assert "..." in str(refused.value)
    assert len(str(refused.value)) < 400


# What a user's own exception is told.


def notes(call: Callable[[], object]) -> str:
    """The notes on the exception that a call raises."""
    try:
        call()
    except Exception as error:
        found: list[str] = getattr(error, "__notes__", [])
        return "\n".join(found)
    raise AssertionError("no exception")


def branching(x: Tensor) -> Tensor:
    """A score that asks for numbers, which vmap does not have."""
    return x.sum(-1) if x.sum() > 0 else -x.sum(-1)


needs_notes = pytest.mark.skipif(
    not hasattr(Exception, "add_note"), reason="exceptions take notes from Python 3.11 on"
)


@needs_notes
def test_a_score_that_vmap_cannot_trace_is_told_of_the_plain_loop() -> None:
    attribute = attrib.integrated_gradients(branching, steps=3)
    assert "chunk_size=1" in notes(lambda: attribute(X))
    assert "torch.vmap" in notes(lambda: attribute(X))


def test_the_plain_loop_serves_a_score_that_vmap_cannot_trace() -> None:
    attribute = attrib.integrated_gradients(branching, steps=3, chunk_size=1)
    assert attribute(X.abs()).sum() == pytest.approx(float(X.abs().sum()))


@needs_notes
def test_a_failing_score_is_told_which_points_were_evaluated() -> None:
    def failing(x: Tensor) -> Tensor:
        if x.abs().max() > 0.5:
            raise ValueError("mine")
        return x.sum(-1)

    attribute = attrib.integrated_gradients(failing, steps=4, quadrature="left", chunk_size=1)
    assert "points 3 to 3 of 4" in notes(lambda: attribute(X))


@needs_notes
def test_a_hook_that_torch_func_does_not_take_is_told_where_it_may_be() -> None:
    hooked = model()
    hooked[0].register_full_backward_hook(lambda module, before, after: None)
    attribute = attrib.saliency(attrib.target(hooked, 1))
    assert "outside of any transform" in notes(lambda: torch.vmap(attribute)(X[None]))
    attribute(X)
    with torch.no_grad():
        attribute(X)


def test_a_score_that_is_not_finite_is_located() -> None:
    x = X.clone()
    x[2, 1] = float("nan")
    with pytest.warns(attrib.NonFiniteWarning, match=r"1 of 3 examples, first at index \[2\]"):
        found = attrib.saliency(f())(x)
    assert found[2].isnan().all()
    assert found[:2].isfinite().all()


def test_a_score_that_is_not_finite_is_reported_from_inside_of_vmap() -> None:
    x = X.clone()
    x[2, 1] = float("nan")
    with pytest.warns(attrib.NonFiniteWarning, match="1 of 3"):
        found = torch.vmap(attrib.saliency(mapped))(x)
    assert found[2].isnan().all()
    assert found[:2].isfinite().all()
