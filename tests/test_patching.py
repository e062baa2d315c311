"""Patching between two runs: true effects, first-order estimates, and edges."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import Site
from attrib.games import feature_ablation
from attrib.patching import activation_patching, attribution_patching, edge_attribution_patching
from derivatives import STEP, relative
from laws.state import changes, snapshot

EXACT = 1e-12


def data(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Mixing(nn.Module):
    """Attention without heads, which reads and writes a stream of four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.query(x) @ self.key(x).mT / 2).softmax(-1)
        return weights @ self.value(x)


class Stream(nn.Module):
    """A transformer of two layers over three positions; a linear one has no attention."""

    def __init__(self, linear: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(5, 4)
        mixing: Callable[[], nn.Module] = (lambda: nn.Linear(4, 4)) if linear else Mixing
        self.mixes = nn.ModuleList(mixing() for _ in range(2))
        act = nn.Identity() if linear else nn.GELU()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 4)) for _ in "ab"
        )
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed(x)
        for mix, mlp in zip(self.mixes, self.mlps, strict=True):
            stream = stream + mix(stream)
            stream = stream + mlp(stream)
        return self.last(stream)[..., -1, :]


def stream(linear: bool = False) -> Stream:
    return Stream(linear).double().eval()


def runs() -> tuple[Tensor, Tensor]:
    return data(2, 3, 5), data(2, 3, 5, seed=1)


SITES = ["embed", "mixes.0", "mlps.0", "mixes.1.value", "mlps.1.0"]
sites = pytest.mark.parametrize("site", SITES)
KINDS = ["marked", "closure", "vmap"]
kinds = pytest.mark.parametrize("kind", KINDS)


def score(model: nn.Module, kind: str) -> Any:
    """Scores that tell their model, that do not but have rows, and that have no rows either."""
    closure = lambda x: model(x)[..., 1]
    return {
        "marked": attrib.target(model, 1),
        "closure": attrib.batched(closure),
        "vmap": closure,
    }[kind]


def hooked(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """What a module yields, by a hook of torch."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, out: seen.append(out))
    model(x)
    handle.remove()
    return seen[0]


def patched(model: nn.Module, name: str, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The score when a module yields something else, by a hook of torch."""
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, out: change(out))
    try:
        return model(x)[..., 1]
    finally:
        handle.remove()


# --- true effects ---------------------------------------------------------------------------------


@kinds
@sites
def test_the_effect_is_that_of_a_hook_that_puts_in_the_other_value(site: str, kind: str) -> None:
    model, (x, corrupted) = stream(), runs()
    where = site if kind == "marked" else model.get_submodule(site)
    found = activation_patching(score(model, kind), where)(x, corrupted)
    other = hooked(model, site, corrupted)
    assert relative(found, patched(model, site, x, lambda _: other) - model(x)[:, 1]) <= EXACT


@kinds
@pytest.mark.parametrize("dims", [1, (1,), (1, 2), (2, 1), -1, [-2]])
@pytest.mark.parametrize("chunk_size", ["auto", 1, 5, None])
def test_every_index_is_patched_alone(kind: str, dims: Any, chunk_size: Any) -> None:
    model, (x, corrupted) = stream(), runs()
    site = "mlps.0"
    where = site if kind == "marked" else model.get_submodule(site)
    attribute = activation_patching(score(model, kind), where, dims=dims, chunk_size=chunk_size)
    with torch.no_grad():
        found = attribute(x, corrupted)
    clean, other = hooked(model, site, x), hooked(model, site, corrupted)
    chosen = [dim % 3 for dim in ([dims] if isinstance(dims, int) else dims)]
    sizes = [clean.shape[dim] for dim in chosen]
    assert found.shape == (2, *sizes)
    for index in itertools.product(*map(range, sizes)):
        place: list[Any] = [slice(None)] * 3
        for dim, at in zip(chosen, index, strict=True):
            place[dim] = at
        new = clean.clone()
        new[tuple(place)] = other[tuple(place)]
        truth = patched(model, site, x, lambda _, new=new: new) - model(x)[:, 1]
        assert (found[(slice(None), *index)] - truth).abs().max() <= EXACT


def test_other_groups_of_neurons_are_patched_by_ablation_of_the_layer() -> None:
    model, (x, corrupted) = stream(), runs()
    f, groups = attrib.target(model, 1), torch.tensor([0, 0, 1, 2]).repeat(3, 1)
    ablate = lambda f: feature_ablation(f, groups=groups)
    found = -attrib.layer(ablate, f, "mlps.0")(x, corrupted)
    clean, other = hooked(model, "mlps.0", x), hooked(model, "mlps.0", corrupted)
    for group in range(3):
        new = torch.where(groups == group, other, clean)
        truth = patched(model, "mlps.0", x, lambda _, new=new: new) - model(x)[:, 1]
        assert relative(found[:, 0, [0, 2, 3][group]], truth) <= EXACT


