"""Folding: a stack of points as one large batch, with what belongs to the rows repeated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib._batched import Batched, stacked

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
POINTS = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Noting(nn.Module):
    """Remembers the shapes that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return torch.stack([x.sin().sum(-1), x.prod(-1)], -1)


def test_a_marked_score_sees_one_large_batch() -> None:
    model = Noting()
    found = stacked(attrib.target(model, 0))(POINTS)
    assert model.shapes == [(20, 3)]
    torch.testing.assert_close(found, POINTS.sin().sum(-1))


def test_an_unmarked_score_sees_one_point() -> None:
    shapes: list[tuple[int, ...]] = []

    def f(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x.sin().sum(-1)

    torch.testing.assert_close(stacked(f)(POINTS), POINTS.sin().sum(-1))
    assert shapes == [(4, 3)]


def test_one_point_is_called_as_it_is() -> None:
    def f(x: Tensor) -> Tensor:
        assert type(x) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        return x.sum(-1)

    assert torch.equal(stacked(f)(POINTS[:1]), POINTS[:1].sum(-1))
    assert torch.equal(stacked(attrib.batched(f))(POINTS[:1]), POINTS[:1].sum(-1))


def test_tensors_that_belong_to_the_rows_are_repeated_with_them() -> None:
    weight, label = torch.arange(4.0).double(), torch.tensor([0, 1, 1, 0])
    f = attrib.batched(
        lambda x, w, k: (
            w * torch.stack([x.sin().sum(-1), x.prod(-1)], -1).gather(1, k[:, None])[:, 0]
        ),
        rows=[weight, label],
    )
    expected = torch.stack([f(point) for point in POINTS])
    torch.testing.assert_close(stacked(f)(POINTS), expected)
    # ... and row by row through everything that is built on it.
    alone = [
        attrib.integrated_gradients(
            attrib.batched(
                lambda x, w, k: (
                    w * torch.stack([x.sin().sum(-1), x.prod(-1)], -1).gather(1, k[:, None])[:, 0]
                ),
                rows=[weight[i : i + 1], label[i : i + 1]],
            )
        )(X[i : i + 1])
        for i in range(4)
    ]
    torch.testing.assert_close(attrib.integrated_gradients(f)(X), torch.cat(alone))


def test_arguments_with_one_entry_per_row_are_repeated_and_others_are_shared() -> None:
    seen: list[tuple[tuple[int, ...], ...]] = []

    def f(x: Tensor, row: Tensor, shared: Tensor, flag: bool) -> Tensor:
        seen.append((tuple(row.shape), tuple(shared.shape)))
        assert flag
        return (x * row[:, None]).sum(-1) * shared.sum()

    row, shared = torch.arange(4.0).double(), torch.ones(3, 2, dtype=torch.float64)
    found = attrib.integrated_gradients(attrib.batched(f), steps=5, chunk_size=5)(
        X, 0, row, shared, True
    )
    assert seen == [((20,), (3, 2))]
    torch.testing.assert_close(found, X * row[:, None] * 6)


def test_one_target_for_each_example_goes_with_its_row() -> None:
    model = nn.Linear(3, 2, bias=False).double()
    index = torch.tensor([0, 1, 1, 0])
    found = attrib.integrated_gradients(attrib.target(model, index))(X)
    torch.testing.assert_close(found, X * model.weight[index])
    smoothed = attrib.smooth_grad(attrib.saliency(attrib.target(model, index)), 0.1)(X)
    torch.testing.assert_close(smoothed, model.weight[index])


def test_a_contrast_carries_the_rows_of_both() -> None:
    model = nn.Linear(3, 2, bias=False).double()
    first, second = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 1, 0, 0])
    f = attrib.contrast(attrib.target(model, first), attrib.target(model, second))
    expected = X * (model.weight[first] - model.weight[second])
    torch.testing.assert_close(attrib.integrated_gradients(f)(X), expected)


def test_an_attribution_of_a_marked_score_is_marked() -> None:
    f = attrib.target(Noting(), 0)
    baselines = torch.zeros(6, 3, dtype=torch.float64)
    attributions = [
        attrib.saliency(f),
        attrib.input_x_gradient(f),
        attrib.grad_and_score(f),
        attrib.integrated_gradients(f),
        attrib.average_gradient(f),
        attrib.integrated_hessians(f),
        attrib.guided_ig(f),
        attrib.blur_ig(f, dims=(-1,)),
        attrib.contrast(f, f),
    ]
    assert all(isinstance(attribute, Batched) for attribute in attributions)
    # What draws its own numbers for every row of a batch would draw others for a larger one.
    assert not isinstance(attrib.expected_gradients(f), Batched)
    model = Noting()
    nested = attrib.expected(attrib.integrated_gradients(attrib.target(model, 0), steps=7))
    with torch.no_grad():
        nested(X, baselines)
    assert model.shapes == [(7 * 6 * 4, 3)], "steps, baselines and rows are one batch"


def test_folds_within_folds_give_what_loops_give() -> None:
    model = Noting()
    f = attrib.target(model, torch.tensor([0, 1, 1, 0]))
    noise = torch.Generator()

    def smoothed(**options: object) -> Tensor:
        inner = attrib.expected(attrib.integrated_gradients(f, steps=3, **options), **options)
        return attrib.smooth_grad(inner, 0.1, samples=4, generator=noise.manual_seed(0), **options)(
            X, torch.ones(2, 3, dtype=torch.float64)
        )

    expected = smoothed(chunk_size=1)
    assert max(model.shapes) == (4, 3)
    torch.testing.assert_close(smoothed(chunk_size=None), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(smoothed(), expected, rtol=1e-12, atol=1e-12)


def test_a_module_of_one_example_needs_no_batch_dimension() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    f = attrib.target(model, 1)
    found = attrib.integrated_gradients(f)(X[0])
    torch.testing.assert_close(found, attrib.integrated_gradients(f)(X)[0])


def test_an_error_of_the_model_passes_unchanged() -> None:
    class Wrong(Exception):
        pass

    def f(x: Tensor) -> Tensor:
        raise Wrong("of the model")

    for score in (attrib.batched(f), f):
        with pytest.raises(Wrong) as raised:
            stacked(score)(POINTS)
        assert raised.value.args == ("of the model",)


def test_a_score_with_the_wrong_number_of_rows_is_refused() -> None:
    f = attrib.batched(lambda x: x.sum(-1)[:2])
    with pytest.raises(attrib.AttribError) as refusal:
        attrib.integrated_gradients(f)(X)
    assert refusal.value.code == "score.shape"


@pytest.mark.parametrize("rows", [torch.ones(3), [1, 2], "ab", [None]])
def test_rows_are_a_list_of_tensors(rows: object) -> None:
    with pytest.raises(TypeError, match="rows: ") as refusal:
        attrib.batched(lambda x, y: x, rows=rows)
    assert isinstance(refusal.value, attrib.AttribError)
