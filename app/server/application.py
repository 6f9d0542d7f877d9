"""The server of ``lantern serve``: Gunicorn in this process, without a configuration file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application

from . import gunicorn_config

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger("gunicorn.error")


class LanternServer(Application):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn with Lantern's configuration, serving what ``create_app`` returns.

    ``GUNICORN_CMD_ARGS``, and a configuration file named there by ``--config``, override it.
    """

    def __init__(self, create_app: Callable[[], Flask]) -> None:
        self._create_app = create_app
        super().__init__(prog="lantern serve")

    def load_config(self) -> None:
        parser = self.cfg.parser()
        arguments = vars(parser.parse_args(self.cfg.get_cmd_args_from_env()))
        self._set(vars(gunicorn_config) | {"workers": gunicorn_config.worker_count()})
        if arguments["config"]:
            self.load_config_from_file(arguments["config"])
        self._set({name: value for name, value in arguments.items() if value is not None})
        os.chdir(self.cfg.chdir)

    def reload(self) -> None:
        """Read the configuration again, except in a directory that is gone: Gunicorn would end."""
        try:
            os.getcwd()  # noqa: PTH109 -- nothing is done with it
        except OSError as error:
            log.warning(
                "The configuration isn't read again: the current directory can't be used: %s. "
                "Restart the service in one that exists.",
                error.strerror,
            )
            return
        super().reload()

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._create_app()