def test_exchanging_the_inputs_restores_instead_of_corrupting() -> None:
    model, (x, corrupted) = stream(), runs()
    found = activation_patching(attrib.target(model, 1), "mlps.0", dims=1)(corrupted, x)
    clean, broken = hooked(model, "mlps.0", x), hooked(model, "mlps.0", corrupted)
    for position in range(3):
        new = broken.clone()
        new[:, position] = clean[:, position]
        restored = patched(model, "mlps.0", corrupted, lambda _, new=new: new)
        assert relative(found[:, position], restored - model(corrupted)[:, 1]) <= 1e-10


def test_a_tree_of_sites_is_patched_one_at_a_time() -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)
    tree = {"first": ["mlps.0", model.mixes[1]], "input": Site("mlps.1", of="input")}
    found = activation_patching(f, tree, dims=1)(x, corrupted)
    assert found.keys() == tree.keys()
    alone = activation_patching(f, "mlps.0", dims=1)(x, corrupted)
    assert relative(found["first"][0], alone) <= EXACT
    alone = activation_patching(f, model.mixes[1], dims=1)(x, corrupted)
    assert relative(found["first"][1], alone) <= EXACT
    alone = activation_patching(f, Site("mlps.1", of="input"), dims=1)(x, corrupted)
    assert relative(found["input"], alone) <= EXACT


def test_what_does_not_differ_has_no_effect() -> None:
    model, (x, corrupted) = stream(), runs()
    corrupted[:, :2] = x[:, :2]  # positions are mixed only behind this site
    effects = activation_patching(attrib.target(model, 1), "embed", dims=(1, 2))(x, corrupted)
    assert effects[:, :2].abs().max() <= 1e-15 < effects[:, 2].abs().min()


def test_a_structure_is_patched_as_a_whole() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True).double()
    model = lambda x: lstm(x)[1][0][0]
    f = attrib.batched(lambda x: attrib.target(model, 1)(x))
    x, corrupted = data(2, 5, 3), data(2, 5, 3, seed=1)
    site = Site(lstm, leaf=1, batch_dim=1)
    found = activation_patching(f, site)(x, corrupted)
    assert relative(found, f(corrupted) - f(x)) <= EXACT
    with pytest.raises(attrib.AttribError) as error:
        activation_patching(f, site, dims=1)(x, corrupted)
    assert error.value.code == "site.several"
    cell = activation_patching(f, Site(lstm, leaf=(1, 1), batch_dim=1), dims=-1)(x, corrupted)
    assert cell.eq(0).all() and cell.shape == (2, 4)


def test_integers_are_patched_without_gradients() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return (self.same(x) * torch.tensor([1, 10, 100])).sum(-1).double()

    x, corrupted = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 2, 5]])
    found = activation_patching(attrib.target(Counting()), "same", dims=1)(x, corrupted)
    assert found.tolist() == [[1.0, 0.0, 200.0]]


# --- first order ----------------------------------------------------------------------------------


@kinds
def test_in_a_linear_model_the_estimate_is_the_effect(kind: str) -> None:
    model, (x, corrupted) = stream(linear=True), runs()
    f, where = score(model, kind), [model.embed, model.mixes[0], model.mlps[1][0]]
    estimates = attribution_patching(f, where)(x, corrupted)
    effects = activation_patching(f, where, dims=(1, 2))(x, corrupted)
    for estimate, effect in zip(estimates, effects, strict=True):
        assert relative(estimate, effect) <= EXACT
    in_steps = attribution_patching(f, where, steps=3)(x, corrupted)
    for estimate, effect in zip(in_steps, effects, strict=True):
        assert relative(estimate, effect) <= EXACT


@sites
def test_the_estimate_is_the_difference_times_the_derivative(site: str) -> None:
    model, (x, corrupted) = stream(), runs()
    found = attribution_patching(attrib.target(model, 1), site)(x, corrupted)
    clean, other = hooked(model, site, x), hooked(model, site, corrupted)
    for place in itertools.product(range(3), range(clean.shape[-1])):
        step = torch.zeros_like(clean)
        step[(slice(None), *place)] = STEP
        ahead = patched(model, site, x, lambda out, step=step: out + step)
        behind = patched(model, site, x, lambda out, step=step: out - step)
        truth = (other - clean)[(slice(None), *place)] * (ahead - behind) / (2 * STEP)
        assert (found[(slice(None), *place)] - truth).abs().max() <= 1e-8


