"""Logs: one JSON object a line for programs, or a readable line for people.

Everything of ours is logged below the logger ``lantern``, to standard output; Gunicorn's own
messages keep their place and take the same form.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from gunicorn.glogging import Logger
from pythonjsonlogger.orjson import OrjsonFormatter

from app.settings import LoggingSettings

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(OrjsonFormatter):
    """Writes a record and its extra fields as one JSON object, the time in UTC."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{process}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "process": "pid"},
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(
            timespec="milliseconds"
        )
        super().add_fields(log_data, record, message_dict)


class ConsoleFormatter(logging.Formatter):
    """Writes a line for people: time, level, message, then the extra fields."""

    def __init__(self) -> None:
        super().__init__(
            "{asctime} [{process}] {levelname:<7} {message}", style="{", datefmt="%H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        extras = [
            f"{name}={_readable(value)}"
            for name, value in record.__dict__.items()
            if name not in _STANDARD and value is not None
        ]
        return "  ".join([super().formatMessage(record), *extras])


def _readable(value: object) -> str:
    """Quote what would not stand as one word on one line: a caller may have made it up."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def make_formatter(settings: LoggingSettings) -> logging.Formatter:
    """Give the formatter that ``logging.format`` names."""
    return JsonFormatter() if settings.format == "json" else ConsoleFormatter()


def configure_logging(settings: LoggingSettings) -> None:
    """Point the logger ``lantern`` at standard output; calling it again replaces what it set."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(make_formatter(settings))
    for name in ("lantern", "app"):  # the second is Flask's, for what fails in its own depths
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(settings.level)
        logger.propagate = False


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn's logger with our formatter on its messages; where they go stays its own choice."""

    settings: LoggingSettings

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(make_formatter(self.settings))
