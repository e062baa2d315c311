"""One table of methods and measures: its numbers, its forms, what it calls, what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import metrics

WEIGHTS = torch.tensor([1.0, 2.0], dtype=torch.float64)
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.0]], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHTS


def nothing(x: Tensor, *args: Any) -> Tensor:
    return torch.zeros_like(x)


def gap(a: Any) -> Any:
    return metrics.completeness(linear, a)


def first(a: Any) -> Any:
    """The attribution of the first feature."""
    return lambda x, *args: a(x, *args)[..., 0]


METHODS = {"input x gradient": attrib.input_x_gradient(linear), "nothing": nothing}


def test_a_cell_is_the_mean_of_the_examples_with_its_standard_error() -> None:
    """Nothing misses all of a linear score, which is 1, 2, 3 and 3; a quarter of 9, and the error
    of 1, 2, 3, 3: their squares about 9/4 are 11/4 together, over 3 and over 4."""
    table = attrib.compare(METHODS, {"gap": gap}, X)
    assert table.cell("input x gradient", "gap") == (0.0, 0.0, 4)
    mean, stderr, examples = table.cell("nothing", "gap")
    assert mean == -9 / 4 and examples == 4
    assert stderr == pytest.approx(math.sqrt(11 / 4 / 3 / 4), rel=1e-14)
    assert table.values["nothing"]["gap"].tolist() == [-1.0, -2.0, -3.0, -3.0]


def batches() -> Iterator[Any]:
    yield X[:1]
    yield (X[1:3],)
    yield [X[3:]]


@pytest.mark.parametrize("data", [X, (X,), [X], [(X[:3],), (X[3:],)], batches()])
def test_batches_are_examples_in_a_row(data: Any) -> None:
    table = attrib.compare(METHODS, {"gap": gap}, data)
    assert table.values["nothing"]["gap"].tolist() == [-1.0, -2.0, -3.0, -3.0]


def test_a_loader_is_an_iterable_of_batches() -> None:
    data = torch.utils.data.TensorDataset(X, torch.full_like(X, 0.5))
    loader = torch.utils.data.DataLoader(data, batch_size=3)
    found = attrib.compare(METHODS, {"gap": gap}, loader).values["nothing"]["gap"]
    assert found.tolist() == [0.5, -0.5, -1.5, -1.5]  # the score of the baseline is 3/2


def test_a_single_example_has_a_mean_and_no_error() -> None:
    mean, stderr, examples = attrib.compare(METHODS, {"gap": gap}, X[0]).cell("nothing", "gap")
    assert mean == -1 and math.isnan(stderr) and examples == 1


def test_examples_without_a_value_are_left_out_and_named() -> None:
    metric = {"gini": lambda a: metrics.sparseness(a)}
    x = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    table = attrib.compare({"x": lambda x: x}, metric, x)
    assert table.cell("x", "gini")[::2] == (0.25, 2)  # 0 and 1/2
    assert "gini of x: NaN for 1, which are left out" in str(table)
    empty = attrib.compare({"x": lambda x: 0 * x, "y": lambda x: x}, metric, x[1:])
    assert math.isnan(empty.cell("x", "gini").mean) and empty.best("gini") == ["y"]


def test_the_best_is_the_highest_the_lowest_or_the_closest_to_zero() -> None:
    methods = {str(c): lambda x, c=c: torch.full_like(x, c) for c in (-3.0, -1.0, 2.0)}
    for way, best in {"higher": "2.0", "lower": "-3.0", "zero": "-1.0"}.items():
        table = attrib.compare(methods, {"first": first}, X, better={"first": way})
        assert table.best("first") == [best] and table.better == {"first": way}
    twins = attrib.compare(
        {"a": nothing, "b": nothing}, {"first": first}, X, better={"first": "lower"}
    )
    assert twins.best("first") == ["a", "b"]


def test_measures_say_their_direction_and_better_overrules_it() -> None:
    columns = {"gap": gap, "gini": lambda a: metrics.sparseness(a)}
    assert attrib.compare(METHODS, columns, X).better == {"gap": "zero", "gini": "higher"}
    table = attrib.compare(METHODS, columns, X, better={"gini": "lower"})
    assert table.better == {"gap": "zero", "gini": "lower"}


# --- how methods are called -----------------------------------------------------------------------


class Counting:
    """An attribution that counts how often it explains."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, x: Tensor, *args: Any) -> Tensor:
        self.calls.append((x, *args))
        return x * WEIGHTS