@sites
def test_half_the_corruption_has_a_quarter_of_the_error(site: str) -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)

    def error(size: float) -> Tensor:
        near = x + size * (corrupted - x)
        estimate = attribution_patching(f, site)(x, near).sum((1, 2))
        return (estimate - activation_patching(f, site)(x, near)).abs()

    large, small = error(1e-3), error(5e-4)
    assert ((large / small - 4).abs() <= 0.05).all()
    assert (large <= 1e-3 * activation_patching(f, site)(x, corrupted).abs()).all()


def test_sites_behind_each_other_are_served_by_one_backward_pass() -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)
    passes: list[str] = []
    model.last.register_full_backward_hook(lambda *_: passes.append("backward"))
    model.last.register_forward_hook(lambda *_: passes.append("forward"))
    with torch.no_grad():
        together = attribution_patching(f, SITES)(x, corrupted)
        # The corrupted run is left behind the last site.
        assert passes in (["forward", "backward"], ["forward", "backward", "forward"])
        for site, found in zip(SITES, together, strict=True):
            assert relative(found, attribution_patching(f, site)(x, corrupted)) <= EXACT


# --- the line between the inputs ------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("chunk_size", ["auto", 1, None])
def test_steps_average_the_derivative_along_the_inputs(
    kind: str, recording: bool, chunk_size: Any
) -> None:
    model, (x, corrupted) = stream(), runs()
    where = "mlps.0" if kind == "marked" else model.mlps[0]
    f = score(model, kind)
    with torch.set_grad_enabled(recording):
        attribute = attribution_patching(f, where, steps=4, chunk_size=chunk_size)
        found = attribute(x, corrupted)
    # Equation 3 of Hanna, Pezzelle & Belinkov (2024), whose k = 1 to m start at the corrupted end.
    slopes = []
    for k in range(1, 5):
        point = corrupted + k / 4 * (x - corrupted)
        shift = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True)
        out = patched(model, "mlps.0", point, lambda out, shift=shift: out + shift)
        slopes.append(torch.autograd.grad(out.sum(), shift)[0])
    change = hooked(model, "mlps.0", corrupted) - hooked(model, "mlps.0", x)
    assert relative(found, change * sum(slopes) / 4) <= EXACT


def test_on_a_cut_that_is_affine_in_the_input_steps_add_up_to_the_change() -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)
    attribute = attribution_patching(f, "embed", steps=40, quadrature="gauss-legendre")
    gap = attribute(x, corrupted).sum((1, 2)) - (f(corrupted) - f(x))
    assert gap.abs().max() <= 1e-10 * f(x).abs().max()


class Bent(nn.Module):
    """The line of the inputs is no line behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x)


def test_on_any_cut_integrated_gradients_of_the_layer_add_up_to_the_change() -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(nn.Sequential(Bent(), model), 1)
    method = lambda f: attrib.integrated_gradients(f, steps=40)
    found = -attrib.layer(method, f, "0")(x, corrupted)
    assert relative(found.sum((1, 2)), f(corrupted) - f(x)) <= 1e-10


class Tokens(nn.Module):
    """The stream over token ids, some of which are masked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.table = nn.Embedding(9, 5)
        self.stream = stream()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.stream(self.table(ids) * mask.unsqueeze(-1))


def tokens() -> tuple[Tokens, dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(6)
    ids, others = torch.randint(9, (2, 2, 3), generator=generator)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    model = Tokens().double().eval()
    return model, {"ids": ids, "mask": mask}, {"ids": others, "mask": mask}


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("chunk_size", ["auto", 1, None])
def test_between_token_ids_the_line_is_drawn_along_their_embeddings(
    recording: bool, chunk_size: Any
) -> None:
    model, x, corrupted = tokens()
    f = attrib.target(model, 1)
    with torch.set_grad_enabled(recording):
        attribute = attribution_patching(
            f, ["stream.mlps.0", "stream.mixes.1"], steps=3, along="table", chunk_size=chunk_size
        )
        found = attribute(x, corrupted)
    starts = model.table(x["ids"]), model.table(corrupted["ids"])
    points = [starts[0] + k / 3 * (starts[1] - starts[0]) for k in range(3)]
    masked = [point * x["mask"].unsqueeze(-1) for point in points]
    ends = [start * x["mask"].unsqueeze(-1) for start in starts]
    for name, ours in zip(("mlps.0", "mixes.1"), found, strict=True):
        slopes = []
        for point in masked:
            shift = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True)
            out = patched(model.stream, name, point, lambda out, shift=shift: out + shift)
            slopes.append(torch.autograd.grad(out.sum(), shift)[0])
        change = hooked(model.stream, name, ends[1]) - hooked(model.stream, name, ends[0])
        assert relative(ours, change * sum(slopes) / 3) <= EXACT


