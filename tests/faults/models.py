"""A plain model, and models that do what models should not do."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

calls: list[tuple[int, ...]] = []
"""The shape of the argument of every call of a `Net`, in this thread of the tests."""


class Net(nn.Module):
    """Four features, three classes, smooth; or with ReLUs."""

    def __init__(self, features: int = 4, *, relu: bool = False, after: int = 3) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, 6)
        self.activation = nn.ReLU() if relu else nn.Tanh()
        self.out = nn.Linear(6, after)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return self.out(self.activation(self.hidden(x)))


class Changed(nn.Module):
    """A `Net` with something done to its argument before, or to its output after."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Any] = lambda out: out,
        **options: Any,
    ) -> None:
        super().__init__()
        self.net = Net(**options)
        self.before, self.after = before, after
        self.eval()

    def forward(self, x: Tensor, *args: Any) -> Any:
        return self.after(self.net(self.before(x)))


class Two(nn.Module):
    """Two inputs that interact; the second may be a second leaf of x or an extra argument."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Net(), Net()
        self.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.first(a * b) + self.second(b)


class Named(nn.Module):
    """Takes its inputs by keyword, one of them an integer mask."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.eval()

    def forward(self, *, values: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.net(values)
        return out if mask is None else out * mask[:, :1].to(out.dtype)


class Normalised(nn.Module):
    """With batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm1d(4), Net()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))


class Dropped(nn.Module):
    """With dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop = Net(), nn.Dropout(0.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.net(x))


class Checkpointed(nn.Module):
    """Forgets its activations and computes them again in the backward pass."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.net, self.use_reentrant = Net(), use_reentrant
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=self.use_reentrant)


class Reused(nn.Module):
    """One activation module used twice, in place the second time."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.activation = Net(after=6), nn.ReLU(inplace=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.activation(self.net(x)) - 0.1)[:, :3]


class Unused(nn.Module):
    """With a module that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.unused = Net(), nn.Linear(4, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Turned(nn.Module):
    """Has the examples behind the features somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.turned = Net(), nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        turned = self.turned(self.net.hidden(x).movedim(-1, 0))
        return self.net.out(self.net.activation(turned.movedim(0, -1)))


class ByKeyword(nn.Module):
    """Calls its part by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x=2 * x)


class Recurrent(nn.Module):
    """A kernel that has no rule for vmap."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.gru, self.out = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x[:, None])[0][:, -1])


class Failing(nn.Module):
    """Raises the user's own exception at one of its calls."""

    def __init__(self, exception: BaseException, *, at: int = 1) -> None:
        super().__init__()
        self.net, self.exception, self.at = Net(), exception, at
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        if len(calls) >= self.at:
            raise self.exception
        return out


class FailingBackward(torch.autograd.Function):
    """Identity whose derivative raises."""

    @staticmethod
    def forward(x: Tensor, exception: list[BaseException]) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.exception = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        raise ctx.exception[0]

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, exception: list[BaseException]
    ) -> tuple[Tensor, int]:
        return FailingBackward.apply(x, exception), in_dims[0]


@dataclasses.dataclass
class Result:
    """What a model with a dataclass for its outputs returns."""

    logits: Tensor
    hidden: Tensor | None = None


class ModelOutput(OrderedDict[str, Any]):
    """As in Hugging Face transformers: a dict whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


def is_plain(model: Any) -> bool:
    """Whether a model is as `Net()` makes it, with nothing done to it."""
    if type(model) is not Net or type(model.activation) is not nn.Tanh:
        return False
    hooks = [h for m in model.modules() for k, h in vars(m).items() if k.endswith("_hooks")]
    pairs = list(zip(model.parameters(), Net().parameters(), strict=True))
    alike = all(p.shape == q.shape and p.dtype == q.dtype for p, q in pairs)
    return alike and not any(hooks) and all(torch.equal(p, q) for p, q in pairs)
