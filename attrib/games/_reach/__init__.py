"""Games in which few features are hidden, evaluated only where that changes something."""

from attrib.games._reach.incremental import incremental

__all__ = ["incremental"]
