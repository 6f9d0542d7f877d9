"""The scan of a checkpoint: what its pickle would build, without building it.

``torch.load(weights_only=True)`` runs no code of a file, but it creates any tensor that the file
requests, and hashes any key. So the pickle in torch's zip archive is first interpreted here, with
stand-ins for all but plain values: torch only loads a structure of tensors that lie within the
file.
"""

from __future__ import annotations

import math
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BundleError, first_line, shown
from .file_kind import GRAPH, WHOLE_MODEL, archive_kind, foreign_kind, members_of

_LARGEST_PICKLE = 16 << 20
_MAX_MEMBERS = 100_000
_NEEDED = "data.pkl"
_ZIP = b"PK\x03\x04"
_ITEM_SIZES = {
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Char", "Byte", "Bool"), 1),
    "ComplexDouble": 16,
}
_STORAGE = re.compile(r"torch ([A-Za-z0-9]+)Storage")
_PLAIN = re.compile(
    r"torch (Size|device|(b?float|u?int|complex|bool|float8_)\w*)"
    r"|_codecs encode"
)
_OTHER_TENSORS = re.compile(
    r"torch\._utils _rebuild_(qtensor|sparse\w*|meta\w*|nested\w*|device\w*|wrapper\w*|tensor_v3)"
    r"|torch (per_\w+|q(u?)int\w+|Q(U?)Int\w+|\w*sparse\w*|serialization\w*)"
    r"|torch\.storage UntypedStorage|torch\.serialization _get_layout"
)
_NUMPY = re.compile(r"numpy(\.|\s|_)")


@dataclass(frozen=True, slots=True)
class _Global:
    """A function or class that the pickle names; nothing is imported."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """The numbers of one record of the archive."""

    count: int


@dataclass(frozen=True, slots=True, eq=False)
class _Stand:
    """Something that the pickle would create, whose content doesn't matter."""


_MARK = object()
_STAND, _TENSOR, _DICT, _LIST = _Stand(), _Stand(), _Stand(), _Stand()


def scan_checkpoint(path: Path) -> None:
    """Check that ``path`` is a zip archive of torch.save with only plain values and dense tensors.

    Takes time and memory in proportion to the archive's directory and its pickle. Raises
    `BundleError`, which says what the file is instead and what to do.
    """
    try:
        kind = foreign_kind(path) or (GRAPH if path.suffix == ".onnx" else "")
        if kind:
            raise BundleError(f"{path} {kind}.")
        with path.open("rb") as file:
            if file.read(4) != _ZIP:  # torch would read it differently
                raise zipfile.BadZipFile("it doesn't begin as a zip archive")
        with zipfile.ZipFile(path) as archive:
            _scan(archive, path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise BundleError(
            f"{path} can't be read as a checkpoint: {first_line(error)}. It was cut short, or was "
            "not written by torch.save."
        ) from error
    except OSError as error:
        raise BundleError(
            f"{path} can't be read: {error.strerror or first_line(error)}."
        ) from error


def _scan(archive: zipfile.ZipFile, path: Path) -> None:
    names = members_of(archive)
    entries = archive.infolist()
    kind = archive_kind(names, but=_NEEDED)
    if kind:
        raise BundleError(f"{path} {kind}.")
    compressed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
    if compressed or sum(e.file_size for e in entries) > path.stat().st_size:
        raise BundleError(
            f"{path} is a compressed zip ({(compressed or [''])[0][:80]}); save it with torch.save."
        )
    if len(set(names)) != len(names) or len(names) > _MAX_MEMBERS:
        raise BundleError(
            f"{path} has duplicate file names, or too many files; save it with torch.save."
        )
    sizes = {name: entry.file_size for name, entry in zip(names, entries, strict=True)}
    if _NEEDED not in sizes:
        raise BundleError(f"{path} is a zip archive, but not one written by torch.save.")
    if sizes[_NEEDED] > _LARGEST_PICKLE:
        raise BundleError(
            f"{path} holds {sizes[_NEEDED]:,} bytes of values besides its tensors; at most "
            f"{_LARGEST_PICKLE:,} are read. Save the state dictionary without them."
        )
    content = archive.read(entries[names.index(_NEEDED)])
    try:
        _Machine(sizes).run(content)
    except BundleError as error:
        raise BundleError(f"{path} {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(
            f"{path} can't be read as a checkpoint: its pickle is malformed ({first_line(error)})."
        ) from error


_PUSHED: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "EMPTY_LIST": _LIST,
    "EMPTY_DICT": _DICT,
    "MARK": _MARK,
}
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Interprets a pickle with a stack, as an unpickler does; ``sizes`` are those of the records.

    It knows the instructions that torch's own weights-only unpickler knows.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._actions: dict[str, Callable[[Any], object]] = {
            "TUPLE": lambda _: self._stack.append(tuple(self._to_mark())),
            "APPEND": lambda _: self._stack.pop(),
            "APPENDS": lambda _: self._to_mark(),
            "SETITEM": lambda _: _check_keys(self._top(2)[:1]),
            "SETITEMS": lambda _: _check_keys(self._to_mark()[::2]),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "BINGET": lambda index: self._stack.append(self._memo[index]),
            "LONG_BINGET": lambda index: self._stack.append(self._memo[index]),
            "GLOBAL": lambda name: self._stack.append(_global(name)),
            "BINPERSID": lambda _: self._stack.append(self._storage(self._stack.pop())),
            "REDUCE": lambda _: self._stack.append(_made(*self._top(2))),
            "BUILD": self._build,
            "PROTO": lambda _: None,
            "STOP": lambda _: None,
        }

    def run(self, content: bytes) -> None:
        """Raise `BundleError` for what torch is not to be given."""
        for opcode, argument, _ in pickletools.genops(content):
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self._stack.append(_PUSHED[name])
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _TUPLES:
            self._stack.append(tuple(self._top(_TUPLES[name])))
        elif name in self._actions:
            self._actions[name](argument)
        else:
            raise BundleError(_hidden_code(name))

    def _top(self, count: int) -> list[Any]:
        """Pop the last ``count`` values."""
        if len(self._stack) < count:
            raise ValueError("an empty stack")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _build(self, _: Any) -> None:
        """Accept what torch stores with a state dictionary."""
        if self._stack.pop() is not _DICT or self._stack[-1] is not _DICT:
            raise ValueError("a state of something that has none")

    def _to_mark(self) -> list[Any]:
        start = len(self._stack) - 1
        while self._stack[start] is not _MARK:
            start -= 1
        items = self._stack[start + 1 :]
        del self._stack[start:]
        return items

    def _storage(self, identifier: Any) -> _Storage:
        """Return the storage that a persistent identifier names: exactly one record."""
        kind, storage, key, _place, count = identifier
        found = _STORAGE.fullmatch(storage.name)
        if kind != "storage" or found is None or type(count) is not int:
            raise ValueError("a storage of no known kind")
        item = _ITEM_SIZES.get(found[1])
        size = self._sizes.get(f"data/{key}" if isinstance(key, str) else "")
        if item is None:
            raise BundleError(_NOT_DENSE)
        if size is None or size != count * item:
            raise BundleError(f"lacks data/{shown(key)[1:-1]}, or a part of it: it was cut short.")
        return _Storage(count)


