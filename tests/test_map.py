"""The engine: lazily made points, chunks, memory that depends on the chunk alone."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib._map import Points, draws, map_chunks, scan, slices

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Notes how many rows it sees at each call; out of memory above some number of them."""

    def __init__(self, limit: int | None = None, error: type[Exception] | None = None) -> None:
        super().__init__()
        self.limit, self.error = limit, error or torch.OutOfMemoryError
        self.seen: list[int] = []
        self.refused: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.limit is not None and len(x) > self.limit:
            self.refused.append(len(x))
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        self.seen.append(len(x))
        return x.sin().sum(-1)


def rows_in_chunks(count: int, chunk_size: Any, like: Tensor = X) -> list[int]:
    points = slices(torch.arange(count))
    return [len(c) for c in map_chunks(lambda p: p, points, chunk_size=chunk_size, like=like)]


@pytest.mark.parametrize(
    ("chunk_size", "sizes"),
    [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7]), (None, [7]), ("auto", [7])],
)
def test_points_come_in_chunks_of_the_given_size(chunk_size: Any, sizes: list[int]) -> None:
    assert rows_in_chunks(7, chunk_size) == sizes


def test_an_automatic_chunk_is_smaller_the_larger_a_point_is() -> None:
    def largest(*shape: int) -> int:
        return max(rows_in_chunks(5000, "auto", torch.empty(shape, device="meta")))

    longer = [largest(1, entries) for entries in (1, 10**3, 10**5, 10**7)]
    more = [largest(rows, 10) for rows in (1, 10, 10**3, 10**7)]
    for sizes in (longer, more):
        assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]
    assert more[-1] == 1, "a batch that is large enough is evaluated point by point"


def test_every_point_is_evaluated_once_and_in_order() -> None:
    for chunk_size in (1, 4, None, "auto"):
        points = slices(torch.arange(11))
        found = list(map_chunks(lambda p: p, points, chunk_size=chunk_size, like=X))
        assert torch.cat(found).tolist() == list(range(11))


def test_points_are_made_when_they_are_needed() -> None:
    events: list[str] = []

    def take(start: int, stop: int) -> Tensor:
        events.append(f"take {start}-{stop}")
        return torch.arange(start, stop)

    for _ in map_chunks(lambda p: p, Points(5, take), chunk_size=2, like=X):
        events.append("folded")
    assert events == ["take 0-2", "folded", "take 2-4", "folded", "take 4-5", "folded"]


def test_draws_are_made_one_after_another() -> None:
    count = iter(range(100))
    points = draws(lambda: torch.tensor(float(next(count))), 5)
    assert torch.cat([points.take(0, 2), points.take(2, 5)]).tolist() == [0, 1, 2, 3, 4]


def test_a_scan_hands_its_state_on() -> None:
    assert scan(lambda index, state: [*state, index], [], 4) == [0, 1, 2, 3]


# Every method that takes a chunk size, and how many points it evaluates.
METHODS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "integrated_gradients": (
        lambda f, **o: attrib.integrated_gradients(f, steps=37, **o),
        (),
    ),
    "average_gradient": (lambda f, **o: attrib.average_gradient(f, steps=37, **o), ()),
    "expected_gradients": (
        lambda f, **o: attrib.expected_gradients(f, samples=37, **o),
        (torch.zeros(2, 3),),
    ),
    "blur_ig": (lambda f, **o: attrib.blur_ig(f, dims=(-1,), max_sigma=2.0, steps=37, **o), ()),
    "smooth_grad": (
        lambda f, **o: attrib.smooth_grad(attrib.saliency(f), 0.1, samples=37, **o),
        (),
    ),
    "expected": (
        lambda f, **o: attrib.expected(attrib.integrated_gradients(f, steps=1), **o),
        (torch.randn(37, 3),),
    ),
}
each = pytest.mark.parametrize("name", METHODS)


@each
@pytest.mark.parametrize("chunk_size", [1, 2, 7, 37, None])
def test_a_model_never_sees_more_rows_than_a_chunk_of_batches(
    name: str, chunk_size: int | None
) -> None:
    method, extra = METHODS[name]
    model = Counting()
    with torch.no_grad():
        method(attrib.target(model), chunk_size=chunk_size)(X, *extra)
    assert max(model.seen) == (chunk_size or 37) * len(X)
    assert sum(model.seen) == 37 * len(X)


@each
def test_a_chunk_that_is_out_of_memory_is_halved_and_the_result_is_the_same(name: str) -> None:
    method, extra = METHODS[name]
    expected = method(attrib.target(Counting()))(X, *extra)
    model = Counting(limit=22)
    found = method(attrib.target(model), chunk_size="auto")(X, *extra)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # 37 points of 4 rows; then 19 and 10, still too large; then 5, and never more again.
    assert model.refused == [148, 76, 40]
    assert max(model.seen) == 20
    # A failure costs at most one more look at a single point, to tell what kind of score it is.
    assert 148 <= sum(model.seen) <= 148 + len(model.refused) * len(X)


