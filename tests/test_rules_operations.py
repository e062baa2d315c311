"""Every operation of torch is linear, ruled, taken apart, free of derivatives, or refused."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import get_overridable_functions

import attrib
from attrib._carriers import Overridden
from attrib.errors import AttribError
from attrib.gradient import grad_and_score
from attrib.rules import deep_lift, guided_backprop, override
from attrib.rules._operations import OPERATIONS, Kind

# What has no rule, by name. A new version of torch that brings new operations fails below.
REFUSED = set(
    """
    Optional __array_wrap__ __ifloordiv__ _clear_non_serializable_cached_data _coalesced_ _dimI
    _dimV _has_torch_function _has_torch_function_unary _has_torch_function_variadic _indices
    _nested_tensor_size _nested_tensor_storage_offsets _nested_tensor_strides _nnz
    _sparse_mask_projection _to_dense _values angle apply_ arctan2 arctan2_ assert_int_or_pair
    atan2 atan2_ batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt
    batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats
    batch_norm_update_stats boolean_dispatch ccol_indices ccol_indices_copy cholesky
    cholesky_inverse choose_qparams_optimized coalesce col_indices col_indices_copy copysign
    copysign_ corrcoef cosine_embedding_loss cov crow_indices crow_indices_copy ctc_loss cumprod
    cumprod_ dequantize det embedding_bag fake_quantize_per_channel_affine
    fake_quantize_per_tensor_affine fbgemm_linear_fp16_weight
    fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight
    fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight
    fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix fractional_max_pool2d
    fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices
    frexp fused_moving_avg_obs_fake_quant gaussian_nll_loss geqrf grouped_mm gumbel_softmax
    handle_torch_function hinge_embedding_loss histogram histogramdd hspmm igamma igamma_
    igammac igammac_ indices indices_copy int_repr inverse ipu linalg_cholesky
    linalg_cholesky_ex linalg_cond linalg_det linalg_eig linalg_eigh linalg_eigvals
    linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex linalg_ldl_factor
    linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu linalg_lu_factor
    linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_matrix_norm linalg_matrix_power
    linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex linalg_solve_triangular
    linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander
    linear_cross_entropy lobpcg logcumsumexp logdet lu lu_unpack map2_ map_ margin_ranking_loss
    matrix_exp matrix_power miopen_batch_norm miopen_convolution miopen_convolution_add_relu
    miopen_convolution_relu miopen_convolution_transpose miopen_depthwise_convolution miopen_rnn
    mtia multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss nanquantile
    native_batch_norm native_dropout native_group_norm native_layer_norm native_norm nextafter
    nextafter_ norm_except_dim nuclear_norm orgqr ormqr pca_lowrank pdist pinverse
    poisson_nll_loss polar prod q_per_channel_axis q_per_channel_scales
    q_per_channel_zero_points q_scale q_zero_point qr quantile quantize_per_channel
    quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru_cell
    quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d
    quantized_rnn_relu_cell quantized_rnn_tanh_cell renorm renorm_ resize resize_ resize_as
    resize_as_ resize_as_sparse_ row_indices row_indices_copy scaled_grouped_mm scaled_mm set_
    slogdet smm soft_margin_loss sparse_mask sparse_resize_ sparse_resize_and_clear_
    special_airy_ai special_chebyshev_polynomial_t special_chebyshev_polynomial_u
    special_chebyshev_polynomial_v special_chebyshev_polynomial_w special_erfinv
    special_gammainc special_gammaincc special_hermite_polynomial_h
    special_hermite_polynomial_he special_laguerre_polynomial_l special_legendre_polynomial_p
    special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0
    special_modified_bessel_k1 special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t
    special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w special_spherical_bessel_j0 special_xlog1py
    special_zeta sspaddmm svd svd_lowrank to_dense to_mkldnn to_sparse triangular_solve
    triplet_margin_loss triplet_margin_with_distance_loss unique unique_consecutive values
    values_copy xpu
    """.split()  # noqa: SIM905
)

Function = Callable[..., Any]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Laws hold to rounding: in double precision."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def public() -> dict[Any, str]:
    """Every function that torch hands to a mode, and every function of its public modules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {f: f.__name__ for some in get_overridable_functions().values() for f in some}
    for place in (F, torch.special, torch.linalg):
        for name in dir(place):
            function = getattr(place, name)
            if callable(function) and not name.startswith("_") and not isinstance(function, type):
                found.setdefault(function, getattr(function, "__name__", name))
    return {f: name for f, name in found.items() if name not in ("__get__", "__set__")}


