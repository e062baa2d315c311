"""Relevance through transformers against LXT 2.1: ``pip install --no-deps lxt``.

LXT replaces methods of the classes of Hugging Face; here only for the duration of a test. Its
identity rule divides by x + 1e-10, and its CP-LRP freezes the gates of Llama's MLP as well.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrib
from attrib import rules as r

from .comparing import assert_close

pytestmark = [pytest.mark.parity]

transformers: Any = pytest.importorskip("transformers")
spec = importlib.util.find_spec("lxt")
if spec is None or not spec.submodule_search_locations:
    pytest.skip("needs lxt", allow_module_level=True)


def _patches() -> Any:
    """Its patches alone: the package imports every model it knows, in their older versions."""
    package = types.ModuleType("lxt.efficient")
    package.__path__ = [f"{place}/efficient" for place in spec.submodule_search_locations]
    sys.modules["lxt.efficient"] = package
    try:
        return importlib.import_module("lxt.efficient.patches")
    finally:
        del sys.modules["lxt.efficient"]


patches = _patches()
SIZES: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=12, attn_implementation="eager", **SIZES
    )
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, max_position_embeddings=12, attn_implementation="eager", **SIZES,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def _gpt2_mlp(self: Any, x: Tensor) -> Tensor:
    return self.c_proj(patches.identity_rule_implicit(self.act, self.c_fc(x)))


def patch(family: str, wrap: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``lxt.efficient.monkey_patch`` does to one family."""
    if family == "gpt2":
        modeling = transformers.models.gpt2.modeling_gpt2
        monkeypatch.setattr(modeling.GPT2MLP, "forward", _gpt2_mlp)
        monkeypatch.setattr(nn.LayerNorm, "forward", patches.layer_norm_forward)
    else:
        modeling = transformers.models.llama.modeling_llama
        monkeypatch.setattr(modeling.LlamaMLP, "forward", patches.gated_mlp_forward)
        monkeypatch.setattr(modeling.LlamaRMSNorm, "forward", patches.rms_norm_forward)
    wrapped = wrap(modeling.eager_attention_forward)
    monkeypatch.setattr(modeling, "eager_attention_forward", wrapped)


@pytest.mark.parametrize(
    ("family", "build", "rule", "wrap", "tolerance"),
    [
        ("gpt2", gpt2, r.attn_lrp(0.0), patches.wrap_attention_forward, 1e-7),
        ("gpt2", gpt2, r.cp_lrp(0.0), patches.cp_wrap_attention_forward, 1e-7),
        # The RMS norm of Llama rounds to float32.
        ("llama", llama, r.attn_lrp(0.0), patches.wrap_attention_forward, 1e-5),
    ],
    ids=["gpt2-attn", "gpt2-cp", "llama-attn"],
)
def test_relevance_is_lxts(
    family: str,
    build: Callable[[], nn.Module],
    rule: Any,
    wrap: Callable[..., Any],
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3 + (parameter == 1))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    score = lambda x, mask: model(inputs_embeds=x, attention_mask=mask).logits[:, 3, 5]
    with torch.no_grad():
        ours = attrib.lrp(score, composite=rule)(x, mask)

    patch(family, wrap, monkeypatch)
    own = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(own, mask).sum(), own)
    assert_close(ours, x * gradient, tolerance=tolerance)
