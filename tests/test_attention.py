"""Attention weights: read from models as they are, rolled out, and weighed by gradients."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attrib
from attrib._batched import inherit
from attrib.attention import (
    attention_maps,
    attention_rollout,
    gradient_rollout,
    with_attention,
)
from derivatives import STEP, relative
from laws.state import changes, snapshot

EXACT = 1e-12
WEIGHTS = "attention weights"


def data(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def maps_of(function: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
    return attention_maps(function)(tensors if len(tensors) > 1 else tensors[0])


# --- the kernel of torch --------------------------------------------------------------------------

SEEN = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]]).bool()
CALLS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "plain": ({}, lambda logits: logits),
    "scaled": ({"scale": 0.3}, lambda logits: logits * 0.3 * 2),
    "mask": ({"attn_mask": SEEN}, lambda logits: logits.masked_fill(~SEEN, -math.inf)),
    "bias": ({"attn_mask": data(3, 4)}, lambda logits: logits + data(3, 4)),
    "causal": (
        {"is_causal": True},
        lambda logits: logits.masked_fill(~torch.ones(3, 4).tril().bool(), -math.inf),
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_weights_are_those_of_the_formula(call: str) -> None:
    options, changed = CALLS[call]
    q, k, v = data(2, 5, 3, 4), data(2, 5, 4, 4, seed=1), data(2, 5, 4, 6, seed=2)
    (found,) = maps_of(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), q, k, v)
    assert relative(found, changed(q @ k.mT / 2).softmax(-1)) <= EXACT
    output = F.scaled_dot_product_attention(q, k, v, **options)
    assert relative(found @ v, output) <= EXACT


def test_grouped_queries_share_their_keys() -> None:
    q, k, v = data(2, 6, 3, 4), data(2, 2, 5, 4, seed=1), data(2, 2, 5, 4, seed=2)
    attend = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    (found,) = maps_of(attend, q, k, v)
    keys = k.repeat_interleave(3, 1)
    assert relative(found, (q @ keys.mT / 2).softmax(-1)) <= EXACT
    assert relative(found @ v.repeat_interleave(3, 1), attend(q, k, v)) <= EXACT


def test_a_query_that_may_look_at_nothing_has_weights_of_zero() -> None:
    q = data(2, 5, 3, 4).requires_grad_()
    none = SEEN[:, :3] & torch.tensor([[True], [False], [True]])
    attend = lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=none)
    (found,) = maps_of(attend, q)
    assert found[..., 1, :].eq(0).all() and found.isfinite().all()
    assert relative(found @ q, attend(q)) <= EXACT
    (ours,) = torch.autograd.grad(with_attention(attend)(q).square().sum(), q)
    (theirs,) = torch.autograd.grad(attend(q).square().sum(), q)
    assert relative(ours, theirs) <= EXACT


def test_a_score_with_taps_is_the_score() -> None:
    model, x = encoder(3), data(2, 5, 8)
    f = attrib.target(model, lambda h: h[:, 0].square().sum(-1))
    assert relative(with_attention(f)(x), f(x)) <= EXACT
    assert relative(attrib.saliency(with_attention(f))(x), attrib.saliency(f)(x)) <= EXACT


# --- modules of torch -----------------------------------------------------------------------------


def scrambled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Large random numbers in place of parameters, biases included."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
            )
    return module


def encoder(layers: int, **options: Any) -> Any:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
    return scrambled(nn.TransformerEncoder(layer, layers, enable_nested_tensor=True))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 6}])
def test_multi_head_attention_is_seen_as_it_would_tell(
    need_weights: bool, batch_first: bool, extra: dict[str, Any]
) -> None:
    module: Any = scrambled(nn.MultiheadAttention(8, 2, batch_first=batch_first, **extra))
    query, key, value = data(3, 4, 8), data(3, 5, extra.get("kdim", 8)), data(3, 5, 8)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True], [True] + [False] * 4])
    order = lambda t: t if batch_first else t.transpose(0, 1)

    def run(need: bool, **more: Any) -> Any:
        given = map(order, (query, key, value))
        return module(*given, key_padding_mask=padding, need_weights=need, **more)

    (found,) = attention_maps(lambda _: run(need_weights))(query)
    _, expected = run(True, average_attn_weights=False)
    assert relative(found, expected) <= EXACT
    seen = with_attention(lambda _: run(need_weights))(query)
    plain = run(need_weights)
    assert relative(seen[0], plain[0]) <= EXACT
    assert (seen[1] is None) is (plain[1] is None)
    assert plain[1] is None or relative(seen[1], plain[1]) <= EXACT


@pytest.mark.parametrize("need_weights", [True, False])
def test_one_example_alone_has_weights_without_a_batch(need_weights: bool) -> None:
    module: Any = scrambled(nn.MultiheadAttention(8, 2))
    x = data(4, 8)
    (found,) = attention_maps(lambda x: module(x, x, x, need_weights=need_weights)[0])(x)
    assert relative(found, module(x, x, x, average_attn_weights=False)[1]) <= EXACT


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_the_layers_of_an_encoder_are_seen_behind_its_fast_path(
    recording: bool, padded: bool
) -> None:
    model, x = encoder(3), data(2, 5, 8)
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]]) if padded else None
    with torch.set_grad_enabled(recording):
        found = attention_maps(lambda x: model(x, src_key_padding_mask=padding))(x)
    assert len(found) == 3
    for layer, weights in zip(model.layers, found, strict=True):
        attend = layer.self_attn
        options = {"key_padding_mask": padding, "average_attn_weights": False}
        assert relative(weights, attend(x, x, x, **options)[1]) <= EXACT
        with torch.enable_grad():  # not the fast path, which puts zeros in the place of padding
            x = layer(x, src_key_padding_mask=padding)


def test_encoder_and_decoder_come_in_the_order_in_which_they_are_computed() -> None:
    model: Any = scrambled(nn.Transformer(8, 2, 2, 2, 12, batch_first=True))
    source, target = data(2, 5, 8), data(2, 3, 8)
    shapes = [tuple(w.shape[-2:]) for w in attention_maps(model)((source, target))]
    assert shapes == [(5, 5), (5, 5), (3, 3), (3, 5), (3, 3), (3, 5)]
    cross = attention_maps(model, site=["decoder.layers.0.multihead_attn"])((source, target))
    assert [tuple(w.shape) for w in cross] == [(2, 2, 3, 5)]


# --- attention written out ------------------------------------------------------------------------


def _merged(weights: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(weights.flatten(0, 1), mat2=v.flatten(0, 1)).unflatten(0, v.shape[:2])


SPELLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "@": lambda logits, v: logits.softmax(-1) @ v,
    "matmul": lambda logits, v: torch.matmul(F.softmax(logits, dim=3), v),
    "Tensor.matmul": lambda logits, v: torch.softmax(logits, -1).matmul(v),
    "einsum": lambda logits, v: torch.einsum("bhqk,bhkd->bqhd", logits.softmax(-1), v),
    "einsum, a list": lambda logits, v: torch.einsum("bhqk, bhkd", [logits.softmax(-1), v]),
    "einsum, exchanged": lambda logits, v: torch.einsum("bhkd,bhqk->bhqd", v, logits.softmax(-1)),
    "cast": lambda logits, v: F.softmax(logits, -1, dtype=torch.float64).type_as(v).to(v.dtype) @ v,
    "dropout": lambda logits, v: F.dropout(logits.softmax(-1), 0.5, False) @ v,
    "copies": lambda logits, v: logits.softmax(-1).clone().contiguous()[:, :] @ v,
    "special": lambda logits, v: torch.special.softmax(logits, -1) @ v,
    "keywords": lambda logits, v: torch.matmul(input=logits.softmax(dim=-1), other=v),
    "a keyword": lambda logits, v: torch.matmul(torch.softmax(input=logits, dim=-1), other=v),
    "keywords exchanged": lambda logits, v: torch.matmul(other=v, input=logits.softmax(-1)),
    "a factor of one": lambda logits, v: (
        torch.mul(input=torch.ones_like(logits), other=logits.softmax(-1)) @ v
    ),
    "used twice": lambda logits, v: (w := logits.softmax(-1)) @ v + w @ v,
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_attention_is_seen_however_it_is_written(spelling: str) -> None:
    logits, v = data(2, 3, 4, 5), data(2, 3, 5, 6, seed=1)
    (found,) = maps_of(SPELLED[spelling], logits, v)
    assert relative(found, logits.softmax(-1)) <= EXACT


def test_heads_merged_into_the_batch_stay_there() -> None:
    logits, v = data(2, 3, 4, 5), data(2, 3, 5, 6, seed=1)
    (found,) = maps_of(lambda logits, v: _merged(logits.softmax(-1), v), logits, v)
    assert relative(found, logits.softmax(-1).flatten(0, 1)) <= EXACT


def test_what_is_done_to_weights_before_the_values_is_seen() -> None:
    logits, v = data(2, 3, 4, 5), data(2, 3, 4, 6, seed=1)
    heads = torch.tensor([1.0, 0.0, 1.0]).double()[:, None, None]
    # A sink that takes attention and has no value, and a head that is switched off.
    attend = lambda logits, v: (heads * logits.softmax(-1)[..., :-1]) @ v
    (found,) = maps_of(attend, logits, v)
    assert relative(found, heads * logits.softmax(-1)[..., :-1]) <= EXACT


NONE: dict[str, Callable[[Tensor], Tensor]] = {
    "a factor from the right, by keyword": lambda x: torch.bmm(mat2=x.softmax(-1), input=x.mT),
    "probabilities": lambda x: x.softmax(-1),
    "a mixture of rows of a table": lambda x: x.softmax(-1) @ torch.ones(4, 2).double(),
    "another dimension": lambda x: x.softmax(1) @ x.mT,
    "a factor from the right": lambda x: x.mT @ x.softmax(-1),
    "einsum without a sum": lambda x: torch.einsum("bqk,bkd->bqkd", x.softmax(-1), x.mT),
    "einsum over queries": lambda x: torch.einsum("bqk,bqd->bkd", x.softmax(-1), x),
    "nothing": lambda x: x.square(),
}


@pytest.mark.parametrize("what", NONE)
def test_what_is_no_attention_is_refused(what: str) -> None:
    with pytest.raises(attrib.AttribError, match="no attention was seen") as error:
        attention_maps(NONE[what])(data(2, 3, 4))
    assert error.value.code == "attention.missing"


def test_weights_that_are_named_in_the_model_are_seen() -> None:
    x = data(2, 3, 4, 4).exp()
    (found,) = attention_maps(Averaging())(x)
    assert relative(found, x / x.sum(-1, keepdim=True)) <= EXACT


def test_attention_that_draws_is_refused() -> None:
    x = data(2, 2, 3, 4)
    fused = lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)
    written = lambda x: F.dropout((x @ x.mT).softmax(-1), 0.1) @ x
    module = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True).double()
    for model in (fused, written, lambda x: module(x[0], x[0], x[0])[0]):
        with pytest.raises(attrib.AttribError, match=r"model.eval\(\)") as error:
            attention_maps(model)(x)
        assert error.value.code == "attention.dropout"
    with pytest.raises(attrib.AttribError) as error:
        attention_maps(module)((x[0], x[0], x[0]))
    assert error.value.code == "model.training"


# --- some of the layers ---------------------------------------------------------------------------


def test_a_site_chooses_the_attention_inside_of_it() -> None:
    model, x = encoder(3), data(2, 5, 8)
    every = attention_maps(model)(x)
    for site in ("layers.1", "layers.1.self_attn", model.layers[1], attrib.Site("layers.1")):
        (found,) = attention_maps(model, site=site)(x)
        assert relative(found, every[1]) <= EXACT
    found = attention_maps(model, site=["layers.2", "layers.0"])(x)
    assert [torch.equal(*pair) for pair in zip(found, every[::2], strict=True)] == [True, True]


class Averaging(nn.Module):
    """Attention that nobody could tell but by its name."""

    def forward(self, x: Tensor) -> Tensor:
        weights = attrib.tap(WEIGHTS, x / x.sum(-1, keepdim=True))
        return (weights.unsqueeze(-1) * x.unsqueeze(-3)).sum(-2)


def test_a_site_chooses_among_weights_that_are_named_in_the_model() -> None:
    model, x = nn.Sequential(Averaging(), Averaging()), data(2, 3, 4, 4).exp()
    for site in ("0", "1"):
        (found,) = attention_maps(model, site=site)(x)
        entering = x if site == "0" else model[0](x)
        assert relative(found, entering / entering.sum(-1, keepdim=True)) <= EXACT
    assert len(attention_maps(model)(x)) == 2


def test_a_closure_takes_a_module() -> None:
    model, x = encoder(3), data(2, 5, 8)
    (found,) = attention_maps(lambda x: model(x), site=model.layers[1])(x)
    assert torch.equal(found, attention_maps(model)(x)[1])


def test_a_site_without_attention_and_one_that_is_not_there_are_refused() -> None:
    model, x = encoder(2), data(2, 5, 8)
    with pytest.raises(attrib.AttribError, match=r"inside of 'layers.1.linear1'") as error:
        attention_maps(model, site="layers.1.linear1")(x)
    assert error.value.code == "attention.missing"
    with pytest.raises(attrib.AttribError, match=r"layers.1") as error:
        attention_maps(model, site="layer.1")(x)
    assert error.value.code == "site.unknown"


# --- models of Hugging Face -----------------------------------------------------------------------

SIZES = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _model(family: str, implementation: str) -> Any:
    hf = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    own = {**small, "intermediate_size": 24, "attn_implementation": implementation}
    kinds = {
        "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**own, **SIZES)),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(num_key_value_heads=2, **own, **SIZES)
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(
                n_embd=16, n_layer=2, n_head=4, attn_implementation=implementation, **SIZES
            )
        ),
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(
                d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4,
                decoder_start_token_id=0, attn_implementation=implementation, **SIZES,
            )
        ),
        "vit": lambda: hf.ViTForImageClassification(
            hf.ViTConfig(image_size=8, patch_size=4, **own)
        ),
    }  # fmt: skip
    torch.manual_seed(3)
    model = kinds[family]().double().eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / 4 + (parameter == 1))
    return model


def _inputs(family: str) -> dict[str, Tensor]:
    if family == "vit":
        return {"pixel_values": data(2, 3, 8, 8)}
    ids = torch.randint(3, 20, (2, 6), generator=torch.Generator().manual_seed(5))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    named = {"input_ids": ids, "attention_mask": mask}
    return named | ({"decoder_input_ids": ids[:, 2:]} if family == "t5" else {})


FAMILIES = ["bert", "llama", "gpt2", "t5", "vit"]
# ViT and Llama take the softmax of written-out attention in float32 whatever the model has.
ROUNDING = {"bert": EXACT, "gpt2": EXACT, "t5": EXACT, "llama": 1e-5, "vit": 1e-5}
families = pytest.mark.parametrize("family", FAMILIES)
implementations = pytest.mark.parametrize("implementation", ["eager", "sdpa"])


def _output(family: str) -> Callable[[Any], Tensor]:
    if family in ("bert", "vit"):
        return lambda out: out.logits[:, 1]
    return lambda out: out.logits[:, 3].square().sum(-1)


@families
@implementations
def test_a_hugging_face_model_need_not_tell_its_attentions(
    family: str, implementation: str
) -> None:
    x = _inputs(family)
    with torch.no_grad():
        told = _model(family, "eager")(**x, output_attentions=True)
        found = attention_maps(_model(family, implementation))(x)
    if family == "t5":
        pairs = zip(told.decoder_attentions, told.cross_attentions, strict=True)
        expected = [*told.encoder_attentions, *(a for pair in pairs for a in pair)]
    else:
        expected = list(told.attentions)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative(ours, theirs) <= (EXACT if implementation == "eager" else ROUNDING[family])


@families
@implementations
def test_gradient_rollout_of_hugging_face_models_is_that_of_their_own_weights(
    family: str, implementation: str
) -> None:
    x = _inputs(family)
    model = _model(family, implementation)
    f = attrib.target(model, _output(family))
    site = "encoder" if family == "t5" else None
    with torch.no_grad():
        found = gradient_rollout(f, site=site)(x)
    told = _model(family, "eager")(**x, output_attentions=True)
    layers = told.encoder_attentions if family == "t5" else told.attentions
    gradients = torch.autograd.grad(_output(family)(told).sum(), layers)
    assert relative(found, naive_rollout(layers, gradients)) <= max(1e-10, 10 * ROUNDING[family])
    assert relative(gradient_rollout(f, site=site)(x), found) <= 1e-10


def test_rollout_of_an_encoder_and_a_decoder_asks_for_one_of_them() -> None:
    model, x = _model("t5", "sdpa"), _inputs("t5")
    with pytest.raises(attrib.AttribError, match='site="encoder"') as error:
        attention_rollout(model)(x)
    assert error.value.code == "attention.shape"
    assert attention_rollout(model, site="encoder")(x).shape == (2, 6, 6)


# --- rollout --------------------------------------------------------------------------------------


def test_rollout_is_the_product_of_the_layers() -> None:
    model, x = encoder(3), data(2, 5, 8)
    maps, one = attention_maps(model)(x), torch.eye(5).double()
    first, second, third = ((weights.mean(1) + one) / 2 for weights in maps)
    assert relative(attention_rollout(model)(x), third @ second @ first) <= EXACT
    first, second, third = (weights.mean(1) for weights in maps)
    assert relative(attention_rollout(model, residual=0.0)(x), third @ second @ first) <= EXACT
    assert torch.equal(attention_rollout(model, residual=1.0)(x), one.expand(2, 5, 5))


@pytest.mark.parametrize("fusion", ["mean", "max", "min", lambda w: w[:, 1], lambda w: w.prod(1)])
def test_every_row_of_a_rollout_shares_one_among_the_tokens(fusion: Any) -> None:
    rollout = attention_rollout(encoder(3), head_fusion=fusion)(data(2, 5, 8))
    assert rollout.ge(0).all()
    assert relative(rollout.sum(-1), torch.ones(2, 5).double()) <= EXACT


def test_fusions_take_the_heads_together() -> None:
    model, x = encoder(1), data(2, 5, 8)
    (weights,) = attention_maps(model)(x)
    for name, fused in (("max", weights.amax(1)), ("min", weights.amin(1))):
        expected = fused / fused.sum(-1, keepdim=True)
        found = attention_rollout(model, head_fusion=name, residual=0.0)(x)
        assert relative(found, expected) <= EXACT


def test_a_token_that_looks_at_nothing_stays_what_it_is() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    model = lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    rollout = attention_rollout(model)(data(1, 1, 2, 3))
    assert torch.equal(rollout[0, 1], torch.tensor([0.0, 1.0]).double())


def test_heads_that_cannot_be_told_from_examples_are_asked_for() -> None:
    logits, v = data(2, 4, 4), data(2, 4, 6, seed=1)
    model = lambda logits, v: logits.softmax(-1) @ v
    with pytest.raises(attrib.AttribError, match="head_fusion=None") as error:
        attention_rollout(model)((logits, v))
    assert error.value.code == "attention.heads"
    found = attention_rollout(model, head_fusion=None, residual=0.0)((logits, v))
    assert relative(found, logits.softmax(-1)) <= EXACT


def test_options_are_checked() -> None:
    model = encoder(1)
    for wrong, code in (({"head_fusion": "sum"}, "head_fusion.unknown"),):
        with pytest.raises(attrib.AttribError) as error:
            gradient_rollout(attrib.target(model, 0), **wrong)
        assert error.value.code == code
    with pytest.raises(attrib.AttribError) as error:
        attention_rollout(model, residual=1.5)
    assert error.value.code == "residual.range"


def naive_rollout(layers: Any, gradients: Any) -> Tensor:
    """Equations 5 and 6 of Chefer, Gur & Wolf (2021), example by example."""
    examples = []
    for example in range(len(layers[0])):
        relevance = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
        for weights, gradient in zip(layers, gradients, strict=True):
            product = torch.relu(gradient[example] * weights[example])
            relevance = relevance + product.mean(0) @ relevance
        examples.append(relevance)
    return torch.stack(examples)


class Written(nn.Module):
    """Two layers of attention, written out, which can be given their weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.projections = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor, *shifts: Tensor) -> Tensor:
        self.seen = []
        for number, projection in enumerate(self.projections):
            q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in projection(x).chunk(3, -1))
            weights = (q @ k.mT / 2).softmax(-1)
            if shifts:
                weights = weights + shifts[number]
            x = x + torch.tanh((weights @ v).transpose(1, 2).flatten(2))
        return self.last(x[:, 0])