def test_every_public_operation_is_known_or_refused() -> None:
    unknown = {name for function, name in public().items() if function not in OPERATIONS}
    assert unknown - REFUSED == set(), "operations without a place in the table"
    assert REFUSED - unknown == set(), "operations that are known by now"


PLACES = torch.tensor([[0, 2, 1], [1, 0, 2], [2, 1, 0]])
OTHER = torch.tensor([[1.0, -2, 3], [0.5, 1, -1], [2, 0.25, -3]], dtype=torch.float64)
# Whatever an operation may want besides its tensor; the first that it takes is used.
ARGUMENTS: list[tuple[Any, ...]] = [
    (), (0,), (1,), (0, 1), (OTHER,), ((3, 3),), (0, 0, 1), (0, PLACES), (PLACES,),
    (0, torch.tensor([0, 2])), ((1, 0),), (OTHER > 0,), (OTHER > 0, 2.0), (0, PLACES, OTHER),
    (0, PLACES[0], OTHER), ((PLACES[0],), OTHER[0]), (PLACES, OTHER), (OTHER > 0, OTHER),
    (1, 2, 1),
    (PLACES[0], PLACES[0]), ((0,), (1,)), (2,), (2, 2), (0, 0, 2), ((1, 1),), ((1, 1), 0.0),
    (OTHER[0], 0, 0), ((3, 3), (3, 1)), (torch.float32,), (0, PLACES[0], 2.0), (0, 0, 0),
    (1, (3, 1)), ((1, 2), 0), ([1, 2],), (OTHER[:1], 0, 0, 1), (1, 0, 2, 1),
]  # fmt: skip
SHAPES = [(3, 3), (1, 4, 4, 4), (1, 2, 2, 6), (1, 1, 4), (2, 4, 4, 4, 4), (3, 3, 2)]
# Linear operations whose other arguments are not among these.
OTHERWISE: dict[str, Function] = {
    "tap": lambda x: torch.ops.attrib.tap(x, "a name"),
    "affine_grid": lambda x: F.affine_grid(x.reshape(-1)[:6].reshape(1, 2, 3), [1, 1, 2, 2]),
    "affine_grid_generator": lambda x: F.affine_grid(
        x.reshape(-1)[:6].reshape(1, 2, 3), [1, 1, 2, 2], align_corners=True
    ),
    "as_strided_scatter": lambda x: torch.as_strided_scatter(x, 2 * x[0], (3,), (1,)),
    "cartesian_prod": lambda x: torch.cartesian_prod(x[0], x[1]),
    "combinations": lambda x: torch.combinations(x[0]),
    "imag": lambda x: torch.complex(x, 2 * x).imag,
    "max_unpool1d": lambda x: F.max_unpool1d(x[None], torch.tensor([[[0, 2, 4]] * 3]), 2),
    "max_unpool2d": lambda x: F.max_unpool2d(x[None, None], 2 * PLACES[None, None], 2),
    "max_unpool3d": lambda x: F.max_unpool3d(
        x[None, None, None], PLACES[None, None, None] + 3 * torch.arange(3)[:, None], (1, 1, 1)
    ),
    "meshgrid": lambda x: torch.meshgrid(x[0], x[1], indexing="ij"),
    "view_as_real": lambda x: torch.view_as_real(torch.complex(x, 2 * x)),
    "view_as_real_copy": lambda x: torch.view_as_real_copy(torch.complex(x, 2 * x)),
    "where": lambda x: torch.where(OTHER > 0, x, 2 * x.T),
}  # fmt: skip
# They need a device, or a surrounding autocast.
NOT_HERE = {"cuda", "pin_memory", "_autocast_to_full_precision", "_autocast_to_reduced_precision"}


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result] if result.is_floating_point() or result.is_complex() else []
    parts = result if isinstance(result, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def callable_forms(function: Function) -> Iterator[tuple[tuple[int, ...], Function]]:
    for shape in SHAPES:
        for args in ARGUMENTS:
            for several in (False, True):

                def form(x: Tensor, args: Any = args, several: bool = several) -> list[Tensor]:
                    return tensors(function([x, 2 * x] if several else x, *args))

                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        good = sum(result.numel() for result in form(torch.randn(shape))) > 0
                except Exception:
                    continue
                if good:
                    yield shape, form


def spellings(kind: Kind) -> list[Any]:
    found = {f: op for f, op in OPERATIONS.items() if op.kind is kind and not op.inplace}
    return [
        pytest.param(f, op.name, id=f"{op.name}-{n}") for n, (f, op) in enumerate(found.items())
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("function", "name"), spellings(Kind.LINEAR))
def test_linear_operations_are_linear_or_affine(function: Function, name: str) -> None:
    if name in NOT_HERE:
        pytest.skip("needs a device or autocast")
    if name in OTHERWISE:
        shape, f = (3, 3), lambda x: tensors(OTHERWISE[name](x))
    else:
        shape, f = next(callable_forms(function))
    x, y = torch.randn(shape), torch.randn(shape)
    for at_zero, at_x, at_y, at_both in zip(
        f(torch.zeros(shape)), f(x), f(y), f(2 * x - 3 * y), strict=True
    ):
        rounding = torch.finfo(at_x.dtype).eps * (1 + max(o.abs().max() for o in (at_x, at_y)))
        rise = 2 * (at_x - at_zero) - 3 * (at_y - at_zero)
        assert ((at_both - at_zero) - rise).abs().max() <= 100 * rounding


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("function", "name"), spellings(Kind.FREE))
def test_free_operations_have_no_derivative(function: Function, name: str) -> None:
    writes = {"requires_grad_", "retain_grad", "normal", "bernoulli", "poisson", "binomial"}
    if name in writes or name.startswith(("__", "set", "share", "register")):
        return
    for shape, form in callable_forms(function):
        x = torch.rand(shape, requires_grad=True)
        for result in form(x):
            assert not result.requires_grad
        break


