"""Expressions of sizes in an exported program: check that they are plain arithmetic, and small.

Torch passes them to sympy, which evaluates them as Python and simplifies the result. So the text is
parsed here, never evaluated, and kept within bounds in which sympy is fast.
"""

from __future__ import annotations

import ast
import re

from ...model.errors import BundleError, shown

_LONGEST = 2_000
_MAX_NODES = 300
_MAX_DEPTH = 12
_LARGEST_POWER = 4
_POWERS = frozenset({"Pow", "PowByNatural"})
_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Rational", "Add", "Mul", "Max", "Min", "Abs", "Identity"),
        *("FloorDiv", "CeilDiv", "CleanDiv", "Mod", "PythonMod", "IntTrueDiv", "ToFloat"),
        *("FloorToInt", "CeilToInt", "TruncToInt"),
        *("Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan"),
        *("StrictLessThan", *_POWERS),
    }
)
_ASSUMPTIONS = frozenset({"positive", "integer", "nonnegative", "real"})
_SYMBOL = re.compile(r"[a-z][a-z0-9_]{0,30}")


def check_expression(text: object) -> None:
    """Raise `BundleError` unless ``text`` is a small arithmetic expression of sizes.

    A power must have a small whole exponent, and no power in its base: otherwise a few characters
    could keep a computer busy forever.
    """
    try:
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise ValueError
        tree = ast.parse(text, mode="eval").body
        if sum(1 for _ in ast.walk(tree)) > _MAX_NODES:
            raise ValueError
        _check(tree, _MAX_DEPTH, may_raise=True)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise BundleError(
            f"is refused: it holds the expression {shown(text)} where a size is expected; only "
            "small arithmetic expressions are read, because loading any other could run code or "
            "take forever."
        ) from None


def _check(node: ast.expr, depth: int, *, may_raise: bool) -> None:
    """Raise `ValueError` unless ``node`` is a call of a known function, at most ``depth`` deep."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or not depth:
        raise ValueError
    name = node.func.id
    if name not in _FUNCTIONS:
        raise ValueError
    for keyword in node.keywords:
        if keyword.arg not in _ASSUMPTIONS or not _is_truth(keyword.value):
            raise ValueError
    if name == "Symbol":
        _check_symbol(node)
        return
    if name in ("Integer", "Rational"):
        if not all(_number(argument) is not None for argument in node.args):
            raise ValueError
        return
    if name in _POWERS:
        base, exponent = node.args
        if not may_raise or not _is_small(exponent):
            raise ValueError
        _check(base, depth - 1, may_raise=False)
        return
    for argument in node.args:
        _check(argument, depth - 1, may_raise=may_raise)


def _check_symbol(node: ast.Call) -> None:
    (name,) = node.args
    text = name.value if isinstance(name, ast.Constant) else None
    if not isinstance(text, str) or not _SYMBOL.fullmatch(text):
        raise ValueError


def _is_truth(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _is_small(node: ast.expr) -> bool:
    """Return True for ``Integer(n)`` of a small n."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Integer"
        and len(node.args) == 1
        and abs(_number(node.args[0]) or 0) in range(1, _LARGEST_POWER + 1)
    )


def _number(node: ast.expr) -> int | None:
    """Return the value of a literal 64-bit integer; None for anything else."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < 2**63:
        return sign * node.value
    return None
