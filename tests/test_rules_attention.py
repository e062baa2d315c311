"""Relevance through attention: formulas, and Hugging Face models as they come."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib import rules as r
from derivatives import check_derivatives, relative

EXACT = 1e-10


class Encoder(nn.Module):
    """One layer of attention over four positions, with biases everywhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn_like(parameter) / 2)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.layer(x, src_key_padding_mask=padding).mean(1))


def encoder() -> Encoder:
    return Encoder().double().eval()


def tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 4, 8, dtype=torch.float64)


# --- formulas -------------------------------------------------------------------------------------


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


@pytest.mark.parametrize("attention", [_attention, _written_out])
def test_attention_follows_the_formulas_of_attn_lrp(attention: Callable[..., Tensor]) -> None:
    torch.manual_seed(2)
    q, k, v, w = (torch.randn(2, 5, 4, dtype=torch.float64) for _ in range(4))
    found = attrib.lrp(lambda x: (attention(*x) * w).sum((1, 2)), composite=r.attn_lrp())((q, k, v))

    logits = q @ k.mT / 2
    a = logits.softmax(-1)
    relevance = (a @ v) * w
    ratio = relevance / (2 * (a @ v))
    of_a, of_v = a * (ratio @ v.mT), v * (a.mT @ ratio)
    of_logits = logits * (of_a / a - of_a.sum(-1, keepdim=True)) * a
    ratio = of_logits / (2 * logits)
    of_q, of_k = q * (ratio @ (k / 2)), k * (ratio.mT @ (q / 2))
    for ours, theirs in zip(found, (of_q, of_k, of_v), strict=True):
        assert relative(ours, theirs) <= EXACT


def test_cp_lrp_gives_all_relevance_of_attention_to_the_values() -> None:
    torch.manual_seed(3)
    q, k, v, w = (torch.randn(2, 5, 4, dtype=torch.float64) for _ in range(4))
    f = lambda x: (_attention(*x) * w).sum((1, 2))
    of_q, of_k, of_v = attrib.lrp(f, composite=r.cp_lrp(0.0))((q, k, v))
    assert of_q.abs().max() == 0 and of_k.abs().max() == 0
    a = (q @ k.mT / 2).softmax(-1)
    assert relative(of_v, v * (a.mT @ w)) <= EXACT


def test_the_normaliser_of_a_layer_norm_is_constant() -> None:
    torch.manual_seed(4)
    x, w, v = (torch.randn(3, 6, dtype=torch.float64) for _ in range(3))
    norm = nn.LayerNorm(6).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    found = attrib.lrp(lambda x: (norm(x) * v).sum(-1))(x)
    g = v * norm.weight / torch.sqrt(x.var(-1, keepdim=True, correction=0) + norm.eps)
    assert relative(found, x * (g - g.mean(-1, keepdim=True))) <= EXACT

    def rms(x: Tensor) -> Tensor:
        return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def divided(x: Tensor) -> Tensor:
        return w * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6))

    expected = w * v * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    for spelling in (rms, divided, lambda x: F.rms_norm(x, (6,), eps=1e-6) * w):
        found = attrib.lrp(lambda x, spelling=spelling: (spelling(x) * v).sum(-1))(x)
        assert relative(found, expected) <= EXACT


def _gelu_new(x: Tensor) -> Tensor:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (lambda x: x * torch.sigmoid(x), F.silu),
    "quotient": (lambda x: x / (1 + torch.exp(-x)), F.silu),
    "gelu_new": (_gelu_new, lambda x: F.gelu(x, approximate="tanh")),
    "gelu_python": (
        lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        F.gelu,
    ),
    "mish": (lambda x: x.mul(torch.tanh(F.softplus(x))), F.mish),
    "square": (lambda x: x * x, torch.square),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_an_activation_that_is_written_out_is_that_activation(name: str) -> None:
    written, fused = SPELLINGS[name]
    torch.manual_seed(5)
    a, b = nn.Linear(4, 6).double(), nn.Linear(6, 1).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    found, expected = (
        attrib.lrp(lambda x, g=g: b(g(a(x)))[:, 0], composite=r.attn_lrp(0.1))(x)
        for g in (written, fused)
    )
    assert relative(found, expected) <= EXACT


def test_what_was_written_over_since_is_no_longer_the_same_number() -> None:
    torch.manual_seed(6)
    layer = nn.Linear(4, 3).double()
    x = torch.randn(2, 4, dtype=torch.float64)

    def over(x: Tensor) -> Tensor:
        h = layer(x)
        gate = torch.sigmoid(h)
        return (h.add_(1) * gate).sum(-1)

    apart = lambda x: ((layer(x) + 1) * torch.sigmoid(layer(x))).sum(-1)
    composite = r.epsilon(0.1)
    ways = [attrib.lrp(f, composite=composite)(x) for f in (over, apart)]
    assert relative(*ways) <= EXACT


def test_a_gate_computed_from_something_else_shares_with_what_it_gates() -> None:
    torch.manual_seed(6)
    a, b = nn.Linear(4, 4, bias=False).double(), nn.Linear(4, 4, bias=False).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    pair = lambda x: (a(x[0]) * torch.sigmoid(b(x[1]))).sum(-1)
    first, second = attrib.lrp(pair, composite=r.epsilon(0.0))((x, x))
    score = pair((x, x))
    assert relative(first.sum(-1), score / 2) <= EXACT
    assert relative(second.sum(-1), score / 2) <= EXACT


