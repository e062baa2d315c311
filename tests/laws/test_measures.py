"""The laws that every measure keeps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib.metrics import DIRECTION
from laws.compare import assert_close, dtypes
from laws.measures import MEASURES, UNUSED, MeasureInfo, Setting, every, noise
from laws.networks import data, network
from laws.state import changes, nothing_kept, snapshot

SHIFTED = {torch.float32: 2e-5, torch.float64: 1e-11}
EXACT = SHIFTED[torch.float64]


def setting(dtype: torch.dtype = torch.float64, **more: Any) -> Setting:
    return Setting(network("gelu", 1, dtype), **more)


def whole(x: Tensor) -> Tensor:
    """A score that is a plain function of x."""
    return x


def test_the_table_has_every_measure() -> None:
    assert {info.name.split("[")[0] for info in MEASURES} == set(DIRECTION)


@every()
@dtypes
def test_a_measure_is_one_finite_number_per_example_and_states_its_direction(
    info: MeasureInfo, dtype: torch.dtype
) -> None:
    measure: Any = info.make(setting(dtype))
    assert measure.better == DIRECTION[info.name.split("[")[0]]
    with torch.no_grad():
        found = info.call(measure, data("gelu", 2, dtype))
    assert found.shape == (5,) and found.dtype == dtype and found.isfinite().all()
    assert type(found) is Tensor


@every()
def test_permuting_the_examples_permutes_the_measures_in_any_company(info: MeasureInfo) -> None:
    x = data("gelu", 2)
    others = torch.cat([3 * data("gelu", 3), x[[3, 1]], data("gelu", 4)])
    with torch.no_grad():
        found, part = info(setting(), x), info(setting(), others)
    assert_close(part[5:7], found[[3, 1]], EXACT, found)


@every(lambda info: info.chunked)
def test_the_size_of_the_chunks_does_not_matter(info: MeasureInfo) -> None:
    x = data("gelu", 2)
    with torch.no_grad():
        for move in (noise, setting().move):
            expected = info(setting(move=move, options={"chunk_size": 1}), x)
            for chunk_size in (2, None, "auto"):
                found = info(setting(move=move, options={"chunk_size": chunk_size}), x)
                assert_close(found, expected, EXACT)
            if not info.moves:
                break


@every()
def test_a_module_and_a_plain_function_measure_the_same(info: MeasureInfo) -> None:
    x = data("gelu", 2)
    with torch.no_grad():
        assert_close(info(setting(joined=whole), x), info(setting(), x), EXACT)


@every()
def test_there_may_be_two_batch_dimensions_one_or_none(info: MeasureInfo) -> None:
    x = data("gelu", 2, batch=(6,))
    with torch.no_grad():
        expected = info(setting(joined=whole), x)
        nested = info(setting(joined=whole, dims=2), x.unflatten(0, (2, 3)))
        assert_close(nested.flatten(), expected, EXACT)
        for joined in (None, whole):
            alone = info(setting(joined=joined, dims=0), x[1])
            assert_close(alone, expected[1], EXACT, expected)


@every()
def test_a_batch_may_be_empty(info: MeasureInfo) -> None:
    with torch.no_grad():
        for joined in (None, whole):
            found = info(setting(joined=joined), data("gelu", batch=(0,)))
            assert found.shape == (0,) and found.dtype == torch.float64


@every(lambda info: info.trees)
def test_a_tuple_of_pieces_is_measured_like_the_whole(info: MeasureInfo) -> None:
    def split(x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x[..., :2], [x[..., 2:3], x[..., 3:]]

    def joined(x: tuple[Tensor, list[Tensor]]) -> Tensor:
        return torch.cat([x[0], *x[1]], -1)

    x = data("gelu", 2)
    with torch.no_grad():
        pieces = info(setting(joined=joined, unused=split(UNUSED)), split(x))
        assert_close(pieces, info(setting(), x), EXACT)


@every(lambda info: info.degree is not None)
def test_the_unit_of_a_measure_is_that_of_a_power_of_the_score(info: MeasureInfo) -> None:
    x = data("gelu", 2)
    with torch.no_grad():
        expected = info(setting(), x)
        found = info(setting(scale=2.5), x)
    assert_close(found, 2.5**info.degree * expected, 1e-9)


@every(lambda info: info.mapped)
def test_vmap_over_examples_is_a_loop(info: MeasureInfo) -> None:
    x = data("gelu", 2, batch=(3,))
    for joined in (None, whole):
        of_one = lambda x, joined=joined: info(setting(joined=joined, dims=0), x)
        with torch.no_grad():
            found = torch.vmap(of_one, randomness="same")(x)
            assert_close(found, torch.stack([of_one(row) for row in x]), EXACT)


@every(lambda info: not info.mapped)
def test_a_measure_that_does_not_work_under_vmap_refuses_it(info: MeasureInfo) -> None:
    own = setting(dims=0)
    with pytest.raises(attrib.AttribError, match=r"torch\.func"):
        torch.vmap(lambda x: info(own, x))(data("gelu", 2))


# One for each way through the engine: chunks of coalitions, of draws, of models; and none.
COMPILED = ("deletion", "max_sensitivity", "parameter_randomisation", "relevance_mass")


@every(lambda info: info.name in COMPILED)
def test_a_compiled_measure_gives_the_same_numbers(info: MeasureInfo) -> None:
    # Without a generator, which a compiler does not know: the draws are those of the global one.
    own, x = setting(move=lambda: lambda x: 0.9 * x, seed=None), data("gelu", 2)
    torch.compiler.reset()
    with torch.no_grad():
        measure = info.make(own)
        expected = info.call(measure, x)
        compiled = torch.compile(lambda x: info.call(measure, x), fullgraph=True, backend="eager")
        assert_close(compiled(x), expected, EXACT)


@every(lambda info: info.smooth)
def test_its_slopes_are_those_of_finite_differences(info: MeasureInfo) -> None:
    own, x = setting(), data("gelu", 2, batch=(2,)).requires_grad_()
    weight = own.model[2].weight

    def measured() -> Tensor:
        return info(own, x).sum()

    tensors = [x, weight]
    slopes = torch.autograd.grad(measured(), tensors, allow_unused=True)
    generator = torch.Generator().manual_seed(0)
    for tensor, slope in zip(tensors, slopes, strict=True):
        assert slope is not None and slope.abs().sum() > 0
        by = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        before, step = tensor.detach().clone(), 1e-6
        with torch.no_grad():
            ends: list[Tensor] = []
            for sign in (1, -1):
                tensor.copy_(before + sign * step * by)
                ends.append(measured())
            tensor.copy_(before)
        scale = (slope * by).abs().sum().clamp_min(1e-3)
        assert_close((ends[0] - ends[1]) / (2 * step), (slope * by).sum(), 1e-5, scale)


@every(lambda info: info.smooth)
def test_torch_func_and_backward_agree_on_its_slopes(info: MeasureInfo) -> None:
    own, x = setting(), data("gelu", 2, batch=(2,))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(info(own, leaf).sum(), leaf)
    assert_close(torch.func.grad(lambda x: info(own, x).sum())(x), expected, 1e-10)


@every()
def test_recording_gradients_does_not_change_the_numbers(info: MeasureInfo) -> None:
    own, x = setting(), data("gelu", 2)
    recorded = info(own, x)
    with torch.no_grad():
        alone = info(own, x)
        assert not alone.requires_grad
    with torch.inference_mode():
        inside = info(own, x)
    assert_close(alone, recorded.detach(), EXACT)
    assert_close(inside.clone(), recorded.detach(), EXACT)
    assert recorded.requires_grad or not info.smooth


@every()
def test_the_layout_of_the_input_in_memory_does_not_matter(info: MeasureInfo) -> None:
    own, x = setting(), data("gelu", 2)
    strided = torch.stack([x, -x], -1)[..., 0]
    assert not strided.is_contiguous()
    with torch.no_grad():
        assert_close(info(own, strided), info(own, x), EXACT)
        expanded = x[:1].expand_as(x)
        assert_close(info(own, expanded), info(own, expanded.clone()), EXACT)


@every()
def test_a_call_changes_nothing(info: MeasureInfo) -> None:
    own, x = setting(), data("gelu", 2).requires_grad_()
    next(own.model.parameters()).grad = torch.ones_like(next(own.model.parameters()))
    before = snapshot(own.model, [x])
    info(own, x)
    with torch.no_grad():
        info(replace(own, joined=whole), x)
    assert changes(before, snapshot(own.model, [x])) == []


class _Broken(Exception):
    pass


@every()
@pytest.mark.parametrize("call", [0, 1, 2])
def test_the_exception_of_a_model_passes_through_and_leaves_nothing_behind(
    info: MeasureInfo, call: int
) -> None:
    own, x, left = setting(), data("gelu", 2), [call]

    def broken(module: nn.Module, args: Any, result: Tensor) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise _Broken("of the model")

    expected = info(own, x)
    handle = own.model[2].register_forward_hook(broken)
    before = snapshot(own.model, [x])
    options = {"chunk_size": 1} if info.chunked else {}
    try:
        info(replace(own, options=options), x)
    except _Broken as error:
        assert error.args == ("of the model",)
    else:
        assert left[0] >= 0, "the model raised, and nobody heard of it"
    assert changes(before, snapshot(own.model, [x])) == []
    handle.remove()
    assert torch.equal(info(own, x), expected)


@every()
def test_the_same_seed_gives_the_same_bits(info: MeasureInfo) -> None:
    x = data("gelu", 2)
    for move in (noise, setting().move):
        assert torch.equal(info(setting(move=move), x), info(setting(move=move), x))


@every(lambda info: info.seeded and info.name not in ("road", "random_logit"))
def test_another_seed_gives_other_draws(info: MeasureInfo) -> None:
    x = data("gelu", 2)
    assert not torch.equal(info(setting(), x), info(setting(seed=1), x))


@every()
def test_four_threads_measure_what_one_does(info: MeasureInfo) -> None:
    own = setting()
    drawn = [data("gelu", seed) for seed in range(4)]

    def measured(place: int) -> Tensor:
        torch.set_num_threads(1)
        with torch.no_grad():  # of this thread
            return info(own, drawn[place])

    alone = [measured(place) for place in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            assert all(map(torch.equal, pool.map(measured, range(4)), alone))


@every()
def test_nothing_is_kept_in_memory(info: MeasureInfo) -> None:
    own, x = setting(), data("gelu", 2)
    info(own, x)
    with nothing_kept():
        for _ in range(3):
            info(own, x)