@kinds
@pytest.mark.parametrize("recording", [True, False])
def test_where_the_line_is_drawn_steps_are_integrated_gradients(kind: str, recording: bool) -> None:
    model, (x, corrupted) = nn.Sequential(Bent(), stream()), runs()
    f, where = score(model, kind), "0" if kind == "marked" else model[0]
    options: Any = {"steps": 4, "quadrature": "midpoint"}
    with torch.set_grad_enabled(recording):
        found = attribution_patching(f, where, along=where, **options)(x, corrupted)
        integrate = attrib.layer(lambda f: attrib.integrated_gradients(f, **options), f, where)
        assert relative(found, -integrate(x, corrupted)) <= EXACT


def test_a_tap_is_no_site_on_a_line_from_itself() -> None:
    f = attrib.batched(lambda x: attrib.tap("g", attrib.tap("h", x.square()).exp()).prod(-1))
    with pytest.raises(attrib.AttribError) as error:
        attribution_patching(f, ["h", "g"], steps=2, along="h")(data(2, 3), data(2, 3, seed=1))
    assert error.value.code == "along.behind"


@pytest.mark.parametrize("recording", [True, False])
def test_a_line_that_begins_behind_a_site_is_refused(recording: bool) -> None:
    (x, corrupted), f = runs(), attrib.target(stream(), 1)
    attribute = attribution_patching(f, ["mlps.1", "embed"], steps=2, along="mixes.0")
    with torch.set_grad_enabled(recording), pytest.raises(attrib.AttribError) as error:
        attribute(x, corrupted)
    assert error.value.code == "along.behind"


def test_one_step_needs_no_line() -> None:
    model, x, corrupted = tokens()
    f = attrib.target(model, 1)
    found = attribution_patching(f, "stream.mlps.0")(x, corrupted)
    one = attribution_patching(f, "stream.mlps.0", along="table")(x, corrupted)
    assert torch.equal(found, one)
    effect = activation_patching(f, "table")(x, corrupted)
    assert relative(effect, f(corrupted) - f(x)) <= EXACT


# --- edges ----------------------------------------------------------------------------------------

SOURCES = ["embed", "mixes.0", "mlps.0", "mixes.1", "mlps.1"]
DESTINATIONS = ["mixes.0", "mlps.0", "mixes.1", "mlps.1", "last"]


def shifted(model: nn.Module, name: str, x: Tensor, shift: Tensor) -> Tensor:
    """The score when something is added to what a module reads, by a hook of torch."""
    handle = model.get_submodule(name).register_forward_pre_hook(lambda m, args: args[0] + shift)
    try:
        return model(x)[..., 1]
    finally:
        handle.remove()


@kinds
@pytest.mark.parametrize("recording", [True, False])
def test_in_a_linear_model_an_edge_is_what_patching_it_does(kind: str, recording: bool) -> None:
    model, (x, corrupted) = stream(linear=True), runs()
    which = [name if kind == "marked" else model.get_submodule(name) for name in SOURCES]
    ends = [name if kind == "marked" else model.get_submodule(name) for name in DESTINATIONS]
    with torch.set_grad_enabled(recording):
        found = edge_attribution_patching(score(model, kind), which, ends)(x, corrupted)
    assert found.shape == (2, 5, 5)
    for s, d in itertools.product(range(5), range(5)):
        if s > d:
            assert found[:, s, d].isnan().all()
            continue
        shift = hooked(model, SOURCES[s], corrupted) - hooked(model, SOURCES[s], x)
        truth = shifted(model, DESTINATIONS[d], x, shift) - model(x)[:, 1]
        assert (found[:, s, d] - truth).abs().max() <= EXACT


def test_an_edge_is_the_slope_of_patching_it() -> None:
    model, (x, corrupted) = stream(), runs()
    found = edge_attribution_patching(attrib.target(model, 1), SOURCES, DESTINATIONS)(x, corrupted)
    for s, d in itertools.combinations_with_replacement(range(5), 2):
        shift = hooked(model, SOURCES[s], corrupted) - hooked(model, SOURCES[s], x)
        ahead, behind = (
            shifted(model, DESTINATIONS[d], x, sign * STEP * shift) for sign in (1, -1)
        )
        assert (found[:, s, d] - (ahead - behind) / (2 * STEP)).abs().max() <= 1e-8


