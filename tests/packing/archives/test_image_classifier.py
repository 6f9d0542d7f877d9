"""Archives with TorchServe's own ``image_classifier`` become steps that answer as it does."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from app import create_app
from app.model.code.request import HandlerRequest
from app.model.errors import BundleError
from app.packing.archives.container import METADATA
from app.packing.file import Packed, pack_file
from app.packing.statement import Statement
from app.registry.loading import ModelSource, load_model
from app.settings import load_settings
from tests.handler_bundles import answer

CLASSES = 7
MODEL_FILE = """
from torch import nn
from layers import first  # a file of the archive

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(first(), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
                         nn.Flatten(), nn.Linear(128, 7))
"""
LAYERS = "from torch import nn\ndef first(): return nn.Conv2d(3, 8, 7, stride=8)\n"


def network(*more: nn.Module, classes: int = CLASSES) -> nn.Sequential:
    """Return a network that tells pictures apart, as MODEL_FILE has it."""
    torch.manual_seed(3)
    layers = (
        *(nn.Conv2d(3, 8, 7, stride=8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
        *(nn.Flatten(), nn.Linear(128, classes)),
    )
    with torch.no_grad():
        layers[-1].weight.mul_(5)
    return nn.Sequential(*layers, *more).eval()


def script(module: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


def state(module: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.getvalue()


def other_state() -> bytes:
    module = network()
    module[5] = nn.Linear(12, CLASSES)
    return state(module)


def archive(path: Path, files: Mapping[str, Any], **model: str) -> Path:
    document = {"modelName": "net", "modelVersion": "1.0", "handler": "image_classifier"} | model
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            is_raw = isinstance(content, bytes | str)
            made.writestr(name, content if is_raw else json.dumps(content))
        made.writestr(METADATA, json.dumps({"runtime": "python", "model": document}))
    return path


def of_script(path: Path, names: Any = None, module: nn.Module | None = None) -> Path:
    files: dict[str, Any] = {"model.pt": script(module or network())}
    if names is not None:
        files["index_to_name.json"] = names
    return archive(path, files, serializedFile="model.pt")


def of_python(path: Path, **files: Any) -> Path:
    content = {"model.py": MODEL_FILE, "layers.py": LAYERS, "weights.pth": state(network())}
    content |= {name.replace("_py", ".py").replace("_pth", ".pth"): f for name, f in files.items()}
    return archive(path, content, serializedFile="weights.pth", modelFile="model.py")


def pack(source: Path, out: Path, samples: Path | None = None, *, allowed: bool = True) -> Packed:
    return pack_file(source, out, samples=samples, statement=Statement(allow_code=allowed))


def photo(width: int, height: int, kind: str = "JPEG") -> bytes:
    """Return a picture that is different everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    colours = np.stack([x * 3 + y, x * y // 40, (x - y) * 2], axis=2) % 256
    file = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(file, kind)
    return file.getvalue()


def expected(data: bytes, names: Sequence[str], module: nn.Module) -> dict[str, float]:
    """Return the answer of TorchServe's image_classifier, computed by Pillow and torch alone."""
    image: Image.Image = Image.open(io.BytesIO(data))
    width, height = image.size
    shorter = min(width, height)
    image = image.resize((int(256 * width / shorter), int(256 * height / shorter)), 2)
    left, top = (round((side - 224) / 2) for side in image.size)
    pixels = np.array(image.crop((left, top, left + 224, top + 224)))
    values = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    values = (values - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        found = torch.softmax(module(values[None]), dim=1)[0].topk(5)
    return {
        names[int(index)]: float(value)
        for value, index in zip(found.values, found.indices, strict=True)
    }


def predictions(root: Path, data: bytes) -> Any:
    """Return what a client of TorchServe gets from a service that allows no code."""
    app = create_app(load_settings({"LANTERN_MODEL__PATH": str(root)}))
    response = app.test_client().post(f"/predictions/{root.name}", data=data)
    assert response.status_code == 200, response.text
    return response.get_json()


def check(found: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    assert [*found] == [*wanted]  # the most probable first
    assert found == pytest.approx(wanted, abs=1e-5)


PHOTOS = (photo(500, 400), photo(255, 301), photo(120, 90, "PNG"))


def test_torchscript_is_answered_as_image_classifier_does_and_its_bundle_has_no_code(
    tmp_path: Path,
) -> None:
    names = [f"class {index}" for index in range(CLASSES)]
    mapping = {str(i): [f"n{i:08}", names[i]] for i in reversed(range(CLASSES))}
    root = tmp_path / "net"
    packed = pack(of_script(tmp_path / "net.mar", mapping), root / "1")
    assert (packed.manifest.task, packed.manifest.top) == ("classification", 5)
    assert packed.manifest.classes == tuple(names)
    assert packed.manifest.handler is None
    assert packed.manifest.description == "net 1.0, from an archive of TorchServe."
    assert not any(file.suffix in (".py", ".pt") for file in (root / "1").iterdir())
    assert any("becomes steps: the bundle has no code" in note for note in packed.notes)
    for data in PHOTOS:
        check(predictions(root, data), expected(data, names, network()))


def test_an_eager_network_needs_its_code_only_to_be_packed(tmp_path: Path) -> None:
    root = tmp_path / "net"
    packed = pack(of_python(tmp_path / "net.mar"), root / "1")
    assert packed.manifest.classes == tuple("0123456")
    assert any("no index_to_name.json" in note for note in packed.notes)
    assert not [*(root / "1").glob("*.py")]
    for data in PHOTOS:
        check(predictions(root, data), expected(data, "0123456", network()))


def test_probabilities_get_another_softmax_as_in_torchserve(tmp_path: Path) -> None:
    module = network(nn.Softmax(dim=1))
    pack(of_script(tmp_path / "net.mar", module=module), tmp_path / "net" / "1")
    check(predictions(tmp_path / "net", PHOTOS[0]), expected(PHOTOS[0], "0123456", module))


def test_a_network_traced_for_one_row_is_taken(tmp_path: Path) -> None:
    class One(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.reshape(6, 25088).mean(dim=1)[None]

    pack(of_script(tmp_path / "net.mar", module=One()), tmp_path / "net" / "1")
    check(predictions(tmp_path / "net", PHOTOS[0]), expected(PHOTOS[0], "012345", One()))


def test_repeated_names_are_told_apart(tmp_path: Path) -> None:
    """Those of ImageNet have two cranes, for example."""
    names = ["crane", "b", "crane", "d", "crane", "crane (4)", "g"]
    mapping = {str(index): name for index, name in enumerate(names)}
    packed = pack(of_script(tmp_path / "net.mar", mapping), tmp_path / "net" / "1")
    wanted = ("crane", "b", "crane (2)", "d", "crane (4)*", "crane (4)", "g")
    assert packed.manifest.classes == wanted
    note = next(note for note in packed.notes if "repeated" in note)
    assert note.endswith("the later ones are called 'crane (2)', 'crane (4)*'.")


def test_samples_are_pictures(tmp_path: Path) -> None:
    samples = tmp_path / "pictures"
    samples.mkdir()
    for index, data in enumerate(PHOTOS):
        (samples / f"{index}.jpg").write_bytes(data)
    packed = pack(of_script(tmp_path / "net.mar"), tmp_path / "net" / "1", samples)
    assert any(note.startswith("2.jpg -> ") for note in packed.notes)


def test_without_leave_the_network_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = of_python(tmp_path / "net.mar", model_py=f"open({str(trace)!r}, 'w')")
    with pytest.raises(BundleError, match=r"runs its own program, model\.py.* --allow-code"):
        pack(path, tmp_path / "net" / "1", allowed=False)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"0": "a", "1": "b"}, "index_to_name.json names 2 classes, and the network has 7."),
        ({str(i + 1): "a" for i in range(7)}, "index_to_name.json doesn't name classes from 0 on."),
        ("{", "index_to_name.json doesn't name classes from 0 on."),
        ({str(i): "" for i in range(7)}, "index_to_name.json: the name of 0 must have 1 to 256"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: Any, said: str, tmp_path: Path) -> None:
    path = of_script(tmp_path / "net.mar", names)
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "net" / "1")
    assert str(refused.value).startswith(f"{path}: {said}")
    assert not (tmp_path / "net" / "1").exists()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Linear(10, 3), "model.pt can't be run: "),
        (nn.Bilinear(4, 4, 3), "model.pt takes 'input2'"),
        (nn.Flatten(2), "answers FP32 of [-1, 3, 50176]"),
        (network(classes=1), "answers FP32 of [-1, 1]"),
    ],
)
def test_a_network_for_other_tensors_is_refused(
    module: nn.Module, said: str, tmp_path: Path
) -> None:
    path = of_script(tmp_path / "net.mar", module=module)
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "net" / "1")
    message = str(refused.value)
    assert message.startswith(str(path))
    assert said in message
    assert "FP32 of [N, " in message


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model_py": "import no_such_library"}, "No module named 'no_such_library'. Install that"),
        ({"model_py": MODEL_FILE.replace("128", "12")}, "weights.pth is no state dictionary"),
        (
            {"model_py": MODEL_FILE.replace("128, 7", "12, 7"), "weights_pth": other_state()},
            "model.py can't be run: mat1 and mat2 shapes",
        ),
        ({"model_py": "1 / 0"}, "model.py can't be run: division by zero"),
        ({"model_py": "x = 1"}, "model.py must have one class, the model, and has nothing."),
        ({"model_py": f"{MODEL_FILE}\nclass B: pass"}, "must have one class, the model, and has B"),
        ({"model_py": "class A: pass"}, "model.py: its class is no torch.nn.Module."),
        ({"weights_pth": state(nn.Linear(1, 1))}, "weights.pth is no state dictionary of the"),
        ({"weights_pth": b"nothing"}, "weights.pth is no state dictionary of the model"),
    ],
)
def test_an_eager_network_that_is_none_is_refused_with_its_place(
    files: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    path = of_python(tmp_path / "net.mar", **files)
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "net" / "1")
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)


