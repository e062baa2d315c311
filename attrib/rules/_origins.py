"""Where a tensor came from, for those that no operation was seen to make."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from attrib._transforms import inside, level_of

__all__ = ["Origins"]


class Origins:
    """Tells whether a tensor depends on the variables by the record that torch keeps.

    Args:
        variables: Tensors, of one level of differentiation.
    """

    def __init__(self, variables: list[Tensor]) -> None:
        self.level = max((level_of(variable) for variable in variables), default=-1)
        self.recorded = any(variable.requires_grad for variable in variables)
        self.ends: set[Any] = set()
        if self.level < 0 and self.recorded:
            self.ends = {get_gradient_edge(v).node for v in variables if v.requires_grad}
        # Nodes from which no path leads to the variables: those of parameters.
        self.elsewhere: set[Any] = set()

    def unseen(self, tensor: Tensor) -> str | None:
        """What made this tensor, if it depends on the variables."""
        if not self.recorded:
            return None
        if self.level >= 0:
            found = any(level_of(t) == self.level and t.requires_grad for t in _layers(tensor))
            return _name(tensor.grad_fn) if found else None
        for layer in _layers(tensor):
            node = layer.grad_fn
            if node is not None and node not in self.elsewhere and self._reaches(node):
                return _name(node)
        return None

    def _reaches(self, node: Any) -> bool:
        """Whether a path leads to the variables."""
        waiting, met = [node], {node}
        while waiting:
            node = waiting.pop()
            if node in self.ends:
                return True
            for following, _ in node.next_functions:
                if not (following is None or following in met or following in self.elsewhere):
                    met.add(following)
                    waiting.append(following)
        self.elsewhere |= met
        return False


def _layers(tensor: Tensor) -> list[Tensor]:
    return [tensor, *inside(tensor)]


def _name(node: Any) -> str:
    return "a transform" if node is None else str(node.name())