@pytest.mark.parametrize("steps", [1, 4])
def test_the_edges_of_a_source_add_up_to_its_node(steps: int) -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)
    edges = edge_attribution_patching(f, SOURCES, DESTINATIONS, steps=steps)(x, corrupted)
    nodes = attribution_patching(f, SOURCES, steps=steps)(x, corrupted)
    expected = torch.stack([node.sum((1, 2)) for node in nodes], -1)
    assert relative(edges.nansum(-1), expected) <= EXACT


@pytest.mark.parametrize("quadrature", ["left", "midpoint", "gauss-legendre"])
def test_steps_of_edges_average_the_derivative(quadrature: Any) -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)
    options = {"steps": 3, "quadrature": quadrature}
    found = edge_attribution_patching(f, ["embed"], ["mlps.0", "last"], **options)(x, corrupted)
    ends = [Site("mlps.0", of="input"), Site("last", of="input")]
    shift = hooked(model, "embed", corrupted) - hooked(model, "embed", x)
    influence = attrib.internal_influence(f, ends, **options)
    slopes = influence(corrupted, x)
    expected = torch.stack([(g * shift).sum((1, 2)) for g in slopes], -1).unsqueeze(1)
    assert relative(found, expected) <= EXACT


def test_edges_of_token_ids_take_their_line_along_the_embeddings() -> None:
    model, x, corrupted = tokens()
    f = attrib.target(model, 1)
    names = [f"stream.{name}" for name in SOURCES]
    ends = [f"stream.{name}" for name in DESTINATIONS]
    options = {"steps": 3, "along": "table"}
    edges = edge_attribution_patching(f, names, ends, **options)(x, corrupted)
    nodes = attribution_patching(f, names, **options)(x, corrupted)
    expected = torch.stack([node.sum((1, 2)) for node in nodes], -1)
    assert relative(edges.nansum(-1), expected) <= EXACT


def test_a_source_may_be_the_tap_along_which_the_line_is_drawn() -> None:
    def model(x: Tensor) -> Tensor:
        stream = attrib.tap("embed", x.square())
        return attrib.tap("read", stream + 1).square().sum(-1)

    x, corrupted = data(2, 3), data(2, 3, seed=1)
    attribute = edge_attribution_patching(model, "embed", "read", steps=2, along="embed")
    start, change = x.square(), corrupted.square() - x.square()
    slope = (2 * (start + 1) + 2 * (start + change / 2 + 1)) / 2
    assert relative(attribute(x, corrupted)[:, 0, 0], (change * slope).sum(-1)) <= EXACT


def test_edges_follow_the_order_of_the_trees_not_that_of_the_model() -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, 1)
    straight = edge_attribution_patching(f, SOURCES, DESTINATIONS)(x, corrupted)
    turned = edge_attribution_patching(f, SOURCES[::-1], DESTINATIONS[::-1])(x, corrupted)
    assert torch.equal(turned.flip(-1, -2).isnan(), straight.isnan())
    assert relative(turned.flip(-1, -2).nan_to_num(), straight.nan_to_num()) <= EXACT


def test_calls_of_a_reused_module_are_ends_of_their_own() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.step, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.step(x)
            return self.last(x + self.step(x))

    model = Reused().double()
    x, corrupted = data(2, 4), data(2, 4, seed=1)
    sources = [Site("step", call=call) for call in range(2)]
    ends = [Site("step", of="input", call=call) for call in range(2)]
    found = edge_attribution_patching(attrib.target(model, 1), sources, [*ends, "last"])(
        x, corrupted
    )
    assert found.isnan()[0].tolist() == [[True, False, False], [True, True, False]]
    change = model.step(corrupted - x) - model.step.bias
    through = model.last.weight[1] @ model.step.weight
    assert relative(found[:, 0, 1], change @ through) <= EXACT
    assert relative(found[:, 0, 2], change @ model.last.weight[1]) <= EXACT


# --- transforms -----------------------------------------------------------------------------------

METHODS: dict[str, Callable[[Any], Any]] = {
    "effects": lambda f: activation_patching(f, "mlps.0"),
    "effects of positions": lambda f: activation_patching(f, "mixes.0", dims=1),
    "estimates": lambda f: attribution_patching(f, "mlps.0"),
    "estimates in steps": lambda f: attribution_patching(f, "mlps.0", steps=3),
    "estimates along": lambda f: attribution_patching(f, "mlps.0", steps=3, along="embed"),
    "edges": lambda f: edge_attribution_patching(f, SOURCES[:2], DESTINATIONS[2:]),
    "edges in steps": lambda f: edge_attribution_patching(
        f, SOURCES[:2], DESTINATIONS[2:], steps=3, along="embed"
    ),
}
methods = pytest.mark.parametrize("name", METHODS)
recordings = pytest.mark.parametrize("recording", [True, False])


