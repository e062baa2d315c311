"""The operations of torch under one name each, however they are spelled.

Every public function of torch is in one of these kinds; what is in none is unknown, and refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attrib._taps import TAP
from attrib.rules._decompositions import DECOMPOSITIONS

__all__ = ["NAMED", "OPERATIONS", "Kind", "Operation", "of_operator"]

_C: Any = torch._C  # pyright: ignore[reportPrivateUsage]


class Kind(Enum):
    """What becomes of an operation of which an argument depends on the variables."""

    FREE = auto()
    """Its result has no derivative: shapes, comparisons, indices, new tensors."""
    LINEAR = auto()
    """Linear or affine in all its tensors together: its derivative is the rule of every method."""
    WEIGHTED = auto()
    """Linear in each of its tensors: a linear map if one of them is variable, else a product."""
    FIRST = auto()
    """Linear in its first tensor alone."""
    RULED = auto()
    """Not linear: a method needs a rule for it."""
    DECOMPOSED = auto()
    """Made of other operations, into which it is taken apart."""


@dataclass(frozen=True)
class Operation:
    """A torch function, under its canonical name.

    Attributes:
        name: One name for all spellings, e.g. ``"relu"``.
        kind: See `Kind`.
        family: The name of a group of operations with one character, e.g. ``"activation"``.
        function: The spelling that writes to none of its arguments.
        inplace: The spelling always writes its result into its first argument.
        flag: Where an argument ``inplace`` stands, if there is one; its place may be -1.
    """

    name: str
    kind: Kind
    family: str
    function: Callable[..., Any]
    inplace: bool = False
    flag: int | None = None


_FREE = """
    size dim numel nelement ndimension shape stride storage_offset is_contiguous is_floating_point
    is_complex is_signed is_conj is_neg is_inference is_nonzero is_same_size is_set_to is_pinned
    is_coalesced is_distributed is_shared element_size get_device data_ptr const_data_ptr storage
    untyped_storage storage_type dim_order requires_grad_ retain_grad register_hook backward
    register_post_accumulate_grad_hook item tolist numpy __len__ __repr__ __format__ __bool__
    __int__ __float__ __index__ __complex__ __long__ __nonzero__ __contains__ __array__ __deepcopy__
    __reduce_ex__ __setstate__ __dlpack__ __dlpack_device__ hash_tensor record_stream share_memory_
    argmax argmin argsort argwhere nonzero nonzero_static count_nonzero bincount bucketize
    searchsorted histc isin equal allclose isclose eq ne lt le
    gt ge greater greater_equal less less_equal not_equal __eq__ __ne__ __lt__ __le__ __gt__ __ge__
    eq_ ne_ lt_ le_ gt_ ge_ greater_ greater_equal_ less_ less_equal_ not_equal_
    isfinite isinf isnan isneginf isposinf isreal signbit all any logical_and logical_not logical_or
    logical_xor logical_and_ logical_not_ logical_or_ logical_xor_ bitwise_and bitwise_not
    bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift __and__ __or__ __xor__
    __invert__ __lshift__ __rshift__ __rand__ __ror__
    __rxor__ __rlshift__ __rrshift__ zeros_like ones_like full_like empty_like rand_like randn_like
    randint_like new_zeros new_ones new_full new_empty new_tensor new_empty_strided one_hot
    multinomial bernoulli poisson binomial normal uniform_ normal_ random_ exponential_ geometric_
    log_normal_ cauchy_ bernoulli_ zero_ detach detach_ bool byte char short int
    long matrix_rank linalg_matrix_rank broadcast_shapes result_type can_cast unravel_index data
    __iand__ __ior__ __ixor__ __ilshift__ __irshift__ gcd lcm gcd_ lcm_ _is_view
    dense_dim sparse_dim qscheme sym_float sym_int sym_max sym_min sym_not sym_ite _sym_sqrt
    autocast _nested_tensor_from_mask_left_aligned