# --- what all attributions have -------------------------------------------------------------------

COMPOSITES = {"attn": r.attn_lrp(0.1), "cp": r.cp_lrp(0.1), "gamma": r.gamma(0.25, 0.1)}
composites = pytest.mark.parametrize("composite", COMPOSITES.values(), ids=COMPOSITES)


@composites
def test_vmap_is_the_loop_and_compiled_is_eager(composite: Any) -> None:
    torch.compiler.reset()
    attribute, x = attrib.lrp(attrib.target(encoder(), 1), composite=composite), tokens()
    expected = torch.cat([attribute(row[None]) for row in x])
    assert relative(torch.vmap(lambda row: attribute(row[None])[0])(x), expected) <= EXACT
    with torch.no_grad():
        compiled: Any = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x), expected) <= EXACT


@composites
def test_derivatives_are_those_of_finite_differences(composite: Any) -> None:
    torch.manual_seed(7)
    check_derivatives(partial(attrib.lrp, composite=composite), encoder(), tokens())


def test_padding_gets_nothing_and_changes_nothing() -> None:
    model, x = encoder(), tokens()
    longer = torch.cat([x, torch.randn(3, 2, 8, dtype=torch.float64)], 1)
    padding = torch.arange(6).expand(3, 6) >= 4

    def score(x: Tensor, padding: Tensor) -> Tensor:
        states = model.layer(x, src_key_padding_mask=padding)
        return model.head(states[:, 0])[:, 1]

    for composite in COMPOSITES.values():
        found = attrib.lrp(score, composite=composite)(longer, padding)
        assert found[:, 4:].abs().max() == 0
        short = attrib.lrp(score, composite=composite)(x, padding[:, :4])
        assert relative(found[:, :4], short) <= EXACT


# --- models of Hugging Face, made from configurations ---------------------------------------------

SIZES: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def _bert(attention: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, attn_implementation=attention, **SIZES,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config), lambda out: out.logits[:, 1]


def _gpt2(attention: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=12, attn_implementation=attention, **SIZES
    )
    return transformers.GPT2LMHeadModel(config), lambda out: out.logits[:, 3, 5]


def _llama(attention: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, max_position_embeddings=12, attn_implementation=attention, **SIZES,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config), lambda out: out.logits[:, 3, 5]


FAMILIES = {"bert": _bert, "gpt2": _gpt2, "llama": _llama}
# Their own RMS norm rounds to float32 whatever the model has.
ROUNDING = {"bert": EXACT, "gpt2": EXACT, "llama": 1e-5}

families = pytest.mark.parametrize("family", FAMILIES)


def hugging_face(family: str, attention: str) -> tuple[nn.Module, Any, Tensor, Tensor]:
    """A model with large random weights, its score of embeddings and a mask, and both."""
    torch.manual_seed(8)
    model, pick = FAMILIES[family](attention)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3 + (parameter == 1))

    def score(embeddings: Tensor, mask: Tensor) -> Tensor:
        return pick(model(inputs_embeds=embeddings, attention_mask=mask))

    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    return model, score, x, mask


def constants(model: nn.Module) -> dict[str, Tensor]:
    """What a model adds to what it computes."""
    added = ("bias", "position_embeddings.weight", "token_type_embeddings.weight", "wpe.weight")
    return {name: value for name, value in model.named_parameters() if name.endswith(added)}


@families
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_cp_lrp_conserves_the_score_of_a_model_without_constants(
    family: str, attention: str
) -> None:
    model, score, x, mask = hugging_face(family, attention)
    with torch.no_grad():
        for value in constants(model).values():
            value.zero_()
        found = attrib.lrp(score, composite=r.cp_lrp(0.0))(x, mask)
        assert relative(found.sum((1, 2)), score(x, mask)) <= ROUNDING[family]


@families
def test_constants_keep_exactly_the_rest(family: str) -> None:
    model, _, x, mask = hugging_face(family, "eager")
    if not constants(model):
        pytest.skip("this family adds nothing")
    own = {name: value.detach() for name, value in constants(model).items()}
    pick = FAMILIES[family]("eager")[1]

    def score(parts: Any) -> Tensor:
        given = {"inputs_embeds": parts[0], "attention_mask": mask[1:]}
        return pick(torch.func.functional_call(model, parts[1], (), given))[0]

    with torch.no_grad():
        found, kept = attrib.lrp(score, composite=r.cp_lrp(0.0))((x[1:], own))
        total = found.sum() + sum(part.sum() for part in kept.values())
        assert relative(total, score((x[1:], own))) <= EXACT


@families
@pytest.mark.parametrize("composite", [r.attn_lrp(), r.cp_lrp()], ids=["attn", "cp"])
def test_both_kinds_of_attention_and_any_batch_give_the_same(family: str, composite: Any) -> None:
    _, score, x, mask = hugging_face(family, "eager")
    _, other, _, _ = hugging_face(family, "sdpa")
    with torch.no_grad():
        found = attrib.lrp(score, composite=composite)(x, mask)
        assert relative(attrib.lrp(other, composite=composite)(x, mask), found) <= ROUNDING[family]
        alone = attrib.lrp(score, composite=composite)(x[1:], mask[1:])
        assert relative(alone, found[1:]) <= ROUNDING[family]
        short = attrib.lrp(score, composite=composite)(x[1:, :4], mask[1:, :4])
        assert relative(short, found[1:, :4]) <= ROUNDING[family]
        assert found[1, 4:].abs().max() == 0
