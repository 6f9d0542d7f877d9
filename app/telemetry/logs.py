"""Logging: one JSON object per line for programs, or a readable line for people.

Lantern logs below the logger ``lantern``, to standard output. Gunicorn's own messages go where they
always do, in the same format.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from gunicorn.glogging import Logger
from pythonjsonlogger.orjson import OrjsonFormatter

from ..access.keys import KEY_SECRET
from ..documents.text import readable
from ..settings import LoggingSettings
from .lines import LineHandler

_BLANK = logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO"}).__dict__
_STANDARD = frozenset(_BLANK) | {"message", "asctime", "taskName", "event", "more_follows"}


class EventLog:
    """Logs events that occur in every request, at low cost.

    An event is an ordinary record for handlers and formatters, but it is created without what
    nobody reads (the calling line, the thread) and without formatting a message.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._blank = _BLANK | {"name": name}

    @property
    def is_enabled(self) -> bool:
        """True if `info` writes anything."""
        return self._logger.isEnabledFor(logging.INFO)

    def info(self, message: str, fields: dict[str, Any], *, more_follows: bool = False) -> None:
        """Log an event with its fields; ``more_follows`` lets the next one be written with it."""
        if not self.is_enabled:
            return
        created = time.time()
        record = logging.LogRecord.__new__(logging.LogRecord)
        content = record.__dict__
        content.update(self._blank)
        content.update(fields)
        content["msg"] = message
        content["created"] = created
        content["msecs"] = created % 1 * 1000
        content["process"] = os.getpid()
        content["event"] = fields
        content["more_follows"] = more_follows
        self._logger.handle(record)


request_log = EventLog("lantern.request")
"""One line for each request."""
prediction_log = EventLog("lantern.prediction")
"""One line for each single prediction, before that of its request."""


class JsonFormatter(OrjsonFormatter):
    """Formats a record and its extra fields as one JSON object, with the time in UTC."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{process}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "process": "pid"},
        )

    def format(self, record: logging.LogRecord) -> str:
        fields = record.__dict__.get("event")
        if fields is None:
            return str(super().format(record))
        line = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.msg,
        }
        line.update(fields)
        return orjson.dumps(line).decode()

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            return str(super().jsonify_log_record(log_data))
        except TypeError:  # the name of a file that the locale could not decode
            return readable(json.dumps(log_data, default=str, ensure_ascii=False))

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = _time(record.created)
        super().add_fields(log_data, record, message_dict)


def _time(created: float) -> str:
    """Return a time in UTC, to the millisecond."""
    whole = int(created)
    return f"{_second(whole)}.{int((created - whole) * 1000):03d}+00:00"


@lru_cache(maxsize=2)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).isoformat().removesuffix("+00:00")


class ConsoleFormatter(logging.Formatter):
    """Formats a record as a line for people: time, level, message, then the extra fields."""

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
    """Return a value as text, quoted unless it is one printable word: it may be a caller's."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def make_formatter(settings: LoggingSettings) -> logging.Formatter:
    """Return the formatter for ``logging.format``."""
    return JsonFormatter() if settings.format == "json" else ConsoleFormatter()


def configure_logging(settings: LoggingSettings) -> None:
    """Configure the logger ``lantern`` to write to standard output; it may be called again."""
    handler = LineHandler(sys.stdout)
    handler.setFormatter(make_formatter(settings))
    flask = __name__.partition(".")[0]  # the package's name, under which Flask logs exceptions
    for name in ("lantern", flask):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(settings.level)
        logger.propagate = False


def _without_keys(record: logging.LogRecord) -> bool:
    """Redact the secrets of keys in a record: Gunicorn quotes headers that it can't parse."""
    record.msg, record.args = KEY_SECRET.sub(r"\1***", record.getMessage()), ()
    return True


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn's logger with Lantern's formatter, and handlers that never block.

    Where it writes stays Gunicorn's choice. The master uses it, too.
    """

    settings: LoggingSettings

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers = [_without_waiting(handler) for handler in logger.handlers]
        self.error_log.addFilter(_without_keys)
        for handler in self.error_log.handlers:
            handler.setFormatter(make_formatter(self.settings))


def _without_waiting(handler: logging.Handler) -> logging.Handler:
    """Return a `LineHandler` in place of ``handler``, if that is Gunicorn's for a stream."""
    if type(handler) is not logging.StreamHandler or "_gunicorn" not in vars(handler):
        return handler
    ours = LineHandler(handler.stream)
    ours.setFormatter(handler.formatter)
    vars(ours)["_gunicorn"] = (
        True  # Gunicorn's mark, by which it replaces the handler when it is set up again
    )
    return ours