"""

# Pieces, sums, and moves of the entries; `to` and its like only round.
_LINEAR = """
    add sub subtract rsub __add__ __radd__ __sub__ __rsub__ __iadd__ __isub__ neg negative positive
    sum mean nansum nanmean cumsum diff trace sum_to_size sym_sum detach_copy fill
    cartesian_prod combinations conj conj_physical complex
    reshape reshape_as view view_as flatten unflatten ravel squeeze unsqueeze expand expand_as
    broadcast_to broadcast_tensors permute transpose swapaxes swapdims movedim moveaxis t adjoint
    flip fliplr flipud roll rot90 repeat tile repeat_interleave narrow narrow_copy select
    select_copy index_select gather take take_along_dim masked_select __getitem__ __setitem__
    slice_copy slice_scatter select_scatter diagonal_scatter as_strided_scatter slice_inverse
    split split_with_sizes split_copy split_with_sizes_copy unsafe_split unsafe_chunk
    unsafe_split_with_sizes chunk tensor_split hsplit vsplit dsplit unbind unbind_copy
    cat concat concatenate stack hstack vstack dstack row_stack column_stack block_diag
    atleast_1d atleast_2d atleast_3d meshgrid where masked_fill masked_scatter scatter_add
    index_add index_copy index_fill index_put put fill_diagonal_ copy_ clone contiguous alias_copy
    view_copy expand_copy permute_copy squeeze_copy unsqueeze_copy transpose_copy t_copy
    diagonal_copy as_strided_copy unfold_copy as_strided unfold fold pad constant_pad_nd
    tril triu diag diag_embed diagonal diagflat linalg_diagonal pixel_shuffle pixel_unshuffle
    channel_shuffle native_channel_shuffle avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample upsample_nearest
    upsample_bilinear resolve_conj resolve_neg to type type_as double float half bfloat16 cpu cuda
    nan_to_num deg2rad rad2deg view_as_real view_as_complex real imag T mT H mH
    view_as_real_copy view_as_complex_copy cdouble cfloat chalf index affine_grid
    affine_grid_generator _autocast_to_full_precision _autocast_to_reduced_precision __reversed__
    max_unpool1d max_unpool2d max_unpool3d pin_memory module_load fft_fft fft_fft2 fft_fftn
    fft_ifft fft_ifft2 fft_ifftn fft_rfft fft_rfft2 fft_rfftn fft_irfft fft_irfft2 fft_irfftn
    fft_hfft fft_hfft2 fft_hfftn fft_ihfft fft_ihfft2 fft_ihfftn fft_fftshift fft_ifftshift
"""

_WEIGHTED = """
    linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc
    convolution bilinear matmul mm bmm mv dot inner outer ger vdot tensordot kron einsum
    linalg_matmul linalg_vecdot cross linalg_cross mul multiply __mul__ __rmul__ __imul__
    __matmul__ __rmatmul__ __imatmul__ chain_matmul linalg_multi_dot trapezoid trapz
    cumulative_trapezoid stft
"""

_FIRST = """
    grid_sample grid_sampler grid_sampler_2d grid_sampler_3d gradient istft nll_loss kl_div lu_solve
    cholesky_solve
"""

# Linear when they are called so, as LINEAR_IF tells.
_CONDITIONAL = "scatter scatter_reduce index_reduce embedding"
_DROPOUT = """
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
"""

# Functions of one number, applied to every entry. Those with kinks are linear in between, or flat.
_ACTIVATION = """
    relu relu6 leaky_relu prelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh
    hardshrink softshrink tanhshrink threshold softplus softsign sigmoid log_sigmoid logsigmoid tanh
"""
_ELEMENTWISE = """
    clamp clamp_min clamp_max clip abs absolute square sqrt rsqrt reciprocal exp exp2 expm1 log log2
    log10 log1p sin cos tan sinh cosh asin acos atan asinh acosh atanh arcsin arccos arctan arcsinh
    arccosh arctanh erf erfc erfinv sinc logit lgamma digamma i0 pow float_power __pow__ __rpow__
    __ipow__ floor ceil round trunc fix frac sign sgn heaviside fmod remainder __mod__ __imod__
    __rmod__ polygamma mvlgamma special_polygamma special_multigammaln special_ndtri
    special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
    special_expit special_erf special_erfc special_erfcx special_expm1 special_log1p special_exp2
    special_logit special_entr special_ndtr special_log_ndtr special_i0 special_i0e special_i1
    special_i1e special_digamma special_psi special_gammaln special_sinc special_round _threshold
"""
_POOL = """
    max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices
    adaptive_max_pool3d_with_indices amax amin