def test_a_cpu_that_is_out_of_memory_is_understood_as_well() -> None:
    model = Counting(limit=22, error=RuntimeError)
    found = attrib.integrated_gradients(attrib.target(model), steps=37)(X)
    torch.testing.assert_close(found, X.sin())  # of sums, each feature gets its own
    assert model.refused == [148, 76, 40]


@each
def test_a_chunk_size_that_was_asked_for_is_not_changed(name: str) -> None:
    method, extra = METHODS[name]
    model = Counting(limit=22)
    with pytest.raises(torch.OutOfMemoryError):
        method(attrib.target(model), chunk_size=10)(X, *extra)
    assert model.refused == [40]


@each
def test_one_point_that_is_out_of_memory_is_an_error(name: str) -> None:
    method, extra = METHODS[name]
    model = Counting(limit=3)
    with pytest.raises(torch.OutOfMemoryError):
        method(attrib.target(model))(X, *extra)
    assert model.refused[-1] == len(X)


def test_draws_are_the_same_after_halving() -> None:
    def drawn(limit: int | None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        f = attrib.target(Counting(limit))
        return attrib.smooth_grad(attrib.saliency(f), 1.0, samples=9, generator=generator)(X)

    torch.testing.assert_close(drawn(8), drawn(None))


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    class Wrong(Exception):
        pass

    calls: list[int] = []

    def f(x: Tensor) -> Tensor:
        calls.append(len(x))
        raise Wrong("of the model")

    with pytest.raises(Wrong, match="of the model") as raised:
        attrib.integrated_gradients(attrib.batched(f), chunk_size=5)(X)
    notes = "\n".join(getattr(raised.value, "__notes__", []))
    assert "points 0 to 4 of 50" in notes or not hasattr(raised.value, "add_note")


def test_a_loop_serves_models_that_vmap_cannot_trace() -> None:
    def f(x: Tensor) -> Tensor:
        scale = 2.0 if x.sum().item() > 0 else 1.0  # decides by the numbers
        return scale * x.square().sum(-1)

    with pytest.raises(RuntimeError) as raised:
        attrib.integrated_gradients(f)(X)
    if hasattr(raised.value, "add_note"):
        assert any("chunk_size=1" in note for note in raised.value.__notes__)
    found = attrib.integrated_gradients(f, chunk_size=1)(X.abs())
    torch.testing.assert_close(found, 2 * X.square())


def test_a_recurrent_network_is_explained_as_a_module() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.GRU(3, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.recurrent(x)[0][:, -1]

    model, x = Last().double(), torch.randn(2, 4, 3, dtype=torch.float64)
    f = attrib.target(model, 1)
    with torch.no_grad():
        found = attrib.integrated_gradients(f)(x)
        assert attrib.metrics.completeness(f)(found, x).abs().max() < 1e-8
        looped = attrib.integrated_gradients(f, chunk_size=1)(x)
    torch.testing.assert_close(found, looped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [0, -3])
def test_a_chunk_holds_at_least_one_point(chunk_size: int) -> None:
    with pytest.raises(ValueError, match="chunk_size: too small") as refusal:
        attrib.integrated_gradients(lambda x: x.sum(-1), chunk_size=chunk_size)
    assert isinstance(refusal.value, attrib.AttribError)


@pytest.mark.parametrize("chunk_size", [1.5, "all", True, torch.ones(2)])
def test_a_chunk_size_is_an_integer_auto_or_none(chunk_size: Any) -> None:
    with pytest.raises(TypeError, match="chunk_size: ") as refusal:
        attrib.integrated_gradients(lambda x: x.sum(-1), chunk_size=chunk_size)
    assert isinstance(refusal.value, attrib.AttribError)


def _live_bytes() -> int:
    storages = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if type(thing) is Tensor
        and thing.layout == torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(thing)
    }
    return sum(storages.values())


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "unmarked"])
@pytest.mark.parametrize("chunk_size", [16, "auto"])
def test_memory_does_not_depend_on_the_number_of_steps(chunk_size: Any, marked: bool) -> None:
    x = torch.randn(2, 3000)
    calls, measured = [0], [0]

    def run(steps: int, last: int | None) -> None:
        calls[0] = 0

        def f(x: Tensor) -> Tensor:
            calls[0] += 1
            if calls[0] == last:
                gc.collect()
                measured[0] = _live_bytes()
            return x.sin().sum(-1)

        score = attrib.batched(f) if marked else f
        with torch.no_grad():
            attrib.integrated_gradients(score, steps=steps, chunk_size=chunk_size)(x)

    def before_the_end_of(steps: int) -> int:
        run(steps, last=None)  # the nodes are cached once
        gc.freeze()
        run(steps, last=calls[0] - 1)
        gc.unfreeze()
        return measured[0]

    # From the third chunk on all is there that there will ever be, but for nodes and weights.
    assert before_the_end_of(800) <= 1.1 * before_the_end_of(100)