@methods
@recordings
def test_vmap_is_the_loop(name: str, recording: bool) -> None:
    attribute = METHODS[name](attrib.target(stream(), 1))
    x, corrupted = data(3, 2, 3, 5), data(3, 2, 3, 5, seed=1)
    with torch.set_grad_enabled(recording):
        each = [attribute(*pair) for pair in zip(x, corrupted, strict=True)]
        assert relative(torch.vmap(attribute)(x, corrupted), torch.stack(each)) <= EXACT


@methods
@recordings
def test_an_example_gets_alone_what_it_gets_in_any_batch(name: str, recording: bool) -> None:
    model, (x, corrupted) = stream(), runs()
    attribute = METHODS[name](attrib.target(model, 1))
    with torch.set_grad_enabled(recording):
        together = attribute(x, corrupted)
        assert relative(attribute(x[:1], corrupted[:1]), together[:1]) <= EXACT
        plain = METHODS[name](attrib.target(model, lambda out: out[..., 1]))
        if "positions" not in name:  # whose dimensions count from the batch
            assert relative(plain(x[0], corrupted[0]), together[0]) <= EXACT


@methods
def test_examples_are_folded_into_the_batch(name: str) -> None:
    attribute, (x, corrupted) = METHODS[name](attrib.target(stream(), 1)), runs()
    smoothed = attrib.smooth(attribute, lambda x: x * 1.5, samples=3)
    assert relative(smoothed(x, corrupted), attribute(x * 1.5, corrupted)) <= EXACT


@methods
def test_targets_of_rows_stay_with_their_rows(name: str) -> None:
    model, (x, corrupted) = stream(), runs()
    f = attrib.target(model, torch.tensor([2, 0]))
    both = METHODS[name](f)(x, corrupted)
    each = [METHODS[name](attrib.target(model, k))(x, corrupted) for k in (2, 0)]
    assert relative(both, torch.stack([each[0][0], each[1][1]])) <= EXACT
    folded = attrib.smooth(METHODS[name](f), lambda x: x, samples=3)
    assert relative(folded(x, corrupted), both) <= EXACT


@methods
def test_compiled_is_eager(name: str) -> None:
    attribute, (x, corrupted) = METHODS[name](attrib.target(stream(), 1)), runs()
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x, corrupted), attribute(x, corrupted)) <= EXACT


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forward mode, in torch itself
@methods
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    attribute, (x, corrupted) = METHODS[name](attrib.target(stream(), 1)), runs()
    way, value = data(2, 3, 5, seed=2), lambda x: attribute(x, corrupted).pow(2).sum()
    found = (torch.func.grad(value)(x) * way).sum()
    expected = (value(x + STEP * way) - value(x - STEP * way)) / (2 * STEP)
    assert abs(found - expected) <= 1e-6 * abs(expected)
    assert abs(torch.func.jvp(value, (x,), (way,))[1] - found) <= 1e-9 * abs(found)


@methods
@recordings
def test_nothing_is_left_behind(name: str, recording: bool) -> None:
    model, (x, corrupted) = stream(), runs()
    before = snapshot(model, [x, corrupted])
    with torch.set_grad_enabled(recording):
        METHODS[name](attrib.target(model, 1))(x, corrupted)
    assert changes(before, snapshot(model, [x, corrupted])) == []

    def broken(x: Tensor) -> Tensor:
        raise KeyError(float(model(x).detach().sum()))

    with pytest.raises(KeyError):
        edge_attribution_patching(attrib.batched(broken), model.embed, model.last)(x, corrupted)
    assert changes(before, snapshot(model, [x, corrupted])) == []


@methods
def test_threads_do_not_see_each_other(name: str) -> None:
    model = stream()
    attribute = METHODS[name](attrib.target(model, 1))
    inputs = [(data(2, 3, 5, seed=n), data(2, 3, 5, seed=n + 9)) for n in range(4)]
    expected, plain = [attribute(*pair) for pair in inputs], [model(x) for x, _ in inputs]
    wrong: list[str] = []

    def work(number: int) -> None:
        for _ in range(5):
            if relative(attribute(*inputs[number]), expected[number]) > EXACT:
                wrong.append(f"attribution {number}")
            if not torch.equal(model(inputs[number][0]), plain[number]):
                wrong.append(f"model {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- a language model -----------------------------------------------------------------------------


def gpt2(**options: Any) -> tuple[Any, Any, dict[str, Tensor], dict[str, Tensor]]:
    hf = pytest.importorskip("transformers")
    torch.manual_seed(1)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    config = hf.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2, **options)
    model = hf.GPT2LMHeadModel(config).double().eval()
    ids, others = torch.randint(3, 20, (2, 2, 6))
    f = attrib.target(model, lambda out: out.logits[:, -1, 3] - out.logits[:, -1, 5])
    return model, f, {"input_ids": ids}, {"input_ids": others}


