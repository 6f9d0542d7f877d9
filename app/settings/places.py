"""Where the package is, and what it ships with."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""Nothing in it is written to."""
# In a checkout they are beside the package; a wheel has them inside.
SHIPPED = PACKAGE if (PACKAGE / "config").is_dir() else PACKAGE.parent
"""The directory of ``config/default.toml`` and of the example model, which is only read."""
MODELS = "models"
"""The directory in the current one whose models are served where the settings name none."""
EXAMPLE = Path(MODELS) / "campaign-response"
"""The example model, in `SHIPPED`: served where there is no other."""
