"""Where a tensor came from, for those that no operation was seen to make."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from attrib._transforms import inside

__all__ = ["Origins"]


class Origins:
    """Tells whether a tensor depends on the variables by the record that torch keeps.

    Args:
        variables: The variables.
    """

    def __init__(self, variables: list[Tensor]) -> None:
        self.ends = {get_gradient_edge(v).node for v in variables if v.requires_grad}
        # Nodes from which no path leads to the variables: those of parameters.
        self.elsewhere: set[Any] = set()

    def unseen(self, tensor: Tensor) -> str | None:
        """What made this tensor, if it depends on the variables."""
        for layer in [tensor, *inside(tensor)] if self.ends else []:
            node = layer.grad_fn
            if node is not None and node not in self.elsewhere and self._reaches(node):
                return str(node.name())
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