def test_a_method_explains_a_batch_once_for_all_metrics() -> None:
    counting, columns = Counting(), {"gap": gap, "again": gap}
    table = attrib.compare({"a": counting, "b": nothing}, columns, [X[:1], X[1:]])
    assert [len(x) for x, *_ in counting.calls] == [1, 3]
    assert torch.equal(table.values["a"]["gap"], table.values["a"]["again"])
    other = Counting()
    attrib.compare({"a": other}, {"gap": lambda a: lambda x: gap(a)(x.clone())}, X, better=LOWER)
    assert len(other.calls) == 1
    attrib.compare({"a": other}, {"gap": lambda a: lambda x: gap(a)(x, 0.0)}, X, better=LOWER)
    assert len(other.calls) == 2


LOWER: Any = {"gap": "lower"}


def test_an_explanation_of_other_arguments_is_another_one() -> None:
    weigh = lambda x, scale: x.sum(-1) * scale
    attribute = lambda x, scale: x * scale
    metric = lambda a: lambda x, b, one, two: a(x, b, one).sum(-1) - a(x, b, two).sum(-1)
    found = attrib.compare({"a": attribute}, {"gap": metric}, (X, 0, 3.0, 1.0), better=LOWER)
    assert torch.equal(found.values["a"]["gap"], weigh(X, 2.0))


def test_methods_get_the_baseline_if_they_take_one() -> None:
    """Of a linear score all three are complete from the baseline of which they know."""
    f = lambda x, scale: (x @ WEIGHTS) * scale
    integrated = attrib.integrated_gradients(f, steps=2)
    methods = {
        "integrated": integrated,
        "gradient": attrib.saliency(f),
        "bound": lambda x, *args: integrated(x, 0.5, *args),
    }
    columns = {
        "gap": lambda a: metrics.completeness(f, a),
        "moved": lambda a: metrics.max_sensitivity(a, lambda x: x + 1, relative=False),
    }
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    table = attrib.compare(methods, columns, (X, 0.5, scale))
    for name in ("integrated", "bound"):
        assert table.values[name]["gap"].abs().max() < 1e-12
        torch.testing.assert_close(table.values[name]["moved"], 5**0.5 * scale)
    assert torch.equal(table.values["gradient"]["moved"], torch.zeros(4, dtype=torch.float64))


def test_modules_are_measured_as_without_a_table() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    f, x = attrib.target(model, 1), torch.randn(6, 3)
    methods = {"gradient": attrib.saliency(f), "shapley": attrib.shapley_values(f)}
    seeded = lambda: attrib.perturb.uniform(0.3, generator=torch.Generator().manual_seed(3))
    columns = {
        "deletion": lambda a: metrics.deletion(f, a),
        "sensitivity": lambda a: metrics.max_sensitivity(a, seeded()),
        "hidden": lambda a: metrics.infidelity(f, a, metrics.hiding(generator=seed(1))),
    }
    with torch.no_grad():
        table = attrib.compare(methods, columns, (x, 0.1))
        for row, method in methods.items():
            for column, metric in columns.items():
                plain = metric(method)
                args = (x,) if column == "sensitivity" and row == "gradient" else (x, 0.1)
                torch.testing.assert_close(table.values[row][column], plain(*args))


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_masks_go_to_measures_of_localisation() -> None:
    mask = torch.tensor([[True, False]] * 4)
    columns = {"mass": lambda a: metrics.relevance_mass(a)}
    table = attrib.compare({"x": lambda x: x}, columns, (X, mask))
    assert table.values["x"]["mass"].tolist() == [1.0, 0.0, 0.5, 1.0]


