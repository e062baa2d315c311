"""Is the explanation any good? Measures of attributions, one number per example."""

from attrib.metrics.axioms import completeness

__all__ = ["completeness"]