@pytest.mark.parametrize("recording", [True, False])
def test_gradient_rollout_is_that_of_finite_differences(recording: bool) -> None:
    model, x = Written().double().eval(), data(2, 4, 8)
    f = attrib.target(model, 1)
    with torch.set_grad_enabled(recording):
        found = gradient_rollout(f)(x)
    maps, still = attention_maps(model)(x), torch.zeros(2, 2, 2, 4, 4).double()
    gradients = torch.zeros_like(still)
    for place in torch.cartesian_prod(*map(torch.arange, (2, 2, 4, 4))).tolist():
        layer, head, query, key = place
        step = still.clone()
        step[layer, :, head, query, key] = STEP
        rise = model(x, *step)[:, 1] - model(x, *-step)[:, 1]
        gradients[layer, :, head, query, key] = rise / (2 * STEP)
    assert relative(found, naive_rollout(maps, gradients)) <= 1e-7


def test_a_score_that_does_not_look_at_its_attention_is_refused() -> None:
    model = lambda x: F.scaled_dot_product_attention(x, x, x).detach().sum((1, 2, 3)) + x.sum()
    with pytest.raises(attrib.AttribError) as error, torch.no_grad():
        gradient_rollout(model)(data(2, 1, 3, 4))
    assert error.value.code == "site.unused"


