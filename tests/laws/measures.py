"""The table of measures: how each is made and called, and what may be asked of it.

A new measure is a new row. All rows keep the laws of `test_measures.py`, but for what a row says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import attrib
from attrib import metrics
from attrib.types import Attribute, Measure, Perturb, Score, Tree
from laws.networks import CLASSES

UNUSED = torch.tensor([False, False, True, False, False, False])


def steps() -> Perturb:
    """Other draws at every call, whatever stands beside an example."""
    factors: Iterator[float] = iter([0.9, 1.1, 0.8, 1.05] * 20)

    def move(x: Tree) -> Tree:
        factor = next(factors)
        return pytree.tree_map(lambda leaf: factor * leaf, x)

    return move


def noise(seed: int = 0) -> Perturb:
    """Normal noise."""
    return attrib.perturb.gaussian(0.1, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Setting:
    """What a measure is made for.

    Attributes:
        model: From ``(*batch, features)`` to logits.
        move: Makes the perturbation of those that perturb.
        dims: How many batch dimensions there are.
        seed: Of what a measure draws itself; without one it is not given a generator.
        joined: From x to what the model takes; without it, the score is that of `attrib.target`.
        scale: A factor of the score.
        unused: Features that the score is said not to use, in the form of x.
        options: Options of the measure, such as the size of chunks.
    """

    model: nn.Module
    move: Callable[[], Perturb] = steps
    dims: int = 1
    seed: int | None = 0
    joined: Callable[[Tree], Tensor] | None = None
    scale: float = 1.0
    unused: Tree = UNUSED
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def outputs(self, x: Tree) -> Tensor:
        """The logits."""
        return self.scale * self.model(x if self.joined is None else self.joined(x))

    def score(self, model: nn.Module | None = None, index: Any = 0) -> Score:
        """A logit."""
        model = self.model if model is None else model
        joined, scale = self.joined, self.scale
        if joined is None and scale == 1:
            return attrib.target(model, index)

        def f(x: Tree) -> Tensor:
            logits = scale * model(x if joined is None else joined(x))
            chosen = torch.as_tensor(index, device=logits.device).expand(logits.shape[:-1])
            return logits.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)

        return f

    def explained(self) -> Attribute:
        """An attribution of the logit, from a baseline."""
        return attrib.integrated_gradients(self.score(), steps=3)

    def sloped(self, model: nn.Module | None = None, index: Any = 0) -> Attribute:
        """The slope of a logit."""
        return attrib.saliency(self.score(model, index))

    def generator(self) -> dict[str, torch.Generator]:
        """The option of those that draw."""
        return {} if self.seed is None else {"generator": torch.Generator().manual_seed(self.seed)}


Call = Callable[[Measure, Tree], Tensor]


def _from_baseline(measure: Measure, x: Tree) -> Tensor:
    return measure(x, 0.1)


def _alone(measure: Measure, x: Tree) -> Tensor:
    return measure(x)


def _masked(measure: Measure, x: Tensor) -> Tensor:
    return measure(x, torch.arange(x.shape[-1]).expand(x.shape) < 2)


def _of_class(measure: Measure, x: Tree) -> Tensor:
    return measure(x, 0)


def _pictured(measure: Measure, x: Tensor) -> Tensor:
    return measure(x.unflatten(-1, (1, 2, 3)))


@dataclass(frozen=True)
class MeasureInfo:
    """One measure.

    Attributes:
        name: Its name in `attrib.metrics`.
        make: For a setting.
        call: With the data of its attribution function.
        seeded: Whether it takes a generator.
        moves: Whether it perturbs by a function of its user.
        chunked: Whether it takes a size of chunks.
        smooth: Whether it has derivatives.
        degree: The measure of ``c * f`` is ``c**degree`` times that of ``f`` for positive c;
            ``None`` if it is no such multiple.
        trees: Whether x may be more than one tensor.
        mapped: Whether `torch.vmap` works.
    """

    name: str
    make: Callable[[Setting], Measure]
    call: Call = _from_baseline
    seeded: bool = False
    moves: bool = False
    chunked: bool = False
    smooth: bool = True
    degree: int | None = 0
    trees: bool = True
    mapped: bool = True

    def __call__(self, setting: Setting, x: Tree) -> Tensor:
        return self.call(self.make(setting), x)


def every(condition: Callable[[MeasureInfo], bool] = lambda info: True) -> pytest.MarkDecorator:
    """Run a test for every measure with a property."""
    rows = [info for info in MEASURES if condition(info)]
    return pytest.mark.parametrize("info", rows, ids=[info.name for info in rows])


def _hiding(name: str, **more: Any) -> MeasureInfo:
    """Those that hide features of a score."""
    fixed = more.pop("fixed", {})
    factory = getattr(metrics, name)

    def make(s: Setting) -> Measure:
        drawn = s.generator() if more.get("seeded") else {}
        return factory(s.score(), s.explained(), **fixed, **drawn, **s.options)

    return MeasureInfo(name, make, **{"chunked": True, **more})


def _moving(name: str, degree: int = 0) -> MeasureInfo:
    """Those that move the input of an attribution."""
    factory = getattr(metrics, name)

    def make(s: Setting) -> Measure:
        return factory(s.explained(), s.move(), samples=4, batch_dims=s.dims, **s.options)

    return MeasureInfo(name, make, _alone, moves=True, chunked=True, degree=degree)


def _looking(name: str, call: Call = _alone, **more: Any) -> MeasureInfo:
    """Those that look at an attribution alone, or at a mask beside it."""
    fixed = more.pop("fixed", {})
    factory = getattr(metrics, name)

    def make(s: Setting) -> Measure:
        return factory(s.explained(), batch_dims=s.dims, **fixed)

    return MeasureInfo(name, make, call, trees=call is _alone, **more)


def _infidelity(s: Setting) -> Measure:
    return metrics.infidelity(
        s.score(), s.explained(), s.move(), samples=4, form="global", **s.options
    )


def _hidden_infidelity(s: Setting) -> Measure:
    hiding = metrics.hiding(**s.generator())
    return metrics.infidelity(s.score(), s.explained(), hiding, samples=6, **s.options)


def _outputs_stability(s: Setting) -> Measure:
    return metrics.relative_output_stability(
        s.explained(), s.outputs, s.move(), samples=4, batch_dims=s.dims, **s.options
    )


def _layer_stability(s: Setting) -> Measure:
    read, joined = attrib.activation(s.model, "1"), s.joined
    layer = read if joined is None else lambda x: read(joined(x))
    return metrics.relative_representation_stability(
        s.explained(), layer, s.move(), samples=4, batch_dims=s.dims, **s.options
    )


def _squared(f: Score) -> Attribute:
    """No linear method."""
    slope = attrib.saliency(f)
    return lambda x: pytree.tree_map(torch.square, slope(x))


def _linearity(s: Setting) -> Measure:
    return metrics.linearity(_squared, s.score(), s.score(index=1), batch_dims=s.dims)


def _normal(parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    """Constants: the default ones have the size of what they replace."""
    return torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def _randomised(s: Setting) -> Measure:
    return metrics.parameter_randomisation(
        s.sloped,
        s.model,
        randomise=_normal,
        similarity=metrics.pearson,
        batch_dims=s.dims,
        **s.generator(),
        **s.options,
    )


def _random_logit(s: Setting) -> Measure:
    return metrics.random_logit(
        lambda index: s.sloped(index=index),
        classes=CLASSES - 1,  # the other one is sure
        similarity=metrics.pearson,
        batch_dims=s.dims,
        **s.generator(),
    )


def _road(s: Setting) -> Measure:
    f = s.score()
    return metrics.road(
        attrib.batched(lambda x: f(x.flatten(-3))),
        lambda x: x.square(),
        shares=[0.2, 0.5, 0.7],
        noise=0.0,  # which depends on the place in the batch
        **s.generator(),
        **s.options,
    )


MEASURES = [
    # What the score loses.
    MeasureInfo("infidelity", _infidelity, moves=True, chunked=True, degree=2),
    MeasureInfo("infidelity[hiding]", _hidden_infidelity, seeded=True, chunked=True, degree=2),
    _hiding("deletion", degree=1),
    _hiding("insertion", degree=1),
    _hiding("aopc", degree=1),
    _hiding("deletion_gap", degree=1),
    _hiding("comprehensiveness", degree=1),
    _hiding("sufficiency", degree=1),
    _hiding("monotonicity", smooth=False),
    _hiding("average_drop", chunked=False),
    _hiding("average_increase", chunked=False, smooth=False),
    _hiding("faithfulness_correlation", seeded=True, fixed={"size": 2, "samples": 9}),
    _hiding("sensitivity_n", seeded=True, fixed={"sizes": [1, 3], "samples": 9}),
    _hiding("faithfulness_estimate"),
    # Pixels are imputed outside of torch.
    MeasureInfo(
        *("road", _road, _pictured),
        seeded=True,
        chunked=True,
        smooth=False,
        degree=1,
        trees=False,
        mapped=False,
    ),
    # What moves with the input.
    _moving("max_sensitivity"),
    _moving("average_sensitivity"),
    _moving("local_lipschitz", degree=1),
    _moving("relative_input_stability"),
    MeasureInfo(
        *("relative_output_stability", _outputs_stability, _alone),
        moves=True,
        chunked=True,
        degree=-1,
    ),
    MeasureInfo(
        *("relative_representation_stability", _layer_stability, _alone), moves=True, chunked=True
    ),
    # What an attribution looks like.
    _looking("sparseness"),
    _looking("entropy"),
    _hiding("effective_complexity", smooth=False, degree=None, fixed={"tol": 0.1}),
    _looking("pointing_game", _masked, smooth=False),
    _looking("relevance_mass", _masked),
    _looking("relevance_rank", _masked, smooth=False),
    _looking("top_k", _masked, smooth=False, fixed={"k": 2}),
    _looking("iou", _masked, smooth=False),
    # What it depends on.
    MeasureInfo("parameter_randomisation", _randomised, _alone, seeded=True, chunked=True),
    MeasureInfo("random_logit", _random_logit, _of_class, seeded=True),
    MeasureInfo(
        "agreement",
        lambda s: metrics.agreement(
            s.sloped(), s.explained(), similarity=metrics.pearson, batch_dims=s.dims
        ),
        _alone,
    ),
    # What theory promises.
    _hiding("completeness", chunked=False, degree=1),
    _hiding("sum_to_delta", chunked=False),
    MeasureInfo(
        "dummy",
        lambda s: metrics.dummy(s.sloped(), unused=s.unused, batch_dims=s.dims),
        _alone,
    ),
    MeasureInfo(
        "symmetry",
        lambda s: metrics.symmetry(
            s.explained(), lambda x: pytree.tree_map(torch.neg, x), batch_dims=s.dims
        ),
        _alone,
    ),
    MeasureInfo("linearity", _linearity, _alone),
    MeasureInfo(
        "implementation_invariance",
        lambda s: metrics.implementation_invariance(s.sloped(), s.explained(), batch_dims=s.dims),
        _alone,
    ),
]