_NOT_DENSE = (
    "has tensors that are sparse, complex or quantised, or of an unsupported type; only dense "
    "tensors of real numbers are served."
)


def _hidden_code(what: str) -> str:
    return (
        "is not a checkpoint of tensors and plain values, and is refused: loading it could run "
        f"hidden code ({shown(what)[1:-1]}). {WHOLE_MODEL}."
    )


def _global(name: str) -> _Global:
    """Return an allowed function or class that the pickle names."""
    storage = _STORAGE.fullmatch(name)
    if name in _MAKERS or _PLAIN.fullmatch(name) or (storage and storage[1] in _ITEM_SIZES):
        return _Global(name)
    if _OTHER_TENSORS.match(name) or storage:
        raise BundleError(_NOT_DENSE)
    if name.endswith(" set"):
        raise BundleError("has a set among its values; save it as a list: sorted(values).")
    if _NUMPY.match(name):
        raise BundleError(
            f"has a number or an array of NumPy ({name.replace(' ', '.')[:80]}) among its values. "
            "Save Python's own numbers and torch's tensors: float(score), int(epoch), "
            "torch.from_numpy(array)."
        )
    raise BundleError(_hidden_code(name.replace(" ", ".")))


def _check_keys(keys: list[Any]) -> None:
    """Refuse keys other than strings and numbers: torch would hash them."""
    for key in keys:
        if type(key) not in (str, int, float, bool, type(None)):
            raise BundleError(
                f"has a dictionary with a key of type {type(key).__name__}; only strings and "
                "numbers are read. Save the state dictionary without it."
            )


def _made(maker: Any, arguments: Any) -> Any:
    """Return the stand-in for the result of ``maker``, after checking its arguments."""
    name = maker.name if isinstance(maker, _Global) else ""
    if name in ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"):
        storage, offset, size, stride = arguments[:4]
        _check_tensor(storage, offset, size, stride)
        return _TENSOR
    if name == "torch._utils _rebuild_parameter":
        if arguments[0] is not _TENSOR:
            raise ValueError("a parameter of no tensor")
        return _TENSOR
    if name == "collections OrderedDict" and arguments == ():
        return _DICT
    if not _PLAIN.fullmatch(name) or not _is_plain(arguments):
        raise ValueError("a call of something else")
    return _STAND


def _is_plain(arguments: Any) -> bool:
    """Return True for numbers and text, and at most a tuple of them."""
    inside = [value for part in arguments for value in (part if type(part) is tuple else (part,))]
    return all(type(value) in (int, float, bool, str, _Stand) for value in inside)


def _check_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> None:
    """Refuse a tensor that lies outside its record, or would be larger than it."""
    if not isinstance(storage, _Storage) or not type(size) is type(stride) is tuple:
        raise ValueError("a tensor of no storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise ValueError("a tensor of no size")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise BundleError(
            f"is refused: a tensor in it claims {shown(count)} numbers, but the file has "
            f"{storage.count:,} of them. Is it expanded? Save tensor.contiguous() instead."
        )


_MAKERS = frozenset(
    {
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_parameter",
        "collections OrderedDict",
    }
)
