"""Arguments of operators that torch itself doesn't check: it would read beyond its tensors, or
return memory that nothing was written to.

Found by experiment; each has a test. All other listed operators check their own arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...model.errors import BundleError

_LARGEST_SCALE = 1_000.0


def check_arguments(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise `BundleError` for a call in which torch would exceed the bounds of a tensor.

    ``name`` is an overload, as in ``aten.lstm.input``; tensors need have no values.
    """
    check = _CHECKS.get(name.rpartition(".")[0])
    if check is not None and not check(*args, **kwargs):
        raise BundleError(f"calls {name} with arguments that don't fit each other.")


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> bool:
    """Return True if each key has a value, and keys are as wide as queries."""
    same_places = tuple(key.shape[:-1]) == tuple(value.shape[:-1])
    return bool(
        query.ndim == key.ndim == value.ndim
        and same_places
        and query.shape[-1] == key.shape[-1]
        and tuple(query.shape[:-3]) == tuple(key.shape[:-3])
    )


def _lstm(given: Any, state: Any, weights: Any, *options: Any) -> bool:
    """Return True if the weights of each layer have the sizes that the state requires."""
    biases, layers, _, _, both_ways, _ = options
    hidden, directions = state[0].shape[-1], 1 + bool(both_ways)
    wanted = []
    for layer in range(layers):
        width = given.shape[-1] if layer == 0 else hidden * directions
        shapes = [(4 * hidden, width), (4 * hidden, hidden)]
        wanted += directions * [*shapes, *(2 * biases * [(4 * hidden,)])]
    states = {tuple(part.shape[:1]) + tuple(part.shape[2:]) for part in state}
    return bool(
        given.ndim == 3
        and len(state) == 2
        and states == {(layers * directions, hidden)}
        and [tuple(weight.shape) for weight in weights] == wanted
    )


def _padded(given: Any, sizes: Sequence[Any], mode: str = "constant", value: Any = None) -> bool:
    """Return True for padding with one value, and for valid padding that repeats or mirrors."""
    return mode == "constant" or _bordered(given, sizes)


def _bordered(_: Any, sizes: Sequence[Any]) -> bool:
    """Return True if no size of the padding is negative: a slice crops."""
    return all(type(size) is int and size >= 0 for size in sizes)


def _resized(*args: Any, **kwargs: Any) -> bool:
    """Return True if every scale factor is within ``_LARGEST_SCALE``."""
    values = [*args[1:], *kwargs.values()]
    flat = [v for value in values for v in (value if isinstance(value, list | tuple) else [value])]
    return all(1 / _LARGEST_SCALE <= v <= _LARGEST_SCALE for v in flat if isinstance(v, float))


def _sampled(_: Any, __: Any, interpolation: Any, padding: Any, *___: Any) -> bool:
    """Return True for a way of interpolation, and of padding, that there is."""
    return interpolation in (0, 1, 2) and padding in (0, 1, 2)


def _normalised(weight: Any, norm: Any, dim: int = 0) -> bool:
    """Return True if there is a norm for each place along ``dim``, or one for all (-1)."""
    if not -1 <= dim < weight.ndim:
        return False
    if dim == -1:
        return bool(norm.numel() == 1)
    return tuple(norm.shape) == tuple(
        size if index == dim else 1 for index, size in enumerate(weight.shape)
    )


def _leaky(given: Any, lower: Any = 0, upper: Any = 0, training: Any = False, *_: Any) -> bool:
    """Return True if the slope is not drawn at random."""
    return training is False


_CHECKS: dict[str, Callable[..., bool]] = {
    "aten.scaled_dot_product_attention": _attention,
    "aten.lstm": _lstm,
    "aten.grid_sampler": _sampled,
    "aten._weight_norm": _normalised,
    "aten.rrelu": _leaky,
    "aten.pad": _padded,
    **dict.fromkeys(
        (
            *("aten.reflection_pad1d", "aten.reflection_pad2d"),
            *("aten.replication_pad1d", "aten.replication_pad2d"),
        ),
        _bordered,
    ),
    **dict.fromkeys(
        (
            *("aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_linear1d"),
            *("aten.upsample_bilinear2d", "aten.upsample_bicubic2d", "aten.upsample_nearest3d"),
            *("aten.upsample_trilinear3d", "aten._upsample_nearest_exact1d"),
            *("aten._upsample_nearest_exact2d", "aten._upsample_nearest_exact3d"),
            *("aten._upsample_bilinear2d_aa", "aten._upsample_bicubic2d_aa"),
        ),
        _resized,
    ),
}