def test_positions_of_a_language_model_are_patched_as_by_hooks() -> None:
    model, f, x, corrupted = gpt2()
    name = "transformer.h.0.mlp"
    found = activation_patching(f, name, dims=1)(x, corrupted)
    seen: list[Tensor] = []
    part = model.get_submodule(name)
    handle = part.register_forward_hook(lambda m, a, out: seen.append(out))
    scores = [f(x), f(corrupted)]
    handle.remove()
    for position in range(6):
        new = seen[0].clone()
        new[:, position] = seen[1][:, position]
        handle = part.register_forward_hook(lambda m, a, out, new=new: new)
        truth = f(x) - scores[0]
        handle.remove()
        assert torch.allclose(found[:, position], truth, rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 3])
def test_edges_of_a_language_model_add_up_to_its_nodes(steps: int) -> None:
    _, f, x, corrupted = gpt2()
    layers = [f"transformer.h.{n}" for n in range(2)]
    sources: list[Any] = ["transformer.drop"]
    ends: list[Any] = []
    for layer in layers:
        # In some versions an attention yields its weights beside its output.
        sources += [f"{layer}.attn.resid_dropout", f"{layer}.mlp"]
        ends += [f"{layer}.ln_1", f"{layer}.ln_2"]
    ends.append("transformer.ln_f")
    options: Any = {"steps": steps, "along": "transformer.wte"}
    with torch.no_grad():
        edges = edge_attribution_patching(f, sources, ends, **options)(x, corrupted)
        nodes = attribution_patching(f, sources, **options)(x, corrupted)
    expected = torch.stack([node.sum((1, 2)) for node in nodes], -1)
    assert edges.isnan()[0].tolist() == torch.ones(5, 5).tril(-1).bool().tolist()
    assert relative(edges.nansum(-1), expected) <= 1e-10


GUIDE = Path(__file__).parents[1] / "docs" / "attention-and-patching.md"


def guide(part: str) -> list[Any]:
    """The sites that the guide names for this part of GPT-2, those of block 0 in both blocks."""
    rows = re.findall(rf"^\| {part}.*\| `(.+?)` \|$", GUIDE.read_text("utf-8"), re.MULTILINE)
    texts = [row.replace(".h.0", f".h.{n}") for n in range(2) for row in rows]
    return [eval(text, {"Site": Site}) for text in dict.fromkeys(texts)]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_sites_of_gpt2_in_the_guide_are_nodes_and_edges(steps: int) -> None:
    _, f, x, corrupted = gpt2()
    (along,) = guide("the line")
    sources, destinations = guide("a source"), guide("a destination")
    assert len(sources) == 5 and len(destinations) == 7
    options: Any = {"steps": steps, "along": along}
    with torch.no_grad():
        nodes = attribution_patching(f, sources, **options)(x, corrupted)
        edges = edge_attribution_patching(f, sources, destinations, **options)(x, corrupted)
    expected = torch.stack([node.sum((1, 2)) for node in nodes], -1)
    # All that reads the stream: an attention, an MLP, the logits. A block is what two of them read.
    read = [n for n, end in enumerate(destinations) if isinstance(end, str)]
    assert relative(edges[..., read].nansum(-1), expected) <= 1e-10
    # What goes into a block is read by all that comes after.
    into_second = destinations.index(Site("transformer.h.1", of="input", leaf=0))
    before = [0, *(n for n, site in enumerate(sources) if "h.0" in str(site))]
    after = [n for n in read if "h.0" not in destinations[n]]
    joint = edges[:, before][:, :, after].sum(-1)
    assert relative(edges[:, before, into_second], joint) <= 1e-10


