"""What torchvision and transformers make of pictures and texts, for the tests beside this module.

They need neither library: what it wrote is in data/. It is run again, from the root of the
checkout, when a case is added, by a Python that has both (torch, torchvision, transformers):

    python tests/model/steps/expected.py

torchvision's release must be the one that belongs to torch's. Where it can't be imported beside a
newer torch, its transforms for pictures still can: they use Pillow alone, and none of the operators
that ``torchvision/__init__.py`` registers, so that its import of the others may be taken out.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

DATA = Path(__file__).parent / "data"
IMAGENET = {
    "scale": 1 / 255,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
SIZE_16 = {"width": 16, "height": 16}

Case = dict[str, Any]
CASES: dict[str, Case] = {
    **{
        f"{name} {of}": {"file": of, "resize": {"shorter": 20}, "filter": name, "crop": SIZE_16}
        | IMAGENET
        for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
        for of in ("wide.jpg", "tall.png")
    },
    **{
        f"read {of}": {"file": of, "resize": {"width": 9, "height": 7}, "scale": 1 / 255}
        for of in (
            *("grey.jpg", "cmyk.jpg", "alpha.png", "palette.png", "grey alpha.png", "grey 16.png"),
            *("bits.png", "lossy.webp", "alpha.webp", "colour.bmp", "two frames.gif"),
        )
    },
    **{
        f"held {turn}": {"file": f"held {turn}.jpg", "resize": {"width": 8, "height": 5}}
        for turn in range(1, 9)
    },
    "made larger": {"file": "wide.jpg", "resize": {"shorter": 64}, "crop": SIZE_16} | IMAGENET,
    "a margin around": {"file": "wide.jpg", "crop": {"width": 60, "height": 44}, "scale": 1 / 255},
    "a margin at the sides": {"file": "tall.png", "crop": {"width": 40, "height": 20}} | IMAGENET,
    "odd to even": {"file": "wide.jpg", "crop": {"width": 10, "height": 10}, "scale": 1 / 255},
    "even to odd": {"file": "tall.png", "crop": {"width": 7, "height": 9}, "scale": 1 / 255},
    "grey": {
        "file": "wide.jpg",
        "mode": "L",
        "resize": {"shorter": 16},
        "crop": SIZE_16,
        "scale": 1 / 255,
        "mean": [0.1307],
        "std": [0.3081],
    },
    "channels last": {"file": "wide.jpg", "crop": SIZE_16, "layout": "NHWC"} | IMAGENET,
    "bytes": {"file": "wide.jpg", "resize": {"shorter": 20}, "crop": SIZE_16, "as": "UINT8"},
    "halves": {"file": "wide.jpg", "crop": SIZE_16, "as": "FP16"} | IMAGENET,
    "every value": {"file": "every value.png"} | IMAGENET,
    "small deviations": {
        "file": "every value.png",
        "scale": 1 / 255,
        "mean": [0.5, 0.25, 0.75],
        "std": [0.05, 0.1, 0.5],
    },
}
TEXTS: list[list[str]] = [
    ["where is my parcel"],
    [""],
    ["   "],
    ["WHERE   is\tmy\nPARCEL?!"],
    ["Grüße, señor: naïve café"],
    ["\u4f60\u597d \U0001f600 \u0915\u094d\u0937 \u200b\u00ad\ufeff end\x00ed"],
    ["cannot log in", "my password is wrong"],
    ["", "where is it"],
    ["order " * 300],
    ["order " * 300, "parcel " * 200],
    ["short", "parcel " * 200],
    ["x" * 5000],
]
OF_TEXTS: dict[str, Case] = {
    "cut": {"max_length": 16, "padding": "longest"},
    "to the longest": {"max_length": 100, "padding": "longest"},
    "to a length": {"max_length": 24, "padding": "max_length"},
    "from the left": {"max_length": 16, "padding": "longest", "side": "left"},
}


def files() -> dict[str, bytes]:
    """Return pictures in every format and mode that is read."""
    random = np.random.default_rng(3)

    def noise(width: int, height: int) -> Image.Image:
        small = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    def held(image: Image.Image, turn: int) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = turn
        return _file(image, "JPEG", exif=exif)

    wide, tall = noise(53, 37), noise(24, 49)
    clear = tall.copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    palette = tall.quantize(16)
    deep = Image.fromarray(np.arange(48 * 8, dtype=np.uint16).reshape(8, 48) * 3)
    values = np.arange(256, dtype=np.uint8)
    every = np.stack([values, values[::-1], np.roll(values, 99)], axis=-1).reshape(16, 16, 3)
    return {
        "wide.jpg": _file(wide, "JPEG", quality=90),
        "tall.png": _file(tall, "PNG"),
        "grey.jpg": _file(wide.convert("L"), "JPEG"),
        "cmyk.jpg": _file(wide.convert("CMYK"), "JPEG"),
        "alpha.png": _file(clear, "PNG"),
        "palette.png": _file(palette, "PNG", transparency=3),
        "grey alpha.png": _file(clear.convert("LA"), "PNG"),
        "grey 16.png": _file(deep, "PNG"),
        "bits.png": _file(wide.convert("1"), "PNG"),
        "lossy.webp": _file(wide, "WEBP", quality=80),
        "alpha.webp": _file(clear, "WEBP", lossless=True),
        "colour.bmp": _file(tall, "BMP"),
        "two frames.gif": _file(palette, "GIF", save_all=True, append_images=[wide.quantize(8)]),
        **{f"held {turn}.jpg": held(wide, turn) for turn in range(1, 9)},
        "every value.png": _file(Image.fromarray(every), "PNG"),
    }


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write_images() -> None:
    """Write the pictures, the cases, and the arrays that torchvision makes of them."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    def made(case: Case, data: bytes) -> Any:
        image = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert(case.get("mode", "RGB"))
        chain: list[Any] = []
        if resize := case.get("resize"):
            size = resize.get("shorter") or (resize["height"], resize["width"])
            way = InterpolationMode[case.get("filter", "bilinear").upper()]
            chain.append(transforms.Resize(size, way))
        if crop := case.get("crop"):
            chain.append(transforms.CenterCrop((crop["height"], crop["width"])))
        if case.get("scale", 1) == 1:
            chain.append(transforms.PILToTensor())
        else:
            chain.append(transforms.ToTensor())
        if "mean" in case:
            chain.append(transforms.Normalize(case["mean"], case["std"]))
        array = transforms.Compose(chain)(image).numpy()
        array = array.transpose(1, 2, 0) if case.get("layout") == "NHWC" else array
        return array if case.get("as") == "UINT8" else array.astype(np.float32)

    pictures = files()
    arrays: dict[str, Any] = {
        f"file {name}": np.frombuffer(d, np.uint8) for name, d in pictures.items()
    }
    for name, case in CASES.items():
        arrays[f"case {name}"] = np.array(json.dumps(case))
        arrays[f"made {name}"] = made(case, pictures[case["file"]])
    np.savez_compressed(DATA / "torchvision.npz", **arrays)


def write_texts() -> None:
    """Write what transformers makes of the texts."""
    from transformers import PreTrainedTokenizerFast

    written = []
    for name, case in OF_TEXTS.items():
        side = case.get("side", "right")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(DATA / "tokenizer.json"),
            pad_token="[PAD]",
            padding_side=side,
            truncation_side=side,
        )
        for texts in [[text for text in TEXTS if len(text) == n] for n in (1, 2)]:
            found = tokenizer(
                *[list(column) for column in zip(*texts, strict=True)],
                max_length=case["max_length"],
                truncation=True,
                padding=case["padding"],
                return_token_type_ids=True,
            )
            written.append({"name": name, **case, "texts": texts, "tokens": dict(found)})
    (DATA / "transformers.json").write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    write_images()
    write_texts()
