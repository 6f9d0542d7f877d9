"""The operators of torch that a program may use, each by the exact name of its overload.

An operator here computes a new tensor and checks the bounds of what it reads (`TENSOR`), views one
in another shape (`VIEW`), checks or measures one (`CHECK`), or writes into one (`IN_PLACE`). The
last are made functional before anything runs; see `functional`. Left out are those that take
strides, offsets or storage as an argument, skip checks, or return uninitialised memory:
``as_strided``, ``_reshape_alias``, ``set_``, ``resize_``, ``empty``, ``_unsafe_*``; so are ``out=``
variants, ``copy_``, operators on files, and those of other libraries.
"""

from __future__ import annotations


def _overloads(table: str) -> frozenset[str]:
    """Return the names in ``table``: an operator per line, then its overloads; most have one."""
    names: set[str] = set()
    for line in table.strip().splitlines():
        operator, *overloads = line.split()
        names.update(f"aten.{operator}.{overload}" for overload in overloads or ["default"])
    return frozenset(names)


def _each(operators: str, *overloads: str) -> frozenset[str]:
    return frozenset(
        f"aten.{operator}.{overload}" for operator in operators.split() for overload in overloads
    )


TENSOR = (
    # Numbers, one by one.
    _each(
        "abs acos acosh asin asinh atan atanh atan2 bitwise_not ceil celu clamp clamp_max "
        "clamp_min clip cos cosh deg2rad elu erf erfc erfinv exp exp2 expm1 floor frac gelu glu "
        "hardshrink hardsigmoid hardswish hardtanh heaviside hypot isclose isfinite isinf isnan "
        "isneginf isposinf leaky_relu lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 "
        "logical_and logical_not logical_or logical_xor logit maximum minimum mish nan_to_num neg "
        "negative prelu rad2deg reciprocal relu relu6 round rsqrt selu sgn sigmoid sign "
        "silu sin sinc sinh softplus softshrink special_erf special_expit special_logit sqrt "
        "square tan tanh threshold trunc addcdiv addcmul",
        "default",
    )
    | _each(
        "add __and__ __or__ __xor__ bitwise_and bitwise_or bitwise_xor copysign div divide eq fmod "
        "ge greater greater_equal gt le less less_equal lt masked_fill mul multiply ne not_equal "
        "remainder rsub sub subtract true_divide lerp",
        *("Tensor", "Scalar"),
    )
    | _overloads("""
        clamp Tensor
        clamp_max Tensor
        clamp_min Tensor
        clip Tensor
        div Tensor_mode Scalar_mode
        divide Tensor_mode Scalar_mode
        floor_divide default Scalar
        max other default dim
        min other default dim
        pow Tensor_Tensor Tensor_Scalar Scalar
        round decimals
        where self ScalarOther ScalarSelf Scalar
        xlogy Tensor Scalar_Other Scalar_Self
    """)
    # Sums, orders and the like.
    | _each(
        "amax amin argmax argmin argsort count_nonzero cummax cummin cumprod cumsum linalg_norm "
        "linalg_vector_norm logcumsumexp logsumexp nanmean nansum sort topk _softmax _log_softmax "
        "_safe_softmax aminmax diff",
        "default",
    )
    | _overloads("""
        all default dim dims
        any default dim dims
        argsort stable
        count_nonzero dim_IntList
        log_softmax int
        mean default dim
        median default dim
        nanmedian default dim
        norm Scalar ScalarOpt_dim ScalarOpt_dim_dtype ScalarOpt_dtype
        prod default dim_int
        softmax int
        sort stable
        std default dim correction
        std_mean default dim correction
        sum default dim_IntList
        var default dim correction
        var_mean default dim correction
    """)
    # Products.
    | _each(
        "addbmm addmm addmv baddbmm bilinear bmm cdist cosine_similarity dot einsum inner linear "
        "matmul mm mv outer pairwise_distance tensordot vdot",
        "default",
    )
    # Layers.
    | _each(
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
        "adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d "
        "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices batch_norm "
        "group_norm instance_norm layer_norm rms_norm native_layer_norm "
        "conv1d conv2d conv3d conv_transpose1d convolution "
        "dropout alpha_dropout feature_dropout feature_alpha_dropout rrelu embedding one_hot "
        "scaled_dot_product_attention "
        "pixel_shuffle pixel_unshuffle channel_shuffle pad constant_pad_nd reflection_pad1d "
        "reflection_pad2d replication_pad1d replication_pad2d im2col col2im "
        "max_unpool2d max_unpool3d grid_sampler affine_grid_generator embedding_bag _weight_norm",
        "default",
    )
    | _each(
        "upsample_nearest1d upsample_nearest2d upsample_linear1d upsample_bilinear2d "
        "upsample_bicubic2d",
        *("default", "vec"),
    )
    | _each(
        "upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa",
        "vec",
    )
    | _overloads("""
        conv1d padding
        conv2d padding
        conv3d padding
        conv_transpose2d input
        conv_transpose3d input
        embedding_bag padding_idx
        gru input
        gru_cell
        lstm input
        lstm_cell
        rnn_relu input
        rnn_relu_cell
        rnn_tanh input
        rnn_tanh_cell
    """)
    # Places, which are checked, and arrangements.
    | _each(
        "gather index_add index_copy index_put index_select scatter_add select_scatter "
        "slice_scatter diagonal_scatter take tril triu roll flip fliplr flipud "
        "rot90 repeat tile cat concat concatenate stack hstack vstack dstack column_stack "
        "block_diag clone diag_embed",
        "default",
    )
    | _overloads("""
        bucketize Tensor Scalar
        index Tensor
        index_fill int_Scalar int_Tensor
        repeat_interleave self_int
        scatter src value
        scatter_reduce two
        searchsorted Tensor Scalar
    """)
    # New ones.
    | _each(
        "full full_like zeros zeros_like ones ones_like new_zeros new_ones new_full scalar_tensor "
        "eye linspace lift_fresh_copy _to_copy",
        "default",
    )
    | _overloads("""
        arange default start start_step
        eye m
    """)
)
"""Operators that compute a tensor of their own."""