"""
_NORM = "layer_norm rms_norm group_norm instance_norm batch_norm"
_SOFTMAX = (
    "softmax log_softmax softmin logsumexp special_softmax special_log_softmax special_logsumexp"
)
_DIVISION = "div divide true_divide __truediv__ __div__ __rdiv__ __rtruediv__ __idiv__ __itruediv__"
_SAME: dict[str, str] = {
    "logsigmoid": "log_sigmoid", "_threshold": "threshold", "clip": "clamp", "absolute": "abs",
    "special_softmax": "softmax", "special_log_softmax": "log_softmax", "multiply": "mul",
    "special_logsumexp": "logsumexp", "special_expit": "sigmoid", "__pow__": "pow",
    "__ipow__": "pow", "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul",
    "__matmul__": "matmul", "linalg_matmul": "matmul", "divide": "div", "true_divide": "div",
    "__truediv__": "div", "__div__": "div", "__idiv__": "div", "__itruediv__": "div",
    "__rdiv__": "__rtruediv__", "ger": "outer",
}  # fmt: skip
_SAME.update({name: name.removesuffix("_with_indices") for name in _POOL.split()})

# Attributes that are operations.
_GETTERS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})


def _operations() -> dict[Any, Operation]:
    kinds = (
        (Kind.FREE, "free", _FREE),
        (Kind.LINEAR, "linear", _LINEAR),
        (Kind.WEIGHTED, "weighted", _WEIGHTED),
        (Kind.FIRST, "first", _FIRST),
        (Kind.RULED, "conditional", _CONDITIONAL),
        (Kind.RULED, "dropout", _DROPOUT),
        (Kind.RULED, "activation", _ACTIVATION),
        (Kind.RULED, "elementwise", _ELEMENTWISE),
        (Kind.RULED, "pool", _POOL),
        (Kind.DECOMPOSED, "norm", _NORM),
        (Kind.RULED, "softmax", _SOFTMAX),
        (Kind.DECOMPOSED, "division", _DIVISION),
        (Kind.DECOMPOSED, "composite", " ".join(DECOMPOSITIONS)),
    )
    table: dict[Any, Operation] = {}
    for kind, family, names in kinds:
        for name in names.split():
            for spelling in (name, name + "_"):
                for function in _spellings(spelling):
                    if function not in table:
                        table[function] = _operation(spelling, function, kind, family)
    table[TAP] = Operation("tap", Kind.LINEAR, "linear", TAP)
    return table


# The places where torch has functions, as tables: to ask a class for what it has not is slow.
_PLACES: tuple[dict[str, Any], ...] = tuple(
    {name: getattr(place, name) for name in dir(place)}
    for place in (
        *(torch, Tensor, F),
        *(_C._special, _C._linalg, _C._fft, _C._nn, _C._VariableFunctions),
    )
)
_, _METHODS, _FUNCTIONAL, *_ = _PLACES


def _spellings(name: str) -> list[Any]:
    """The functions called so."""
    if name.startswith("__"):
        found = [_METHODS.get(name), getattr(operator, name.strip("_"), None)]
    else:
        found = [*(place.get(name) for place in _PLACES), _FUNCTIONAL.get("_" + name)]
    if name in _GETTERS:
        found += [getattr(Tensor, name).__get__]
    return [function for function in found if callable(function)]


def _operation(name: str, function: Any, kind: Kind, family: str) -> Operation:
    ends = name.endswith("_") and not name.endswith("__")
    augmented = name.startswith("__i") and name not in ("__invert__", "__int__", "__index__")
    inplace = ends or augmented or name == "__setitem__"
    plain = name[:-1] if ends else name
    canonical = _SAME.get(plain, plain)
    outside = function
    if inplace and kind is not Kind.LINEAR:
        base = "__" + name[3:] if augmented else plain
        outside = next(iter(_spellings(base)), function)
    if name == "unflatten":
        outside = torch.unflatten  # a compiler cannot follow the method of the same name
    return Operation(canonical, kind, family, outside, inplace, _flag(function))


def _flag(function: Any) -> int | None:
    code = getattr(function, "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount]
    return names.index("inplace") if "inplace" in names else None


def _named() -> dict[str, Operation]:
    named: dict[str, Operation] = {}
    for function, operation in OPERATIONS.items():
        name = getattr(function, "__name__", "")
        # Of two spellings, the one with a flag understands the calls of both.
        if name not in named or operation.flag is not None:
            named[name] = operation
    return named


def of_operator(function: Any) -> Operation | None:
    """The operation behind ``torch.ops.aten``, where they can be called too."""
    packet = getattr(function, "overloadpacket", function)
    name = str(getattr(packet, "_qualified_op_name", ""))
    found = NAMED.get(name.removeprefix("aten::")) if name.startswith("aten::") else None
    if found is None or found.inplace:
        return found
    return Operation(found.name, found.kind, found.family, function, False, found.flag)


OPERATIONS = _operations()
"""Every spelling of every operation that is known."""
NAMED = _named()
"""The same by name, for compilers, which have function objects of their own."""