def test_the_weights_of_an_eager_network_are_data(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"0.weight": Path("/")}, file)  # a class of no tensor
    path = of_python(tmp_path / "net.mar", weights_pth=file.getvalue())
    with pytest.raises(BundleError, match="weights.pth is no state dictionary of the model: "):
        pack(path, tmp_path / "net" / "1")


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("image_segmenter", "a class for each pixel"),
        ("object_detector", "a list of boxes"),
        ("base_handler", "doesn't say what its network takes"),
        ("vllm_handler", "needs libraries of its own"),
    ],
)
def test_other_handlers_of_torchserve_are_named_with_what_to_do(
    handler: str, said: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "m.mar", {"m.pt": b""}, handler=handler, serializedFile="m.pt")
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "m" / "1")
    assert f"uses TorchServe's own handler '{handler}', which isn't taken" in str(refused.value)
    assert said in str(refused.value)
    assert "give the archive a handler of its own." in str(refused.value)


def test_a_network_in_another_form_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.mar", {"m.onnx": b""}, serializedFile="m.onnx")
    with pytest.raises(BundleError, match=r"its network is 'm.onnx', .* Pack the network itself"):
        pack(path, tmp_path / "m" / "1")
    path = archive(tmp_path / "m.mar", {})
    with pytest.raises(BundleError, match=r"its manifest names no network \(serializedFile"):
        pack(path, tmp_path / "m" / "1")


