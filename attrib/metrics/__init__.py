"""Is the explanation any good? Measures of attributions, one number per example."""

from attrib.metrics._direction import DIRECTION
from attrib.metrics._statistics import pearson, spearman
from attrib.metrics._table import Comparison
from attrib.metrics.axioms import (
    completeness,
    dummy,
    implementation_invariance,
    linearity,
    sum_to_delta,
    symmetry,
)
from attrib.metrics.compare import compare
from attrib.metrics.complexity import effective_complexity, entropy, sparseness
from attrib.metrics.correlation import (
    faithfulness_correlation,
    faithfulness_estimate,
    sensitivity_n,
)
from attrib.metrics.curves import Curve, aopc, curve, deletion, deletion_gap, insertion
from attrib.metrics.erasure import (
    average_drop,
    average_increase,
    comprehensiveness,
    monotonicity,
    sufficiency,
)
from attrib.metrics.infidelity import Perturbed, hiding, infidelity
from attrib.metrics.localisation import iou, pointing_game, relevance_mass, relevance_rank, top_k
from attrib.metrics.road import linear_imputation, road
from attrib.metrics.robustness import average_sensitivity, local_lipschitz, max_sensitivity
from attrib.metrics.sanity import (
    agreement,
    parameter_randomisation,
    random_logit,
    randomisation_curve,
)
from attrib.metrics.stability import (
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
)

__all__ = [
    "DIRECTION",
    "Comparison",
    "Curve",
    "Perturbed",
    "agreement",
    "aopc",
    "average_drop",
    "average_increase",
    "average_sensitivity",
    "compare",
    "completeness",
    "comprehensiveness",
    "curve",
    "deletion",
    "deletion_gap",
    "dummy",
    "effective_complexity",
    "entropy",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "hiding",
    "implementation_invariance",
    "infidelity",
    "insertion",
    "iou",
    "linear_imputation",
    "linearity",
    "local_lipschitz",
    "max_sensitivity",
    "monotonicity",
    "parameter_randomisation",
    "pearson",
    "pointing_game",
    "random_logit",
    "randomisation_curve",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "relevance_mass",
    "relevance_rank",
    "road",
    "sensitivity_n",
    "sparseness",
    "spearman",
    "sufficiency",
    "sum_to_delta",
    "symmetry",
    "top_k",
]
