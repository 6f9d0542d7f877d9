"""Where the package is, and the files that come with it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""Nothing is written into it."""
# In a checkout they are beside the package; a wheel has them inside.
SHIPPED = PACKAGE if (PACKAGE / "config").is_dir() else PACKAGE.parent
"""The directory of ``config/default.toml`` and of the example model, which is only read."""
MODELS = "models"
"""The directory below the current one whose models are served if the settings name none."""
EXAMPLE = Path(MODELS) / "campaign-response"
"""The example model, in `SHIPPED`: served if there is no other."""
