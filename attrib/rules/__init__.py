"""Rules: the same model with other derivatives for some of its operations."""

from __future__ import annotations

from attrib.rules.deep_lift import deep_lift
from attrib.rules.override import deconvolution, guided_backprop, override

__all__ = ["deconvolution", "deep_lift", "guided_backprop", "override"]
