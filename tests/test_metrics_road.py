"""Removal of pixels with linear imputation: dense solutions, harmonic images, loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attrib
from attrib import metrics

pytest.importorskip("scipy")


def dense(image: Tensor, missing: Tensor) -> Tensor:
    """The linear system written pixel by pixel, solved as a dense one."""
    height, width = missing.shape
    matrix = torch.eye(height * width).double()
    value = image.flatten(1).T.clone()
    for row in range(height):
        for column in range(width):
            if not missing[row, column]:
                continue
            own = row * width + column
            weights: dict[int, float] = {}
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    r, c = row + down, column + right
                    if (down or right) and 0 <= r < height and 0 <= c < width:
                        weights[r * width + c] = 1 / 12 if down and right else 1 / 6
            for place, weight in weights.items():
                matrix[own, place] = -weight / sum(weights.values())
            value[own] = 0
    return torch.linalg.solve(matrix, value).T.reshape(image.shape)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.95])
def test_imputed_pixels_solve_the_dense_system(share: float) -> None:
    x, missing = torch.randn(4, 3, 5, 6).double(), torch.rand(4, 5, 6) < share
    missing[:, 2, 3] = False
    found = metrics.linear_imputation(x, missing)
    expected = torch.stack([dense(*each) for each in zip(x, missing, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    kept = ~missing[:, None].expand_as(x)
    assert torch.equal(found[kept], x[kept])


def test_a_plane_is_imputed_exactly_inside() -> None:
    """A linear image is the mean of its neighbours, wherever all eight are there."""
    row, column = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    x = (2 * row - 3 * column + 1)[None].double()
    missing = torch.zeros(6, 7, dtype=torch.bool)
    missing[1:5, 1:6] = True
    torch.testing.assert_close(metrics.linear_imputation(x, missing), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["most", "least"])
def test_road_is_a_loop_over_shares(order: Any) -> None:
    torch.manual_seed(3)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(60, 3), torch.nn.Tanh()
    ).double()
    f = attrib.target(model, 1)
    x, phi = torch.randn(4, 3, 4, 5).double(), torch.randn(4, 3, 4, 5).double()
    sign = -1 if order == "most" else 1
    ranks = (sign * phi.sum(1).flatten(1)).argsort(1).argsort(1).reshape(4, 4, 5)
    scores = [f(metrics.linear_imputation(x, ranks < count)) for count in (2, 10, 18)]
    for chunk_size in (1, 2, None):
        measure = metrics.road(
            f, shares=[0.1, 0.5, 0.9], order=order, noise=0.0, chunk_size=chunk_size
        )
        expected = torch.stack(scores).mean(0)
        torch.testing.assert_close(measure(phi, x), expected, rtol=1e-10, atol=1e-12)


def test_every_example_counts_as_if_it_were_alone() -> None:
    f = lambda x: x.square().sum((-3, -2, -1))
    x, phi = torch.randn(4, 3, 4, 5).double(), torch.randn(4, 1, 4, 5).double()
    measure = metrics.road(f, noise=0.0)
    alone = torch.stack([measure(p, image) for p, image in zip(phi, x, strict=True)])
    torch.testing.assert_close(measure(phi, x), alone, rtol=1e-10, atol=0)


def test_noise_is_that_of_the_generator_in_any_chunks() -> None:
    f, x, phi = (
        (lambda x: x.square().sum((1, 2, 3))),
        torch.randn(2, 1, 4, 4),
        torch.randn(2, 1, 4, 4),
    )

    def run(seed: int, **options: Any) -> Tensor:
        return metrics.road(f, generator=torch.Generator().manual_seed(seed), **options)(phi, x)

    torch.testing.assert_close(run(1, chunk_size=1), run(1, chunk_size=4))
    assert not torch.equal(run(1), run(2))
    quiet = metrics.road(f, noise=0.0)(phi, x)
    # Noise of variance 0.25 adds that for each imputed pixel: 8 of 16 on average.
    many = torch.stack([run(seed, noise=0.5) for seed in range(400)]).mean(0)
    assert ((many - quiet - 8 * 0.25).abs() < 0.15).all()


def test_known_pixels_get_no_noise() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.sum((-3, -2, -1))

    x, phi = torch.randn(1, 2, 3, 4), torch.randn(1, 1, 3, 4)
    metrics.road(f, shares=[0.5], chunk_size=1)(phi, x)
    assert int((seen[-1] == x).sum()) == 2 * 6


def test_one_pixel_is_left_where_all_are_to_go() -> None:
    x, phi = torch.rand(1, 2, 3, 4).double(), torch.rand(1, 1, 3, 4).double()
    found = metrics.road(lambda x: x[:, 0].amax((-2, -1)), shares=[1.0], noise=0.0)(phi, x)
    last = phi.flatten(1).argmin(1)
    torch.testing.assert_close(found, x[0, 0].flatten()[last])


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: metrics.road(torch.sum, shares=[]), "shares.range"),
        (lambda: metrics.road(torch.sum, order="best"), "order.unknown"),
        (lambda: metrics.road(torch.sum)(torch.ones(2, 3), torch.ones(2, 3)), "x.shape"),
        (lambda: metrics.road(torch.sum)((), (torch.ones(1, 3, 2, 2),)), "x.traced"),
        (
            lambda: torch.vmap(metrics.road(lambda x: x.sum((-3, -2, -1))))(
                torch.ones(2, 1, 3, 2, 2), torch.ones(2, 1, 3, 2, 2)
            ),
            "x.traced",
        ),
        (
            lambda: metrics.linear_imputation(torch.ones(3, 2, 2), torch.ones(2, 2)),
            "missing.shape",
        ),
        (
            lambda: metrics.linear_imputation(
                torch.ones(3, 2, 2), torch.ones(2, 2, dtype=torch.bool)
            ),
            "missing.range",
        ),
    ],
)
def test_bad_arguments_are_refused(make: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as error:
        make()
    assert error.value.code == code
