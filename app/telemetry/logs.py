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
from functools import cache, lru_cache
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
_LONGEST_TRACE = 64 << 10
_MILLISECONDS = [b"%03d" % number for number in range(1000)]
_UTC = b"+00:00"
_call_handlers = logging.Logger.callHandlers
_pid = cache(os.getpid)
os.register_at_fork(after_in_child=_pid.cache_clear)


class EventLog:
    """Logs events that occur in every request, at low cost.

    An event is encoded straight into a line where nobody but Lantern's own handler would see its
    record. Handlers, filters and formatters that somebody attached get an ordinary record, created
    without what nobody reads (the calling line, the thread) and without formatting a message.

    An event that comes ``before`` one of another log is written together with that.
    """

    def __init__(self, name: str, *, before: EventLog | None = None) -> None:
        self._name = name
        self._before = before
        self._logger = logging.getLogger(name)

    @property
    def is_enabled(self) -> bool:
        """True if `info` writes anything."""
        return self._logger.isEnabledFor(logging.INFO)

    def info(self, message: str, fields: dict[str, Any]) -> None:
        """Log an event with its fields."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        created = time.time()
        handler = self._only_handler()
        if handler is not None:
            try:
                line = _line(created, _head("INFO", self._name, _pid(), message), fields)
            except TypeError:  # of a value without a form in JSON: the formatter says so
                pass
            else:
                handler.write(line, more_follows=not handler.defers and self._more_follows)
                return
        self._logger.handle(self._record(created, message, fields))

    def _only_handler(self) -> LineHandler | None:
        """Return the handler that alone sees the events, and writes them as JSON, if there is one.

        This is asked for each event, because anybody may change it at any time.
        """
        logger, parent = self._logger, self._logger.parent
        if type(logger).callHandlers is not _call_handlers:  # Sentry replaces it, for instance
            return None
        if (
            logger.handlers
            or logger.filters
            or not logger.propagate
            or parent is None
            or parent.propagate
            or len(parent.handlers) != 1
        ):
            return None
        handler = parent.handlers[0]
        if (
            type(handler) is LineHandler
            and type(handler.formatter) is JsonFormatter
            and not handler.filters
            and handler.level <= logging.INFO
        ):
            return handler
        return None

    @property
    def _more_follows(self) -> bool:
        return self._before is not None and self._before.is_enabled

    def _record(self, created: float, message: str, fields: dict[str, Any]) -> logging.LogRecord:
        record = logging.LogRecord.__new__(logging.LogRecord)
        content = record.__dict__
        content.update(_BLANK)
        content.update(fields)
        content["name"] = self._name
        content["msg"] = message
        content["created"] = created
        content["msecs"] = created % 1 * 1000
        content["process"] = _pid()
        content["event"] = fields
        content["more_follows"] = self._more_follows
        return record


request_log = EventLog("lantern.request")
"""One line for each request."""
prediction_log = EventLog("lantern.prediction", before=request_log)
"""One line for each single prediction, before that of its request."""


class _BoundedTraces(logging.Formatter):
    """Shortens a traceback in its middle: the message of an exception may be of any length, and a
    line that is too long is dropped.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802
        text = super().formatException(ei)
        left_out = len(text) - _LONGEST_TRACE
        if left_out <= 0:
            return text
        half = _LONGEST_TRACE // 2
        return f"{text[:half]}\n[{left_out:,} characters left out]\n{text[-half:]}"


class JsonFormatter(_BoundedTraces, OrjsonFormatter):
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
        head = _head(record.levelname, record.name, record.process, record.msg)
        line = _line(record.created, head, fields)
        return line.decode().rstrip()

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


def _line(created: float, head: bytes, fields: dict[str, Any]) -> bytes:
    """Return the line of an event. Raises `TypeError` if a field has no form in JSON."""
    second = int(created)
    return b"".join(
        (
            b'{"time":"',
            _second(second),
            _MILLISECONDS[int((created - second) * 1000)],
            head,
            b"," if fields else b"",
            orjson.dumps(fields, None, orjson.OPT_APPEND_NEWLINE)[1:],
        )
    )


def _time(created: float) -> str:
    """Return a time in UTC, to the millisecond."""
    second = int(created)
    milliseconds = _MILLISECONDS[int((created - second) * 1000)]
    return b"".join((_second(second), milliseconds, _UTC)).decode()


@lru_cache(maxsize=2)
def _second(second: int) -> bytes:
    """Return the beginning of a time, which has the same second."""
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", ".").encode()


@lru_cache(maxsize=16)
def _head(level: str, name: str, pid: int | None, message: str) -> bytes:
    """Return what follows the time in a line, up to its fields."""
    members = {"level": level, "logger": name, "pid": pid, "message": message}
    return _UTC + b'",' + orjson.dumps(members)[1:-1]


class ConsoleFormatter(_BoundedTraces):
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
