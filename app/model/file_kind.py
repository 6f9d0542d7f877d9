"""What a file is that should be a model and isn't, by its first bytes, and what to do.

Nothing in the file is interpreted beyond a header. A test tries each piece of advice.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection
from pathlib import Path

from ..version import COMMAND

EXPORT = (
    "torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=({0: "
    'torch.export.Dim("rows")},)), "model.pt2"), where example is an input of two rows'
)
"""Advice on making a file that can be packed from a model in Python."""

_HEAD = 512
_HAS_ROOT = re.compile(r"(?!MAR-INF/)[^/]+/.")
_SAVE = (
    "torch.export.save(torch.export.export(model.eval(), (example,), "
    'dynamic_shapes=({0: torch.export.Dim("rows")},)), "model.pt2")'
)
_WHERE = (
    "where example is an input of two rows; with several inputs, dynamic_shapes has an entry for "
    "each"
)


def _exported(*lines: str) -> str:
    """Return the lines of Python that export a model that ``lines`` make, and what they need."""
    code = "".join(f"\n    {line}" for line in (*lines, _SAVE))
    return f"export it by these lines, and pack model.pt2:{code}\n{_WHERE}"


def _with_weights(loading: str) -> str:
    load = f"model.load_state_dict({loading})"
    return f"where the class of the network is (Net), {_exported('model = Net()', load)}"


def state_alone(key: str = "") -> str:
    """Return what to do with a state dictionary of a network that isn't Lantern's.

    ``key`` is where it is in the file, if it isn't all of it.
    """
    loading = 'torch.load("model.pt", weights_only=True)' + (f"[{key!r}]" if key else "")
    return f"Weights alone don't say what to compute with them: {_with_weights(loading)}."


WHOLE_MODEL = (
    "If it is a whole model of your own that you trust, load it where its code is, and "
    + _exported('model = torch.load("model.pt", weights_only=False)')
)
"""Advice on a pickled module."""

PACK_SCRIPT = f"{COMMAND} model pack FILE --allow-code --samples SAMPLES --out models/NAME/1"
"""Advice on TorchScript."""

_TORCHSCRIPT = (
    "is TorchScript (torch.jit.save), whose own program runs when it is loaded. If you trust it, "
    f"pack it with --allow-code: {PACK_SCRIPT}. Or convert it to ONNX, and pack that: "
    'torch.onnx.export(torch.jit.load("model.pt"), (example,), "model.onnx", dynamo=False, '
    'input_names=["x"], dynamic_axes={"x": {0: "rows"}}), where example is an input of two rows'
)
_OLD_PICKLE = (
    "is a pickle, not a zip archive (as torch.save wrote before 1.6), and is refused: loading it "
    f"could run hidden code, or take forever. {WHOLE_MODEL}. If it is a checkpoint, save "
    'it again: torch.save(torch.load("old.pt", weights_only=True), "new.pt")'
)
_PICKLE = (
    "is a pickle, and is refused: loading it could run hidden code. Load the model where its code "
    f"is and export it, as ONNX by its library's converter, or a network of torch by {EXPORT}; and "
    "pack that"
)
PACK = f"{COMMAND} model pack FILE --features FEATURES --samples SAMPLES --out models/NAME/1"
"""Advice on making a bundle, which can be served, of a file."""
GRAPH = f"is an ONNX graph by its name, and must be packed into a bundle to be served: {PACK}"
_OLD_TAR = (
    "is a tar archive, as torch.save wrote them before 0.1.10, and is refused. If you trust it, "
    'save it again: torch.save(torch.load("old.pt", weights_only=False), "new.pt")'
)
SAFETENSORS = (
    "is a safetensors file, which has weights but no network (if transformers saved it, pack its "
    "directory): "
) + _with_weights('safetensors.torch.load_file("model.safetensors")')
TORCHSERVE = (
    "is a TorchServe archive: give it a name that ends in .mar, and if you trust whoever made it, "
    f"pack it with its handler: {COMMAND} model pack model.mar --allow-code --samples SAMPLE --out "
    "models/NAME/1"
)
_WEB_PAGE = "is a web page, not a model: check the download link, and download the file itself"
_HEADS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\Z"), "is empty: it was cut short; copy it again"),
    (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head)", re.IGNORECASE), _WEB_PAGE),
    (re.compile(rb"\x1f\x8b"), "is compressed by gzip; unpack it first: gunzip FILE.gz"),
    (re.compile(rb".{7}\x00\{\"", re.DOTALL), SAFETENSORS),
    (re.compile(re.escape(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")), _OLD_PICKLE),
    (re.compile(rb"\x80[\x00-\x05]"), _PICKLE),
    (re.compile(rb".{257}ustar", re.DOTALL), _OLD_TAR),
)
_EXPORTED = (
    "is an exported program, and must be packed into a bundle to be served; give it a name that "
    f"ends in .pt2, and pack it: {PACK}"
)
_MEMBERS: tuple[tuple[str, str], ...] = (
    ("constants.pkl", _TORCHSCRIPT),
    ("models/model.json", _EXPORTED),
    (
        "serialized_exported_program.json",
        "was written by torch.export.save of an old version of torch: export the model again with "
        "the version installed here",
    ),
    (
        "data.pkl",
        f"was written by torch.save; export the model, and pack that: {EXPORT}. (A checkpoint of "
        "Lantern's own network is packed as a .pt)",
    ),
    ("MAR-INF/MANIFEST.json", TORCHSERVE),
)


def foreign_kind(path: Path) -> str:
    """Return what ``path`` is, if it is a known kind other than a model, and what to do; else "".

    The text continues from the file's name, without a full stop. Raises `OSError`.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return next((kind for form, kind in _HEADS if form.match(head)), "")


def archive_kind(members: Collection[str], but: str) -> str:
    """Return what an archive is, by the names below its root, and what to do; or "".

    ``but`` is the member of the wanted kind, which is not reported.
    """
    for member, kind in _MEMBERS:
        if member in members:
            return "" if member == but else kind
    return ""


def members_of(archive: zipfile.ZipFile) -> list[str]:
    """Return the names in ``archive``, without that of its root directory."""
    names = [entry.filename for entry in archive.infolist()]
    return [name.partition("/")[2] if _HAS_ROOT.match(name) else name for name in names]
