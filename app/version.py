"""The version of Lantern, and its command: the only place where they are defined."""

__version__ = "0.1.0"

_IS_INSTALLED = __package__ != "app"
MODULE = __package__
"""The argument of ``python -m`` that runs the command: ``app`` in a checkout, in its directory."""
COMMAND = "lantern" if _IS_INSTALLED else f"python -m {MODULE}"
"""The command as it appears in messages."""
FOR_TORCH = "'lantern-serving[torch]'" if _IS_INSTALLED else "-r requirements.txt"
"""The arguments of ``pip install`` for models that torch runs."""
FOR_PACKING = "'lantern-serving[pack]'" if _IS_INSTALLED else "-r requirements-dev.txt"
"""The arguments of ``pip install`` for packing models."""
FOR_IMAGES = "'lantern-serving[image]'" if _IS_INSTALLED else "-r requirements-onnx.txt"
"""The arguments of ``pip install`` for models that take images."""
FOR_TEXTS = "'lantern-serving[text]'" if _IS_INSTALLED else "-r requirements-onnx.txt"
"""The arguments of ``pip install`` for models that take texts."""
