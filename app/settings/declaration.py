"""The settings: each declared once, with its type, bounds and default.

``config/default.toml`` documents them; a test compares it with this declaration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ..model.isolation import ProcessLimits
from ..model.run_limits import RunLimits
from ..model.runtime import RuntimeChoice
from ..model.steps.limits import DEFAULT_SAMPLE_LIMITS, SampleLimits
from . import forms
from .places import EXAMPLE


def parsed_by(parse: Callable[[str], str]) -> Meta:
    """Return the annotation of a text that ``parse`` reads; errors continue from the name."""
    return Meta(extra={"parse": parse})


LARGEST = sys.float_info.max
LARGEST_INTEGER = 2**63 - 1
Text = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, le=LARGEST)]
UpToADay = Annotated[float, Meta(gt=0, le=86400)]
AtLeastZero = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]
AtLeastOne = Annotated[int, Meta(ge=1, le=LARGEST_INTEGER)]
Threads = Annotated[int, Meta(ge=1, le=1024)]
ImagePixels = Annotated[int, Meta(ge=1, le=178_956_970)]  # Pillow refuses twice as many
ModelName = Annotated[str, parsed_by(forms.parse_model_name)]
Permission = Annotated[
    bool | tuple[Text, ...], Meta(description="true, false, or a list of the names of models")
]


class ServerSettings(Struct, frozen=True):
    host: Annotated[Text, parsed_by(forms.parse_host)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    workers: AtLeastZero = 0
    worker_class: Literal["auto", "keepalive", "gthread", "sync"] = "auto"
    threads: Threads = 4
    pool_threads: Threads = 8
    timeout_seconds: AtLeastOne = 30
    graceful_timeout_seconds: AtLeastOne = 30
    keepalive_seconds: AtLeastOne = 75
    headers_timeout_seconds: Seconds = 10
    body_timeout_seconds: Seconds = 30
    drain_seconds: Annotated[float, Meta(ge=0, le=LARGEST)] = 0
    fast_path: bool = True
    proxies: Annotated[int, Meta(ge=0, le=100)] = 0
    prefix: Annotated[str, parsed_by(forms.parse_prefix)] = ""


class ModelSettings(Struct, frozen=True):
    path: Path = EXAMPLE
    name: ModelName = ""
    version: str = ""
    runtime: RuntimeChoice = "auto"
    device: Annotated[str, parsed_by(forms.parse_device)] = "cpu"
    threads: Threads = 1
    batch_rows: AtLeastZero | Literal["auto"] = "auto"
    feature_names: tuple[Text, ...] = ()
    class_names: tuple[Text, ...] = ()
    allow_code: Permission = False
    check_seconds: UpToADay = 60
    check_memory_mb: Annotated[int, Meta(ge=256, le=1 << 24)] = 4096

    @property
    def process_limits(self) -> ProcessLimits:
        """The limits of the process that checks an unverified file."""
        return ProcessLimits(self.check_seconds, self.check_memory_mb)


class ReleaseSettings(Struct, frozen=True):
    poll_seconds: UpToADay = 2
    routing_header: Annotated[str, parsed_by(forms.parse_header)] = "X-Routing-Key"


class CacheSettings(Struct, frozen=True):
    size: AtLeastZero = 0


class LimitSettings(Struct, frozen=True):
    max_body_bytes: AtLeastOne = 8 << 20
    max_held_bytes: AtLeastOne = 256 << 20
    max_batch_size: AtLeastOne = 10_000
    max_answer_values: AtLeastOne = 1_000_000
    max_image_pixels: ImagePixels = DEFAULT_SAMPLE_LIMITS.image_pixels
    max_text_characters: AtLeastOne = DEFAULT_SAMPLE_LIMITS.text_characters
    max_request_line_bytes: Annotated[int, Meta(ge=64, le=8190)] = 4094
    max_header_fields: Annotated[int, Meta(ge=8, le=32768)] = 100
    max_header_field_bytes: Annotated[int, Meta(ge=64, le=65536)] = 8190
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    run_seconds: UpToADay = 10
    run_memory_mb: Annotated[int, Meta(ge=0, le=1 << 24)] = 2048
    queue_budget_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 500
    rate: Annotated[str, parsed_by(forms.parse_rate)] = ""
    rate_storage: Annotated[str, parsed_by(forms.parse_rate_storage)] = forms.IN_MEMORY

    @property
    def run_limits(self) -> RunLimits:
        """The limits of one run of a network."""
        return RunLimits(self.run_seconds, self.run_memory_mb)

    @property
    def sample_limits(self) -> SampleLimits:
        """The limits of an image and of a text that a model is to read."""
        return SampleLimits(self.max_image_pixels, self.max_text_characters)


class AccessSettings(Struct, frozen=True):
    auth: Literal["auto", "keys", "none"] = "auto"
    keys_file: Path = Path("config/keys.json")
    open_metrics: bool = False
    open_docs: bool = False
    open_page: bool = False
    cors_origins: tuple[Annotated[str, parsed_by(forms.parse_origin)], ...] = ()


class LoggingSettings(Struct, frozen=True):
    format: Literal["json", "console"] = "json"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    features: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force; ``origins`` maps ``section.key`` to where its value came from.

    ``models`` maps the names of the models in the settings to their paths; the name is empty for a
    model that its own files name, and the first model answers calls without a name.
    ``models_fault`` says why they can't be served, for commands that need a model. ``values`` are
    for display, without passwords. ``warnings`` are logged when a service starts.
    """

    server: ServerSettings
    model: ModelSettings
    models: Mapping[str, Path]
    release: ReleaseSettings
    cache: CacheSettings
    limits: LimitSettings
    access: AccessSettings
    logging: LoggingSettings
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    models_fault: str = ""
    warnings: tuple[str, ...] = ()

    def origin_of_model(self, name: str) -> str:
        """Return which source set the model called ``name`` in `models`."""
        return self.origins.get(f"models.{name}", self.origins["model.path"])

    @property
    def worker_class(self) -> str:
        """The worker class in force."""
        chosen = self.server.worker_class
        return "keepalive" if chosen == "auto" else chosen