def target() -> Tensor:
    return torch.tensor([[0, 1, 4, 3], [2, 2, 0, 1], [3, 4, 1, 0]])


def fixed(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def summed(value: Tensor) -> Tensor:
    return value.flatten(1).sum(1)


def in_place(x: Tensor) -> Tensor:
    x = x + 0
    x *= 2 + x.sin()
    x /= x.exp()
    x **= 2
    x -= x.sin()
    return x.add_(1).relu_().mul_(x)


def into_buffer(x: Tensor) -> Tensor:
    buffer = torch.zeros(3, 5, 4)
    view = buffer[:, :2]
    buffer[:, 0].copy_(x[:, 0])
    buffer[:, 1:3] = x[:, 1:3]
    return view.sin()


def each(f: Function) -> Function:
    return lambda x: torch.stack([f(row).sum() for row in x])


# Scores of x (3, 5, 4) made of one operation that is taken apart, or of products.
TAKEN_APART: dict[str, Function] = {
    "div": lambda x: summed(x / (x.exp() + 1)),
    "reciprocal": lambda x: summed(1 / (x * x + 1)),
    "floor_divide": lambda x: summed(x // 0.3 + x),
    "remainder": lambda x: summed(x % 0.3),
    "power of two": lambda x: summed(2**x),
    "maximum": lambda x: summed(torch.maximum(x, x.sin())),
    "minimum": lambda x: summed(torch.fmin(x, x.sin())),
    "max": lambda x: summed(x.max(1).values),
    "min": lambda x: summed(torch.min(x, 2, keepdim=True)[0]),
    "aminmax": lambda x: summed(torch.aminmax(x, dim=1).max - torch.aminmax(x, dim=1)[0]),
    "addcmul": lambda x: summed(torch.addcmul(x, x, x.sin(), value=2.0)),
    "addcdiv": lambda x: summed(torch.addcdiv(x, x, x.exp(), value=2.0)),
    "lerp": lambda x: summed(torch.lerp(x, x.sin(), x.cos())),
    "var": lambda x: summed(x.var(1)),
    "std": lambda x: summed(torch.std(x, (1, 2), correction=0)[:, None]),
    "var_mean": lambda x: summed(torch.stack(torch.var_mean(x, 1)).movedim(0, 1)),
    "std_mean": lambda x: summed(torch.std_mean(x, 1)[0] * torch.std_mean(x, 1)[1]),
    "glu": lambda x: summed(F.glu(x, 2)),
    "addmm": each(lambda r: torch.addmm(r[:, :4], r, r[:4], beta=0.5, alpha=2.0)),
    "addmv": each(lambda r: torch.addmv(r[:, 0], r, r[0])),
    "addr": each(lambda r: torch.addr(r, r[:, 0], r[0], alpha=3.0)),
    "addbmm": each(lambda r: torch.addbmm(r[:, :1], r[None], r[0][None, :, None])),
    "baddbmm": lambda x: summed(torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5, alpha=2.0)),
    "outer": each(lambda r: torch.outer(r[0], r[0])),
    "square matmul": lambda x: summed(x @ x.mT),
    "einsum": lambda x: torch.einsum("bij,bkj->b", x, x.sin()),
    "einsum of a list": lambda x: torch.einsum("bij,bij->b", [x, x]),
    "einsum of places": lambda x: torch.einsum(x, [0, 1, 2], x.sin(), [0, 1, 2], [0]),
    "linear": each(lambda r: F.linear(r, r.sin(), r[:, 0])),
    "conv1d": each(lambda r: F.conv1d(r, r[:, None, :2].expand(5, 5, 2).sin(), r[:, 0])),
    "conv2d bias": each(lambda r: F.conv2d(r[None, None], fixed(2, 1, 2, 2), r[0, :2])),
    "bilinear": each(lambda r: F.bilinear(r, r.sin(), fixed(5, 4, 4), r[:, 0])),
    "trapezoid": lambda x: summed(torch.trapezoid(x.sin(), x, dim=1)),
    "norm": lambda x: summed(x.norm(dim=1)),
    "one norm": lambda x: summed(torch.norm(x, 1, 1)),
    "frobenius norm": each(torch.linalg.norm),
    "three norm": lambda x: summed(torch.linalg.vector_norm(x, 3, 1)),
    "largest norm": lambda x: summed(torch.linalg.norm(x, torch.inf, 1)),
    "normalize": lambda x: summed(F.normalize(x, dim=1) * fixed(5, 4)),
    "cosine": lambda x: summed(F.cosine_similarity(x, x.exp(), 1)),
    "pairwise_distance": lambda x: summed(F.pairwise_distance(x, fixed(3, 5, 4))),
    "cdist": lambda x: summed(torch.cdist(x, x.sin() + 2)),
    "dist": each(lambda r: torch.dist(r, r.sin())),
    "hypot": lambda x: summed(torch.hypot(x, x + 1)),
    "logaddexp": lambda x: summed(torch.logaddexp(x, x.sin())),
    "logaddexp2": lambda x: summed(torch.logaddexp2(x, x.sin())),
    "xlogy": lambda x: summed(torch.xlogy(x.exp(), x.exp() + 1)),
    "ldexp": lambda x: summed(torch.ldexp(x, x.sin())),
    "mse_loss": lambda x: summed(F.mse_loss(x, x.sin(), reduction="none")),
    "l1_loss": lambda x: summed(F.l1_loss(x, fixed(3, 5, 4), reduction="none")),
    "huber_loss": lambda x: summed(F.huber_loss(x, fixed(3, 5, 4), reduction="none", delta=0.7)),
    "smooth_l1_loss": lambda x: summed(
        F.smooth_l1_loss(x, fixed(3, 5, 4), reduction="none", beta=0.3)
    ),
    "cross_entropy": each(lambda r: F.cross_entropy(r, target()[0, :1].expand(5) % 4)),
    "weighted cross_entropy": each(
        lambda r: F.cross_entropy(r.T, target()[0], weight=torch.arange(1.0, 6))
    ),
    "smoothed cross_entropy": lambda x: summed(
        F.cross_entropy(
            x, fixed(3, 5, 4).softmax(1), torch.arange(5.0), reduction="none", label_smoothing=0.1
        )
    ),
    "ignored cross_entropy": lambda x: summed(
        F.cross_entropy(x, target(), ignore_index=1, reduction="none")
    ),
    "bce": lambda x: summed(
        F.binary_cross_entropy(x.sigmoid(), fixed(3, 5, 4).sigmoid(), reduction="none")
    ),
    "logistic": lambda x: summed(
        F.binary_cross_entropy_with_logits(
            x, fixed(3, 5, 4).sigmoid(), reduction="none", pos_weight=torch.arange(4.0)
        )
    ),
    "kl_div": lambda x: summed(
        F.kl_div(x.log_softmax(1), fixed(3, 5, 4).softmax(1), reduction="none")
    ),
    "local_response_norm": lambda x: summed(F.local_response_norm(x, 3)),
    "lp_pool": lambda x: summed(F.lp_pool1d(x.exp(), 3, 2)),
    "layer_norm": lambda x: summed(F.layer_norm(x, (4,), fixed(4), fixed(4)).sin()),
    "rms_norm": lambda x: summed(F.rms_norm(x, (4,)).sin()),
    "group_norm": lambda x: summed(F.group_norm(x[:, :4], 2, fixed(4)).sin()),
    "instance_norm": lambda x: summed(F.instance_norm(x).sin()),
    "torch.instance_norm": lambda x: summed(
        torch.instance_norm(x, fixed(5), None, None, None, True, 0.1, 1e-5, False).sin()
    ),
    "tracked instance_norm": lambda x: summed(
        F.instance_norm(x, fixed(5), fixed(5).exp(), use_input_stats=False) * x
    ),
    "batch_norm": lambda x: summed(F.batch_norm(x, fixed(5), fixed(5).exp()) * x),
    "attention": lambda x: summed(F.scaled_dot_product_attention(x, x.sin(), x, is_causal=True)),
    "rrelu": lambda x: summed(F.rrelu(x)),
    "grid_sample": lambda x: summed(
        F.grid_sample(x[:, None].sin(), fixed(3, 2, 2, 2).tanh(), align_corners=False)
    ),
    "scatter_reduce": lambda x: summed(
        torch.zeros(3, 2, 4).scatter_reduce(1, target()[:, None] % 2, x[:, :1], "mean").sin()
    ),
    "spectrum": lambda x: summed(torch.fft.rfft(x).abs()),
    "complex product": lambda x: summed((torch.fft.rfft(x) * torch.fft.rfft(x.sin())).real),
    "in place": lambda x: summed(in_place(x)),
    "into a buffer": lambda x: summed(into_buffer(x)),
    "aten operators": lambda x: summed(torch.ops.aten.relu(torch.ops.aten.sin.default(x))),
}


@pytest.mark.parametrize("name", TAKEN_APART)
def test_operations_taken_apart_have_their_values_and_gradients(name: str) -> None:
    f, x = TAKEN_APART[name], torch.randn(3, 5, 4)
    if name in ("in place", "floor_divide"):
        pytest.skip("autograd by itself has no derivative")
    with torch.no_grad():
        gradient, score = grad_and_score(override(f, {}, unknown="gradient"))(x)
        true, value = grad_and_score(f)(x)
    assert torch.allclose(score, value, rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient, true, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", TAKEN_APART)
def test_deep_lift_adds_up_on_operations_taken_apart(name: str) -> None:
    f, x, baseline = TAKEN_APART[name], torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    with torch.no_grad():
        attribution = deep_lift(f)(x, baseline)
        rise = f(x) - f(baseline)
    assert (summed(attribution) - rise).abs().max() <= 1e-12 * (1 + f(x).abs().max())


RECURRENT = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
    {"num_layers": 3, "batch_first": True, "dropout": 0.3},
    {"proj_size": 3, "bidirectional": True, "num_layers": 2, "batch_first": True},
]


@pytest.mark.parametrize("options", RECURRENT, ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_deep_lift_adds_up_on_recurrent_networks(kind: Any, options: dict[str, Any]) -> None:
    if "proj_size" in options and kind is not nn.LSTM:
        pytest.skip("only an LSTM projects")
    model = kind(4, 6, **options).eval()
    directions = 1 + options.get("bidirectional", False)
    dim = 0 if options.get("batch_first") else 1

    def f(x: Tensor) -> Tensor:
        shape = (options.get("num_layers", 1) * directions, x.shape[dim])
        start = x.sum().expand(*shape, options.get("proj_size", 6)) * 0.1
        states = (start, start.sum(-1, keepdim=True).expand(*shape, 6) * 0.1)
        output, last = model(x, states if kind is nn.LSTM else start[..., :6])
        last = last[0] if isinstance(last, tuple) else last
        return output.square().sum() + last.sin().sum()

    x, baseline = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    with torch.no_grad():
        gradient, score = grad_and_score(override(f, {}, unknown="gradient"))(x)
        true, value = grad_and_score(f)(x)
        attribution = deep_lift(f)(x, baseline)
        rise = (f(x) - f(baseline)).sum()
    assert torch.allclose(score, value, rtol=1e-12)
    assert torch.allclose(gradient, true, rtol=1e-11, atol=1e-12)
    assert (attribution.sum() - rise).abs() <= 1e-12 * (1 + rise.abs())


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_deep_lift_adds_up_on_recurrent_cells(kind: Any) -> None:
    cell = kind(4, 6)

    def f(x: Tensor) -> Tensor:
        state = None
        for row in x.unbind(1):
            state = cell(row, state)
        last = state[0] if isinstance(state, tuple) else state
        return last.square().sum(-1)

    x, baseline = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    with torch.no_grad():
        attribution = deep_lift(f)(x, baseline)
        assert torch.allclose(summed(attribution), f(x) - f(baseline), rtol=1e-12, atol=1e-13)


def test_guided_backprop_refuses_relus_inside_of_a_kernel() -> None:
    model = nn.RNN(4, 3, nonlinearity="relu", batch_first=True)
    refused(guided_backprop, lambda x: model(x)[0].sum((1, 2)), "rules.unknown", "rnn_relu")


class Hidden(torch.autograd.Function):
    """A rectifier that no mode sees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (ctx.saved_tensors[0] > 0)


def hidden(x: Tensor) -> Tensor:
    function: Any = Hidden
    return function.apply(x)


def refused(method: Any, f: Function, code: str, *words: str) -> None:
    for recording in (False, True):
        with torch.set_grad_enabled(recording), pytest.raises(AttribError) as caught:
            method(f)(torch.randn(3, 5, 4))
        assert caught.value.code == code
        assert all(word in str(caught.value) for word in words), str(caught.value)


METHODS = [deep_lift, guided_backprop]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operations_that_no_mode_sees_are_refused(method: Any) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    models = [lambda x: summed(scripted(x)), lambda x: scripted(x.mean(1)).sum(1)]
    for f in models:
        with torch.no_grad(), pytest.raises(AttribError, match="cannot be followed") as caught:
            method(f)(torch.randn(3, 5, 4))
        assert caught.value.code == "rules.unseen"
    for f in (lambda x: summed(2 * hidden(x)), lambda x: hidden(summed(x))):
        with torch.no_grad(), pytest.raises(AttribError, match="HiddenBackward") as caught:
            method(f)(torch.randn(3, 5, 4))
        assert caught.value.code == "rules.unseen"


@pytest.mark.parametrize("method", METHODS)
def test_computed_parameters_are_no_unseen_operations(method: Any) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
    plain = nn.Linear(4, 2)
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        plain.bias.copy_(layer.bias)
    x = torch.randn(3, 5, 4)
    found, expected = (method(lambda x, m=m: summed(m(x).relu()))(x) for m in (layer, plain))
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore")  # the compiler looks at .grad
@pytest.mark.parametrize("warm", [False, True])
def test_compiled_models_are_refused_at_every_size(method: Any, warm: bool) -> None:
    torch.compiler.reset()
    model = torch.compile(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), backend="eager")
    for rows in (1, 2, 5):
        x = torch.randn(rows, 4)
        if warm:
            model(x)
        with pytest.raises(AttribError) as caught:
            method(lambda x: model(x).sum(-1))(x)
        assert caught.value.code == "rules.compiled"


CHOICES: dict[str, Function] = {
    "where": lambda x: summed(torch.where(x > 0, x, 0.1 * x)),
    "masked_fill": lambda x: summed(x.masked_fill(x < 0, 0)),
    "mul": lambda x: summed((x > 0).double() * x),
    "gather": lambda x: summed(x.gather(1, x.argmax(1, keepdim=True))),
    "sub": lambda x: summed((x - x.detach().amax(1, keepdim=True)).sin()),
    "__bool__": lambda x: summed(2 * x) if x[0, 0, 0] > 0 else summed(3 * x),
    "item": lambda x: summed(x * int(x.argmax().item())),
}


@pytest.mark.parametrize("name", CHOICES)
def test_deep_lift_refuses_choices_that_differ_at_the_baseline(name: str) -> None:
    f, x = CHOICES[name], torch.randn(3, 5, 4)
    x[0, 0, 0] = 9
    with pytest.raises(AttribError, match=name) as caught:
        deep_lift(f)(x, -x)
    assert caught.value.code == "rules.choice"
    with torch.no_grad():
        same = deep_lift(f)(x, x.clone())
        taken = deep_lift(f, unknown="gradient")(x, -x)
    assert (same == 0).all()
    assert taken.isfinite().all()


def test_choices_that_are_the_same_at_the_baseline_are_constants() -> None:
    def f(x: Tensor) -> Tensor:
        assert torch.isfinite(x).all()
        return summed(torch.where(x.isfinite(), x, 0.0).relu() * (x.abs() < 99))

    x, baseline = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    with torch.no_grad():
        attribution = deep_lift(f)(x, baseline)
        assert torch.allclose(summed(attribution), f(x) - f(baseline), rtol=1e-12)


@pytest.mark.parametrize(
    ("f", "code", "words"),
    [
        (lambda x: x.prod(1).sum(-1), "rules.unknown", ["prod", "rules={'prod': rule}"]),
        (lambda x: summed(torch.atan2(x, x)), "rules.unknown", ["atan2"]),
        (lambda x: summed(x.exp() ** x), "rules.unknown", ["pow"]),
        (
            lambda x: torch.einsum("bij,bij,bij->b", x, x, x),
            "rules.unknown",
            ["einsum", "3 tensors"],
        ),
        (lambda x: summed(F.dropout(x, 0.5)), "rules.training", ["dropout", "model.eval()"]),
        (
            lambda x: summed(torch.zeros(3, 5, 4).scatter_reduce(1, target()[:, None], x, "amax")),
            "rules.unknown",
            ["scatter_reduce"],
        ),
        (lambda x: summed(torch.fft.rfft(x).angle()), "rules.unknown", ["angle"]),
        (
            lambda x: nn.LSTM(4, 2)(nn.utils.rnn.pack_padded_sequence(x, [5, 3], True))[0].data,
            "rules.packed",
            ["pack_padded_sequence", "padded"],
        ),
    ],
)
def test_refusals_name_the_operation_the_place_and_the_way_out(
    f: Function, code: str, words: list[str]
) -> None:
    place = [] if code == "rules.packed" else [f"called in {__file__}, line "]
    refused(deep_lift, f, code, *words, *place)


@pytest.mark.parametrize("where", ["model", "rule"])
def test_nothing_is_left_behind_after_an_exception(where: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    x = torch.randn(3, 4)

    def fail(*_: Any) -> Any:
        raise KeyError("mine")

    def f(x: Tensor) -> Tensor:
        result = model(x).sum(-1)
        return fail() if where == "model" else result

    rules = {"relu": fail} if where == "rule" else {}
    before = torch.is_grad_enabled()
    with pytest.raises(KeyError, match="mine"):
        attrib.saliency(override(f, rules, unknown="gradient"))(x)
    with pytest.raises(KeyError, match="mine"):
        deep_lift(f, rules=rules)(x)
    assert torch._C._len_torch_function_stack() == 0
    assert torch.is_grad_enabled() is before
    for tensor in (x, *model.parameters()):
        assert vars(tensor) == {}
        assert tensor.grad is None
        assert not tensor._backward_hooks


@pytest.mark.parametrize("method", METHODS)
def test_threads_on_one_model_give_the_serial_result(method: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.LayerNorm(6), nn.Linear(6, 1))
    inputs = [torch.randn(3, 4) for _ in range(4)]
    attribute = method(lambda x: model(x).squeeze(-1))
    with torch.no_grad():
        expected = [attribute(x) for x in inputs]
    found: list[Any] = [None] * 4

    def work(place: int) -> None:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            for _ in range(10):
                found[place] = attribute(inputs[place])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_an_overridden_score_that_does_not_depend_on_its_input_is_refused() -> None:
    with pytest.raises(AttribError) as caught:
        attrib.saliency(Overridden(lambda x: x.detach().sum(-1), override(summed, {}).flow))(
            torch.randn(3, 4)
        )
    assert caught.value.code == "score.independent"