VIEW = (
    _each(
        "alias atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to chunk contiguous "
        "detach diag diagonal meshgrid "
        "expand expand_as lift_fresh mT numpy_T permute positive ravel reshape reshape_as "
        "split_with_sizes squeeze swapaxes swapdims t type_as unfold unsqueeze view view_as",
        "default",
    )
    | _each("movedim moveaxis", *("int", "intlist"))
    | _overloads("""
        flatten using_ints
        meshgrid indexing
        narrow default
        select int
        slice Tensor
        split Tensor sizes
        squeeze dim dims
        tensor_split sections indices
        to device dtype dtype_layout other
        transpose int
        unbind int
        unflatten int
    """)
)
"""Operators whose result may be a view of their input."""

CHECK = _each("sym_size", "int") | _each(
    "_assert_scalar _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size "
    "sym_numel",
    "default",
)
"""Operators that measure a tensor, or check that it is as it was when the model was exported."""

IN_PLACE = (
    _each(
        "abs_ addcdiv_ addcmul_ ceil_ celu_ clamp_ clamp_max_ clamp_min_ cos_ cumsum_ detach_ "
        "dropout_ elu_ exp_ expm1_ floor_ gelu_ hardsigmoid_ hardswish_ hardtanh_ index_add_ "
        "index_copy_ index_put_ leaky_relu_ log1p_ log_ logical_and_ logical_not_ logical_or_ "
        "mish_ nan_to_num_ neg_ reciprocal_ relu6_ relu_ round_ rsqrt_ scatter_add_ selu_ sigmoid_ "
        "silu_ sin_ sqrt_ square_ tanh_ threshold_ tril_ triu_ trunc_ zero_",
        "default",
    )
    | _each(
        "__iand__ __ior__ __ixor__ add_ bitwise_and_ bitwise_or_ bitwise_xor_ div_ fill_ lerp_ "
        "masked_fill_ mul_ pow_ sub_",
        *("Tensor", "Scalar"),
    )
    | _overloads("""
        clamp_ Tensor
        div_ Tensor_mode Scalar_mode
        index_fill_ int_Scalar int_Tensor
        scatter_ src value
    """)
)
"""Operators that write into their first argument, without changing its size."""

MADE_BY_TORCH = _each(
    "_native_batch_norm_legit_no_training _unsafe_view _weight_norm_interface copy "
    "native_group_norm unfold_backward zero",
    "default",
) | _overloads("""
    fill Scalar Tensor
""")
"""Operators into which `functional` may turn the others. A file may not name them."""

IDENTITIES = _each(
    "dropout alpha_dropout feature_dropout feature_alpha_dropout lift_fresh detach_ dropout_",
    "default",
)
"""Operators that return their first argument itself when not training."""

RANDOM = frozenset(
    {
        *("bernoulli", "bernoulli_", "binomial", "cauchy_", "exponential_", "geometric_"),
        *("log_normal_", "multinomial", "native_dropout", "normal", "normal_", "poisson"),
        *("rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_"),
        *("randperm", "rrelu_", "rrelu_with_noise", "uniform_"),
    }
)
"""Random operators (without overload): refused with a message of their own."""
