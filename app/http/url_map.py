"""Flask's map of URLs, which remembers the hosts that it bound and the paths that it matched.

Clients repeat both. Werkzeug checks a host and splits a path anew for each request, and leaves
cycles for the garbage collector.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from werkzeug.routing import Map, MapAdapter, Rule, RuleFactory

_OPTIONS_OF_FLASK = {"return_rule": True}
"""The options with which Flask calls `MapAdapter.match`."""


class UrlMap(Map):
    """A `Map` that binds and matches as werkzeug does; see `flask.Flask.url_map_class`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.matches: dict[tuple[str, str], Rule] = {}
        super().__init__(*args, **options)

    def add(self, rulefactory: RuleFactory) -> None:
        """Add rules, which may match what others have matched."""
        super().add(rulefactory)
        self.matches.clear()

    def bind_to_environ(
        self, environ: Any, server_name: str | None = None, subdomain: str | None = None
    ) -> MapAdapter:
        """Return the adapter of a request, given as its environ or as an object that has it."""
        env: Mapping[str, Any] = getattr(environ, "environ", environ)
        script_name, path = env.get("SCRIPT_NAME", ""), env.get("PATH_INFO", "")
        query, host = env.get("QUERY_STRING", ""), env.get("HTTP_HOST")
        if (
            host is None
            or server_name is not None
            or subdomain != ""
            or self.host_matching
            or "HTTP_UPGRADE" in env  # a WebSocket has a scheme of its own
            or not f"{script_name}{path}{query}".isascii()
        ):
            return super().bind_to_environ(environ, server_name, subdomain)
        scheme, method = env["wsgi.url_scheme"], env["REQUEST_METHOD"]
        host = _bound_host(host, scheme)
        return UrlAdapter(self, host, script_name, "", scheme, path, method, query)


class UrlAdapter(MapAdapter):
    """A `MapAdapter` that finds what has been matched in a dictionary."""

    map: UrlMap

    def match(self, *args: Any, **options: Any) -> Any:
        """Return the rule or endpoint and its values; raise what werkzeug raises."""
        if args or options != _OPTIONS_OF_FLASK:
            return super().match(*args, **options)
        method, path = key = self.default_method, self.path_info
        rule = self.map.matches.get(key)
        if rule is not None:
            return rule, {}
        rule, values = super().match(return_rule=True)
        # Only under a rule's own path and methods, so that callers can't make them many.
        if not values and rule.rule == path and method in (rule.methods or ()):
            self.map.matches[key] = rule
        return rule, values


@lru_cache(maxsize=256)
def _bound_host(host: str, scheme: str) -> str:
    """Return a host as werkzeug binds it. Raises what werkzeug raises, which is not cached."""
    environ = {"HTTP_HOST": host, "wsgi.url_scheme": scheme, "REQUEST_METHOD": "GET"}
    return Map().bind_to_environ(environ).server_name
