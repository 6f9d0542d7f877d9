"""Checks that the steps of a manifest fill the inputs of its network with values that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..errors import listed, shown
from ..signature import TensorSpec
from .declaration import (
    ImageStep,
    Resize,
    Step,
    TextStep,
    WordsStep,
    kind_of,
    member_of,
)

_OF_IMAGES = ("FP32", "FP16", "UINT8")
_OF_TOKENS = ("INT64", "INT32")


def faults_of_steps(steps: Sequence[Step], inputs: Sequence[TensorSpec]) -> Iterator[str]:
    """Yield what is wrong with ``steps`` as what fills ``inputs``, one sentence each.

    They fill all inputs, where there are any. A fault may follow from one before it.
    """
    if not steps:
        return
    for member, times in Counter(map(member_of, steps)).items():
        if times > 1:
            kinds = {repr(kind_of(step)): None for step in steps if member_of(step) == member}
            yield f"steps must have at most one of the kind {' or '.join(kinds)}; {times} have it."
    specs = {spec.name: spec for spec in inputs}
    for index, step in enumerate(steps):
        for name in step.inputs:
            if name not in specs:
                yield (
                    f"steps[{index}] fills {shown(name)}, which is not one of the inputs: "
                    f"{listed(specs)}."
                )
                return
        faults = (
            _faults_of_image(step, specs[step.input])
            if isinstance(step, ImageStep)
            else _faults_of_text(step, [specs[name] for name in step.inputs])
        )
        yield from (f"steps[{index}]{fault}" for fault in faults)
    filled = Counter(name for step in steps for name in step.inputs)
    for name in specs:
        if filled[name] != 1:
            yield f"steps must fill the input {shown(name)} once; {filled[name]} of them do."


def image_size(step: ImageStep, spec: TensorSpec) -> tuple[int, int]:
    """Return the height and width of the images that ``step`` makes for the tensor ``spec``."""
    if step.size is not None:
        return step.size.height, step.size.width
    first = 1 if step.layout == "NHWC" or len(spec.shape) == 3 else 2
    height, width = spec.shape[first : first + 2]
    return height, width


def image_shape(step: ImageStep, spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of one image in the tensor ``spec``, without the rows."""
    height, width = image_size(step, spec)
    if len(spec.shape) == 3:
        return (height, width)
    if step.layout == "NHWC":
        return (height, width, step.channels)
    return (step.channels, height, width)


def _faults_of_image(step: ImageStep, spec: TensorSpec) -> Iterator[str]:
    if step.resize is not None:
        yield from _faults_of_resize(step.resize)
    for member in ("mean", "std"):
        numbers = getattr(step, member)
        if numbers and len(numbers) != step.channels:
            yield f".{member} must have {step.channels} numbers, one for each channel."
    if min(step.std, default=1) <= 0:
        yield ".std must be of numbers greater than 0."
    place = f".input: {shown(spec.name)}"
    if spec.datatype not in _OF_IMAGES:
        yield f"{place} must be {' or '.join(_OF_IMAGES)} for an image, not {spec.datatype}."
    if spec.datatype == "UINT8" and (step.scale != 1 or step.mean or step.std):
        yield f": scale, mean and std are for floats, and {shown(spec.name)} is UINT8."
    dimensions = (4, 3) if step.mode == "L" else (4,)
    if len(spec.shape) not in dimensions:
        wanted = "[-1, {}]".format(
            "channels, height, width" if step.layout == "NCHW" else "height, width, channels"
        )
        yield f"{place} must be of shape {wanted}; it is {list(spec.shape)}."
        return
    if min(image_size(step, spec)) < 1:
        yield (
            f": nothing says which size an image has for {shown(spec.name)}, whose shape is "
            f"{list(spec.shape)}: give resize with width and height, or crop."
        )
        return
    made = (-1, *image_shape(step, spec))
    if not all(wanted in (-1, size) for wanted, size in zip(spec.shape, made, strict=True)):
        yield f" makes {list(made)}, and {shown(spec.name)} is of shape {list(spec.shape)}."


def _faults_of_resize(resize: Resize) -> Iterator[str]:
    is_exact = resize.width is not None and resize.height is not None
    is_part = resize.width is not None or resize.height is not None
    if (resize.shorter is None) != is_exact or (resize.shorter is not None and is_part):
        yield ".resize must have either shorter, or width and height."


def _faults_of_text(step: TextStep | WordsStep, specs: Sequence[TensorSpec]) -> Iterator[str]:
    for spec in specs:
        if spec.datatype not in _OF_TOKENS:
            yield (
                f": {shown(spec.name)} must be {' or '.join(_OF_TOKENS)} for tokens, not "
                f"{spec.datatype}."
            )
        if len(spec.shape) != 2:
            yield (f": {shown(spec.name)} must be of shape [-1, tokens]; it is {list(spec.shape)}.")
            continue
        length = spec.shape[1]
        if isinstance(step, WordsStep):
            if length != -1:
                yield f": {shown(spec.name)} must take any number of words, not {length}."
            continue
        if length != -1 and (step.padding, step.max_length) != ("max_length", length):
            yield (
                f": {shown(spec.name)} takes {length} tokens, and so padding must be 'max_length' "
                f"and max_length {length}."
            )
