"""The benchmark of known attributions: its truths are true, and its page is complete."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attrib
from benchmarks import ground_truth, truths
from benchmarks.ground_truth import LEFT_OUT, METHODS, Cell, score, tables
from benchmarks.truths import FUNCTIONS, Problem, airport

PAGE = Path(__file__).parents[1] / "docs" / "ground-truth.md"


def shapley(problem: Problem) -> Tensor:
    """Shapley values by their definition, one coalition at a time."""
    x, baseline = problem.x, problem.baseline
    features = range(x.shape[-1])
    found = torch.zeros_like(x)

    def value(present: tuple[int, ...]) -> Tensor:
        keep = torch.zeros(len(features), dtype=torch.bool)
        keep[list(present)] = True
        return problem.f(torch.where(keep, x, baseline))

    for i in features:
        others = [j for j in features if j != i]
        for size in range(len(others) + 1):
            weight = 1 / (len(features) * math.comb(len(others), size))
            for without in itertools.combinations(others, size):
                found[:, i] += weight * (value((*without, i)) - value(without))
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_truths_of_functions_are_shapley_values(name: str) -> None:
    problem = FUNCTIONS[name]()
    torch.testing.assert_close(problem.truth, shapley(problem), rtol=1e-12, atol=1e-12)
    assert problem.truth.abs().amax(-1).min() > 0  # every row has something to find


def test_the_airport_is_that_of_the_textbook() -> None:
    shares = airport(torch.tensor([3.0, 1.0, 2.0]))
    torch.testing.assert_close(shares, torch.tensor([1 / 3 + 1 / 2 + 1, 1 / 3, 1 / 3 + 1 / 2]))


@pytest.mark.parametrize("name", ["linear", "quadratic", "products", "parity"])
def test_the_truths_of_polynomials_are_integrals_of_gradients(name: str) -> None:
    problem = FUNCTIONS[name]()
    nodes = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    points = problem.baseline + nodes[:, None, None] * (problem.x - problem.baseline)
    points.requires_grad_()
    (slopes,) = torch.autograd.grad(problem.f(points).sum(), points)
    integral = (problem.x - problem.baseline) * slopes.mean(0)
    torch.testing.assert_close(integral, problem.truth, rtol=1e-5, atol=1e-5)


def planted(truth: Tensor, x: Tensor) -> Problem:
    """A score that is the sum of what matters."""
    return Problem(
        lambda x: (x * truth[0]).sum(-1), x, torch.zeros(4), truth, x, players=x.shape[-1]
    )


def test_a_cell_says_how_much_and_where() -> None:
    truth = torch.tensor([[True, False, True, False]])
    problem = planted(truth, torch.tensor([[3.0, 7.0, 1.0, 5.0]]))
    assert problem.chance == 0.5
    assert score("input_x_gradient", problem) == Cell(1.0, 1.0)
    assert score("grad_cam", problem) == "-"
    values = FUNCTIONS["linear"]()
    cell = score("input_x_gradient", values)
    assert isinstance(cell, Cell)
    weights = values.truth / (values.x - values.baseline)
    cosine = torch.nn.functional.cosine_similarity(weights * values.x, values.truth, dim=-1)
    assert cell.first == pytest.approx(float(cosine.mean()))
    furthest = (weights * values.baseline).abs().max() / values.truth.abs().max()
    assert cell.second == pytest.approx(float(furthest))


def test_the_mass_is_a_share_of_sizes() -> None:
    truth = torch.tensor([[True, False, False, False]])
    weights = torch.tensor([1.0, -2.0, 0.5, 0.5])
    problem = Problem(
        lambda x: (x * weights).sum(-1), torch.ones(1, 4), torch.zeros(4), truth, torch.ones(1, 4)
    )
    assert score("saliency", problem) == Cell(pytest.approx(0.25), 0.0)  # type: ignore[arg-type]


def test_a_small_selection_makes_a_table() -> None:
    chosen = {name: FUNCTIONS[name] for name in ("linear", "unanimity")}
    made = tables(["saliency", "integrated_gradients", "grad_cam", "shapley_values"], chosen)
    assert made.splitlines()[0] == "| method | linear | unanimity |"
    assert made.splitlines()[3:] == [
        "| `integrated_gradients` | **exact** | refuses |",
        "| `shapley_values` | **exact** | **exact** |",
    ]
    assert made == tables(
        ["saliency", "integrated_gradients", "grad_cam", "shapley_values"], chosen
    )


def test_the_network_of_the_table_sees_only_what_was_planted() -> None:
    problem = truths.table()
    moved = problem.x + 5 * ~problem.truth
    assert torch.equal(problem.f(moved), problem.f(problem.x))
    assert not torch.equal(problem.f(problem.x + 5 * problem.truth), problem.f(problem.x))
    assert problem.truth.sum(-1).eq(4).all()


def test_every_public_method_has_a_row_or_a_reason() -> None:
    left_out = {name for names in LEFT_OUT.values() for name in names}
    public = {
        name
        for module in (attrib, attrib.games)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name)) and name == name.lower()
    }
    assert public == set(METHODS) | left_out
    assert not left_out & set(METHODS)
    said = PAGE.read_text("utf-8").split("## Left out")[1]
    assert all(reason in said for reason in LEFT_OUT)


def test_marked_digits_are_digits_but_for_the_mark_which_is_of_any_digit() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    torch.manual_seed(0)
    x, labels, places = truths.marked_digits(512)
    assert places.sum((-2, -1)).eq(9).all() and x.shape == (512, 1, 14, 14)
    assert x[:, 0][places].view(512, 9).sum(-1).eq(5).all()  # five pixels of nine are drawn
    centres = x[:, 0][places].view(512, 3, 3)
    assert torch.equal(centres[:, 0, 0] == 1, labels == 1)  # a cross has corners
    torch.manual_seed(0)
    digit = torch.randint(1797, (512,))
    whole = torch.from_numpy(datasets.load_digits().images).float()[digit, None] / 16
    whole = torch.nn.functional.interpolate(whole, (14, 14), mode="bilinear")
    assert torch.equal(x[:, 0][~places], whole[:, 0][~places])


def test_the_page_has_a_row_for_every_method() -> None:
    text = PAGE.read_text("utf-8")
    shown = re.findall(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    rows = {name: re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) for name, table in shown}
    assert set(rows) == {"functions", "planted"}
    assert [name for name in METHODS if name in {*rows["functions"], *rows["planted"]}] == [
        *METHODS
    ]
    heads = {name: table.strip().splitlines()[0] for name, table in shown}
    assert heads["functions"] == "| method | " + " | ".join(FUNCTIONS) + " |"
    assert all(name in heads["planted"] for name in truths.PLANTED)


def test_the_page_is_where_the_script_writes() -> None:
    assert ground_truth.PAGE == PAGE
