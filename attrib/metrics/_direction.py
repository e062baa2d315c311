"""Which values of a measure are good."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from attrib.types import Measure

__all__ = ["DIRECTION", "Direction", "better_of", "named"]

Direction: TypeAlias = Literal["higher", "lower", "zero"]

DIRECTION: Mapping[str, Direction] = MappingProxyType(
    {
        "agreement": "lower",
        "aopc": "higher",
        "average_drop": "lower",
        "average_increase": "higher",
        "average_sensitivity": "lower",
        "completeness": "zero",
        "comprehensiveness": "higher",
        "deletion": "lower",
        "deletion_gap": "higher",
        "dummy": "lower",
        "effective_complexity": "lower",
        "entropy": "lower",
        "faithfulness_correlation": "higher",
        "faithfulness_estimate": "higher",
        "implementation_invariance": "lower",
        "infidelity": "lower",
        "insertion": "higher",
        "iou": "higher",
        "linearity": "lower",
        "local_lipschitz": "lower",
        "max_sensitivity": "lower",
        "monotonicity": "higher",
        "parameter_randomisation": "lower",
        "pointing_game": "higher",
        "random_logit": "lower",
        "relative_input_stability": "lower",
        "relative_output_stability": "lower",
        "relative_representation_stability": "lower",
        "relevance_mass": "higher",
        "relevance_rank": "higher",
        "road": "lower",
        "sensitivity_n": "higher",
        "sparseness": "higher",
        "sufficiency": "lower",
        "sum_to_delta": "lower",
        "symmetry": "lower",
        "top_k": "higher",
    }
)
"""Whether ``"higher"`` or ``"lower"`` values of a measure are better, or those close to
``"zero"``, by the name of the measure."""


def named(name: str, measure: Measure) -> Measure:
    """A measure that says of itself which of its values are better, by its name in `DIRECTION`."""
    own: Any = measure
    own.better = DIRECTION[name]
    return measure


def better_of(measure: Measure) -> Direction | None:
    """Which values of a measure are better, if it says so."""
    return getattr(measure, "better", None)