def test_a_handler_that_extends_image_classifier_needs_no_torchvision(tmp_path: Path) -> None:
    handler = """
from ts.torch_handler.image_classifier import ImageClassifier

class Mine(ImageClassifier):
    topk = 2
    def postprocess(self, data):
        return [{"mine": answer} for answer in super().postprocess(data)]
"""
    path = archive(
        tmp_path / "net.mar",
        {"model.pt": script(network()), "handler.py": handler},
        handler="handler.py",
        serializedFile="model.pt",
    )
    pack(path, tmp_path / "net" / "1")
    model = load_model(ModelSource(tmp_path / "net" / "1", allow_code=True))
    for data in PHOTOS:
        found = json.loads(answer(model, HandlerRequest(data)).body)["mine"]
        wanted = expected(data, "0123456", network())
        check(found, {name: wanted[name] for name in [*wanted][:2]})


def test_a_handler_that_takes_torchvision_itself_is_told_what_is_missing(tmp_path: Path) -> None:
    handler = "from no_torchvision import transforms\n"
    files = {"handler.py": handler, "requirements.txt": "no_torchvision\n"}
    path = archive(tmp_path / "net.mar", files, handler="handler.py")
    with pytest.raises(BundleError) as refused:
        pack(path, tmp_path / "net" / "1")
    assert "No module named 'no_torchvision'" in str(refused.value)
    assert "It needs: no_torchvision; install them." in str(refused.value)