def test_a_model_that_views_its_images_shows_its_attention_once() -> None:
    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.other = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(3, 2, 3)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.last = nn.Linear(8 + 2 * 36, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.patch(x).flatten(2).mT
            h = h + self.attention(h, h, h, need_weights=False)[0]
            return self.last(torch.cat([h.mean(1), self.other(x).view(len(x), -1)], 1))

    model, x = Seeing().double().eval(), data(2, 3, 8, 8)
    tokens = model.patch(x).flatten(2).mT
    _, truth = model.attention(tokens, tokens, tokens, average_attn_weights=False)
    (found,) = attention_maps(model)(x)
    assert relative(found, truth) <= EXACT


# --- sites ----------------------------------------------------------------------------------------


def test_weights_are_a_site_that_can_be_replaced() -> None:
    module: Any = scrambled(nn.MultiheadAttention(8, 2, batch_first=True))
    x = data(3, 5, 8)
    f = attrib.target(lambda x: module(x, x, x)[0], lambda h: h[:, 2].sum(-1))
    head, tail = attrib.split(with_attention(f), WEIGHTS)
    uniform = torch.full_like(head(x), 1 / 5)
    mean = (x @ module.in_proj_weight[16:].T + module.in_proj_bias[16:]).mean(1)
    assert relative(tail(uniform, x), module.out_proj(mean).sum(-1)) <= EXACT
    assert relative(tail(head(x), x), f(x)) <= EXACT


def test_integrated_gradients_of_weights_are_complete() -> None:
    model, x = encoder(2), data(2, 5, 8)
    f = with_attention(attrib.target(model, lambda h: h[:, 0].square().sum(-1)))
    site = attrib.Site(WEIGHTS, call=1)
    head, tail = attrib.split(f, site)
    other = data(2, 5, 8, seed=3)
    with torch.no_grad():
        attribution = attrib.layer(attrib.integrated_gradients, f, site)(x, other)
        change = f(x) - tail(head(other), x)
    assert relative(attribution.sum((1, 2, 3)), change) <= 1e-8


def test_modules_stay_sites_beside_their_attention() -> None:
    model, x = encoder(2), data(2, 5, 8)
    f = attrib.target(model, lambda h: h[:, 0].square().sum(-1))
    seen = with_attention(f, site="layers.1")
    sites = {"layer": "layers.0", "weights": WEIGHTS}
    found, _ = attrib.activation_and_gradient(seen, sites)(x)
    assert relative(found["layer"], model.layers[0](x)) <= EXACT
    assert torch.equal(found["weights"], attention_maps(model)(x)[1])


# --- transforms -----------------------------------------------------------------------------------


def _joined(maps: Any) -> Any:
    """All maps of an example in one tensor."""
    return inherit(maps, lambda maps: lambda x: torch.cat(maps(x), 1))


METHODS: dict[str, Callable[[Any], Any]] = {
    "maps": lambda f: _joined(attention_maps(f)),
    "maps of a layer": lambda f: _joined(attention_maps(f, site="layers.1")),
    "rollout": attention_rollout,
    "gradient rollout": gradient_rollout,
    "gradient rollout of a layer": lambda f: gradient_rollout(f, site="layers.0"),
}
methods = pytest.mark.parametrize("name", METHODS)


def attribute_of(name: str, model: nn.Module) -> Any:
    return METHODS[name](attrib.target(model, lambda h: h[:, 0].pow(3).sum(-1)))


@methods
@pytest.mark.parametrize("recording", [True, False])
def test_vmap_is_the_loop(name: str, recording: bool) -> None:
    attribute, x = attribute_of(name, encoder(2)), data(3, 2, 4, 8)
    with torch.set_grad_enabled(recording):
        each = torch.stack([attribute(part) for part in x])
        assert relative(torch.vmap(attribute)(x), each) <= EXACT


@methods
def test_examples_are_folded_into_the_batch(name: str) -> None:
    attribute, x = attribute_of(name, encoder(2)), data(2, 4, 8)
    smoothed = attrib.smooth(attribute, lambda x: x * 1.5, samples=3)
    assert relative(smoothed(x), attribute(x * 1.5)) <= EXACT


@pytest.fixture
def no_fast_path() -> Iterator[None]:
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@methods
@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.usefixtures("no_fast_path")
def test_compiled_is_eager(name: str, recording: bool) -> None:
    attribute, x = attribute_of(name, encoder(2)), data(2, 4, 8)
    torch.compiler.reset()
    with torch.set_grad_enabled(recording):
        compiled = torch.compile(attribute, fullgraph=True, backend="aot_eager")
        assert relative(compiled(x), attribute(x)) <= EXACT


def test_a_compiler_that_takes_the_fast_path_is_refused() -> None:
    torch.compiler.reset()
    compiled = torch.compile(attention_maps(encoder(2)), backend="eager")
    x = data(2, 4, 8)
    assert relative(compiled(x)[0], attention_maps(encoder(2))(x)[0]) <= EXACT
    with pytest.raises(attrib.AttribError) as error, torch.no_grad():
        compiled(x)
    assert error.value.code == "attention.fused"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forward mode, in torch itself
@methods
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    attribute, x, way = attribute_of(name, encoder(2)), data(2, 4, 8), data(2, 4, 8, seed=1)
    value = lambda x: attribute(x).pow(2).sum()
    found = (torch.func.grad(value)(x) * way).sum()
    expected = (value(x + STEP * way) - value(x - STEP * way)) / (2 * STEP)
    assert abs(found - expected) <= 1e-6 * abs(expected)
    if name in ("maps", "rollout"):
        _, forward = torch.func.jvp(value, (x,), (way,))
        assert abs(forward - found) <= 1e-10 * abs(found)


@methods
def test_nothing_is_left_behind(name: str) -> None:
    model, x = encoder(2), data(2, 4, 8)
    before = snapshot(model, [x])
    attribute_of(name, model)(x)
    assert changes(before, snapshot(model, [x])) == []

    def broken(x: Tensor) -> Tensor:
        raise KeyError(float(model(x).detach().sum()))

    before = snapshot(model, [x])
    site = model.layers[1] if "layer" in name else None
    with pytest.raises(KeyError):
        gradient_rollout(attrib.batched(broken), site=site)(x)
    assert changes(before, snapshot(model, [x])) == []


@methods
def test_threads_do_not_see_each_other(name: str) -> None:
    model, inputs = encoder(2), [data(2, 4, 8, seed=seed) for seed in range(4)]
    attribute = attribute_of(name, model)
    expected = [attribute(x) for x in inputs]
    plain = [model(x) for x in inputs]
    wrong: list[str] = []

    def work(number: int) -> None:
        for _ in range(5):
            if not torch.equal(attribute(inputs[number]), expected[number]):
                wrong.append(f"attribution {number}")
            if not torch.equal(model(inputs[number]), plain[number]):
                wrong.append(f"model {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_model_that_was_compiled_by_itself_is_seen_or_refused() -> None:
    model, x = encoder(2), data(2, 4, 8)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        compiled(x)
        try:
            found = attention_maps(compiled)(x)
        except attrib.AttribError as error:
            assert error.code == "rules.compiled"
        else:
            for ours, theirs in zip(found, attention_maps(model)(x), strict=True):
                assert relative(ours, theirs) <= EXACT


def test_numbers_keep_their_dtype() -> None:
    model = encoder(2).float()
    x = data(2, 4, 8).float()
    f = attrib.target(model, lambda h: h[:, 0].sum(-1))
    found = (*attention_maps(model)(x), attention_rollout(model)(x), gradient_rollout(f)(x))
    assert {tensor.dtype for tensor in found} == {torch.float32}