def test_rows_may_be_methods_of_scores() -> None:
    """Whatever metrics take may be compared: here a method is a function of a score."""
    squares = lambda f: lambda x: attrib.saliency(f)(x).square()
    methods: Any = {"saliency": attrib.saliency, "squares": squares}
    columns: Any = {"linearity": lambda m: metrics.linearity(m, linear, lambda x: 3 * x[..., 0])}
    table = attrib.compare(methods, columns, X)
    assert table.values["saliency"]["linearity"].tolist() == [0.0] * 4
    assert table.values["squares"]["linearity"].min() > 0


def test_a_table_holds_no_graph_and_changes_nothing() -> None:
    x = X.clone().requires_grad_()
    state, version = torch.get_rng_state(), x._version
    table = attrib.compare({"g": attrib.input_x_gradient(linear)}, {"gap": gap}, x)
    assert not table.values["g"]["gap"].requires_grad
    assert x.grad is None and x._version == version
    assert torch.equal(torch.get_rng_state(), state)


# --- progress -------------------------------------------------------------------------------------


def test_progress_counts_cells_of_one_batch_and_batches_of_many() -> None:
    def watched(data: Any) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        with attrib.progress(lambda done, total: seen.append((done, total))):
            attrib.compare(METHODS, {"a": gap, "b": gap}, data)
        return seen

    assert watched(X) == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    many = watched([X, X, X])
    assert sorted(set(many)) == [(0, 3), (1, 3), (2, 3), (3, 3)] and many == sorted(many)
    assert watched(batch for batch in [X, X])[-1] == (4, 4)  # nobody knows how many there are


def test_a_monitor_cancels() -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise attrib.Cancelled

    counting = Counting()
    with pytest.raises(attrib.Cancelled), attrib.progress(stop):
        attrib.compare({"a": counting, "b": counting}, {"gap": gap}, X)
    assert len(counting.calls) == 1


# --- forms ----------------------------------------------------------------------------------------


def test_as_text_it_has_names_directions_numbers_and_stars() -> None:
    text = attrib.compare(METHODS, {"gap": gap}, X).as_text()
    assert text.splitlines() == [
        "                  gap",
        "                  zero is best",
        "input x gradient  0 ± 0 *",
        "nothing           -2.25 ± 0.48",
        "4 examples, mean ± standard error; * marks the best mean",
    ]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([1.0, 3.0], "2.0 ± 1.0"),
        ([-0.001, 0.003], "0.0010 ± 0.0020"),
        ([1000.0, 1120.0], "1060 ± 60"),
        ([1e6, 3e6], "(2.0 ± 1.0)e+06"),
        ([1e6, 1e6 + 2000], "(1.0010 ± 0.0010)e+06"),
        ([1e-9, 3e-9], "(2.0 ± 1.0)e-09"),
        ([2.5, 2.5], "2.5 ± 0"),
        ([2.5], "2.5 ± nan"),
        ([math.inf, 1.0], "inf ± nan"),
        ([1.0, 1.0 + 1e-9], "1 ± 5e-10"),
    ],
)
def test_numbers_have_the_digits_that_their_error_leaves(numbers: list[float], text: str) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    table = metrics.Comparison({"a": {"b": values}}, {"b": "lower"})
    found = table.as_text().splitlines()[2].removeprefix("a").removesuffix("*").strip()
    assert found == text


def test_as_markdown_it_is_a_table_in_which_the_best_is_bold() -> None:
    lines = attrib.compare({"a|b": nothing, **METHODS}, {"gap": gap}, X).as_markdown().splitlines()
    assert lines[:3] == [
        "|  | gap, zero is best |",
        "| --- | :-- |",
        "| a&#124;b | -2.25 ± 0.48 |",
    ]
    assert lines[3] == "| input x gradient | **0 ± 0** |"


