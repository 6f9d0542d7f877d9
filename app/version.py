"""The version of Lantern, and its command: the one place where they stand."""

__version__ = "0.1.0"

_IS_INSTALLED = __package__ != "app"
MODULE = __package__
"""What ``python -m`` takes to run the command: ``app`` in a checkout, in its directory."""
COMMAND = "lantern" if _IS_INSTALLED else f"python -m {MODULE}"
"""What messages tell people to run."""
FOR_TORCH = "'lantern-serving[torch]'" if _IS_INSTALLED else "-r requirements.txt"
"""What ``pip install`` takes for models that torch runs."""
FOR_PACKING = "'lantern-serving[pack]'" if _IS_INSTALLED else "-r requirements-dev.txt"
"""What ``pip install`` takes for packing models."""
