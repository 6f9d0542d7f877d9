"""The settings: declared once, loaded and checked at startup.

A value comes from the declaration, the file in ``LANTERN_CONFIG``, or a variable; the last of these
wins. The rest of the application reads typed values.
"""

from __future__ import annotations

from .declaration import LimitSettings, LoggingSettings, ModelSettings, Settings
from .errors import SettingsError
from .load import load_settings, settings_at_start, use_arguments
from .places import PACKAGE
from .sources import FILE_VARIABLE, KEY_VARIABLE

__all__ = [
    "FILE_VARIABLE",
    "KEY_VARIABLE",
    "PACKAGE",
    "LimitSettings",
    "LoggingSettings",
    "ModelSettings",
    "Settings",
    "SettingsError",
    "load_settings",
    "settings_at_start",
    "use_arguments",
]