def test_a_block_that_takes_more_than_the_stream_asks_for_its_first_argument() -> None:
    _, f, x, corrupted = gpt2(attn_implementation="eager")  # whose masks are added to logits
    whole, masked = "transformer.h.1", {"attention_mask": torch.tensor([[1] * 6, [0] + [1] * 5])}
    exact = edge_attribution_patching(f, "transformer.drop", Site(whole, of="input", leaf=0))
    bare = edge_attribution_patching(f, "transformer.drop", whole)
    for recording in (True, False):
        with (
            torch.set_grad_enabled(recording),
            pytest.raises(attrib.AttribError, match=r'of="input", leaf=0') as error,
        ):
            bare(x | masked, corrupted | masked)
        assert error.value.code in ("site.batch", "site.several")
    assert exact(x | masked, corrupted | masked).isfinite().all()
    # Otherwise the stream is all that has numbers to differentiate by.
    _, f, x, corrupted = gpt2()
    bare = edge_attribution_patching(f, "transformer.drop", whole)
    exact = edge_attribution_patching(f, "transformer.drop", Site(whole, of="input", leaf=0))
    for recording in (True, False):
        with torch.set_grad_enabled(recording):
            found = bare(x | masked, corrupted | masked)
            assert relative(found, exact(x | masked, corrupted | masked)) <= EXACT
    two = nn.Bilinear(4, 4, 4).double()
    model = lambda x: two(x, attrib.tap("h", x.square())).sum(-1)
    with pytest.raises(attrib.AttribError, match=r'of="input", leaf=0') as error:
        edge_attribution_patching(model, "h", two)(data(2, 4), data(2, 4, seed=1))
    assert error.value.code == "site.several"


# --- what is refused ------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dims of the batch": (lambda f: activation_patching(f, "mlps.0", dims=0), "dims.range"),
    "dims beyond": (lambda f: activation_patching(f, "mlps.0", dims=(1, 3)), "dims.range"),
    "dims twice": (lambda f: activation_patching(f, "mlps.0", dims=(1, -2)), "dims.range"),
    "dims in words": (lambda f: activation_patching(f, "mlps.0", dims="positions"), "dims.type"),
    "a truth value": (lambda f: activation_patching(f, "mlps.0", dims=True), "dims.type"),
    "steps": (lambda f: attribution_patching(f, "mlps.0", steps=0), "steps.range"),
    "a rule": (
        lambda f: attribution_patching(f, "mlps.0", quadrature="simpson"),
        "quadrature.unknown",
    ),
    "two starts": (
        lambda f: attribution_patching(f, "mlps.0", along=["embed", "mixes.0"]),
        "along.type",
    ),
    "no such site": (lambda f: attribution_patching(f, "mlp.0"), "site.unknown"),
    "no function": (lambda f: activation_patching(3, "mlps.0"), "f.type"),  # type: ignore[arg-type]
    "other streams": (
        lambda f: edge_attribution_patching(f, "mlps.0", "mlps.0.2"),
        "edges.shape",
    ),
    "all calls": (
        lambda f: edge_attribution_patching(f, [Site("mlps.0.1", call="all")], ["last"]),
        "site.several",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_patched_is_refused(what: str) -> None:
    factory, code = WRONG[what]
    with pytest.raises(attrib.AttribError) as error:
        factory(attrib.target(stream(), 1))(*runs())
    assert error.value.code == code


@pytest.mark.parametrize(
    "corrupted, code",
    [
        (data(2, 4, 5), "corrupted.shape"),
        ((data(2, 3, 5), data(2, 3, 5)), "corrupted.structure"),
        ("zeros", "corrupted.type"),
    ],
)
@methods
def test_another_input_of_another_form_is_refused(name: str, corrupted: Any, code: str) -> None:
    with pytest.raises(attrib.AttribError) as error:
        METHODS[name](attrib.target(stream(), 1))(runs()[0], corrupted)
    assert error.value.code == code


@methods
def test_a_number_stands_for_an_input_of_it(name: str) -> None:
    attribute, (x, _) = METHODS[name](attrib.target(stream(), 1)), runs()
    assert torch.equal(attribute(x, 0.5), attribute(x, torch.full_like(x, 0.5)))


def test_runs_in_which_a_site_yields_different_shapes_are_refused() -> None:
    class Short(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            kept = x[:, x[0] > 0]
            return self.same(kept).sum(-1)

    f = attrib.target(Short())
    x, corrupted = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, -3.0]])
    for method in (activation_patching, attribution_patching):
        with pytest.raises(attrib.AttribError) as error:
            method(f, "same")(x, corrupted)
        assert error.value.code == "patching.shape"


def test_token_ids_have_no_points_in_between() -> None:
    model, x, corrupted = tokens()
    with pytest.raises(attrib.AttribError, match="along=") as error:
        attribution_patching(attrib.target(model, 1), "stream.mlps.0", steps=2)(x, corrupted)
    assert error.value.code == "along.missing"


def test_numbers_keep_their_dtype() -> None:
    model, (x, corrupted) = stream().float(), runs()
    f = attrib.target(model, 1)
    for method in METHODS.values():
        assert method(f)(x.float(), corrupted.float()).dtype == torch.float32
