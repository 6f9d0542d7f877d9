"""The version of Lantern, and its command: the one place where they stand."""

__version__ = "0.1.0"

_IS_INSTALLED = __package__ != "app"
COMMAND = "lantern" if _IS_INSTALLED else "flask --app wsgi"
"""What messages tell people to run; a checkout, whose package is called ``app``, has no other."""
MODULE = "lantern_serving" if _IS_INSTALLED else COMMAND
"""The same as ``python -m`` takes it, for a Python whose programs may not be on the PATH."""
FOR_TORCH = "'lantern-serving[torch]'" if _IS_INSTALLED else "-r requirements.txt"
"""What ``pip install`` takes for models that torch runs."""
FOR_PACKING = "'lantern-serving[pack]'" if _IS_INSTALLED else "-r requirements-dev.txt"
"""What ``pip install`` takes for packing models."""