def test_as_a_dict_it_is_made_of_plain_numbers() -> None:
    found = attrib.compare(METHODS, {"gap": gap}, X).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["nothing"]["gap"]["mean"] == -2.25 and found["nothing"]["gap"]["examples"] == 4


def test_it_is_drawn_with_a_panel_for_each_metric_and_no_pyplot() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    columns = {"gap $1": gap, "spread": first, "far": lambda a: lambda x: 1 + 100 * first(a)(x)}
    better: Any = {"spread": "higher", "far": "lower"}
    table = attrib.compare(METHODS, columns, X, better=better)
    figure = table.figure()
    assert isinstance(figure, figures.Figure)
    assert [axes.get_title() for axes in figure.axes] == [
        "gap $1\nzero is best",
        "spread\nhigher is better",
        "far\nlower is better",
    ]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(METHODS)
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear", "log"]
    (mean, place), *_ = (bar.lines[0].get_xydata()[0] for bar in figure.axes[0].containers[1:])
    assert (mean, place) == (-2.25, 1)
    figure.canvas.draw()


# --- errors ---------------------------------------------------------------------------------------


def refused(*arguments: Any, **options: Any) -> str:
    counting = Counting()
    methods = arguments[0] if arguments else {"a": counting}
    columns, data = (*arguments[1:], *({"gap": gap}, X)[len(arguments[1:]) :])[:2]
    with pytest.raises(attrib.AttribError) as error:
        attrib.compare(methods, columns, data, **options)
    return error.value.code


def test_what_cannot_be_compared_is_refused() -> None:
    methods = {"a": nothing}
    assert refused([nothing]) == "methods.type"
    assert refused({}) == "methods.empty"
    assert refused({"a": 3}) == "methods.type"
    assert refused(methods, gap) == "metrics.type"
    assert refused(methods, {}) == "metrics.empty"
    assert refused(methods, {"gap": lambda a: 3}) == "metrics.type"
    assert refused(methods, {"gap": first}) == "better.missing"
    assert refused(methods, {"gap": gap}, X, better={"gap": "best"}) == "better.unknown"
    assert refused(methods, {"gap": gap}, X, better={"gab": "zero"}) == "better.unknown"
    for data in ({"x": X}, "x", 3, (), [3], [()], None):
        assert refused(methods, {"gap": gap}, data) == "data.type"
    assert refused(methods, {"gap": gap}, []) == "data.empty"
    assert refused(methods, {"gap": lambda a: lambda x: 3.0}, X, better=LOWER) == "metrics.shape"
    columns = {"gap": gap, "all": lambda a: lambda x: a(x)}
    assert refused(methods, columns, X, better={"all": "lower"}) == "metrics.shape"


def test_a_missing_direction_is_refused_before_any_method_is_called() -> None:
    counting = Counting()
    with pytest.raises(attrib.AttribError, match="better: missing for 'mine'"):
        attrib.compare({"a": counting}, {"gap": gap, "mine": first}, X)
    assert not counting.calls


class Broken(Exception):
    pass


def test_the_users_exception_passes_and_names_method_and_metric() -> None:
    def broken(x: Tensor) -> Tensor:
        raise Broken

    with pytest.raises(Broken) as caught:
        attrib.compare({"fine": nothing, "odd": broken}, {"gap": gap}, X)
    assert "attrib was measuring 'gap' of the method 'odd'" in notes(caught.value)

    def unmade(a: Any) -> Any:
        raise Broken

    with pytest.raises(Broken) as caught:
        attrib.compare({"fine": nothing}, {"gap": gap, "odd": unmade}, X)
    assert "attrib was making the metric 'odd' of the method 'fine'" in notes(caught.value)


def notes(error: BaseException) -> list[str]:
    if not hasattr(error, "add_note"):
        pytest.skip("notes came with Python 3.11")
    return error.__notes__


def test_a_set_of_baselines_is_to_be_bound() -> None:
    attribute = attrib.expected(attrib.integrated_gradients(linear, steps=2))
    assert refused({"a": attribute}) == "attribute.baselines"
