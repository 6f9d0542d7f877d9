"""The Python client of a Lantern service; run as a program, it shows the responses of a service.

It needs only `requests`: nothing of the rest of the package is imported.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import random
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from io import TextIOWrapper
from numbers import Integral, Real
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict, cast
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.filepost import encode_multipart_formdata
from urllib3.util import Retry

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = (5.0, 30.0)
DEFAULT_RETRIES = 3

KEY_VARIABLE = "LANTERN_API_KEY"

_HEALTH = "/health"
_BACK_OFF_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 30.0
_JSON = "application/json"
_OCTETS = "application/octet-stream"
_DATA = "data"
_PROBLEM_JSON = "application/problem+json"
_LONGEST_BODY_SHOWN = 200
_CATEGORIES_SHOWN = 3
_EXAMPLE_TEXT = "An example of a text."


class Health(TypedDict):
    """The state of the service; ``reason`` says why it is unhealthy."""

    status: str
    model_loaded: bool
    model_version: str | None
    timestamp: str
    reason: NotRequired[str]


FeatureValue = float | str | bool | None
"""A number, a category by its name, a boolean, or None where the value is unknown."""


Image = bytes | str | os.PathLike[str]
"""An image as it is in a file, or the path of the file."""


class FeatureInfo(TypedDict):
    """One input of the model; ``minimum`` and ``maximum`` are the range seen in training.

    ``kind`` is number, integer, boolean or category. A category is one of ``categories``, or any
    other string if ``unknown`` is "pass".
    """

    name: str
    kind: str
    description: str
    unit: str
    minimum: float | None
    maximum: float | None
    nullable: bool
    example: FeatureValue
    categories: list[str]
    unknown: str
    tensor: str
    column: int | None


class TargetInfo(TypedDict):
    """A number that a regression predicts."""

    name: str
    unit: str
    description: str


class TensorInfo(TypedDict):
    """An input or output of the model; -1 is a dimension that varies. Only outputs have a role."""

    name: str
    datatype: str
    shape: list[int]
    role: NotRequired[str]


class ModelInfo(TypedDict):
    """The model that is served: its features in order, its classes, and how it was made.

    ``task`` is classification, multilabel, regression, embedding or tensors; a model has classes,
    labels or targets by its task. ``steps`` say how images and texts become its tensors: one of the
    ``kind`` "image", "text", or both.
    """

    name: str
    model_version: str
    description: str
    created_at: str | None
    model_loaded: bool
    num_features: int
    max_batch_size: int
    feature_names: list[str]
    features: list[FeatureInfo]
    task: str
    classes: list[str]
    labels: list[str]
    targets: list[TargetInfo]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    steps: NotRequired[list[dict[str, Any]]]
    top: NotRequired[int]
    preprocessing: list[dict[str, Any]]
    training: dict[str, Any]
    runtime: str
    device: str
    checksum: str
    loaded_at: str


TopClass = TypedDict(
    "TopClass",
    {"label": str, "class": int, "probability": NotRequired[float], "score": NotRequired[float]},
)
"""One of the most probable classes or labels."""


class Prediction(TypedDict):
    """A prediction, whose members depend on the task of the model.

    - classification: ``prediction`` and ``label`` are a class by index and name, ``probabilities``
      are those of each as ``{"class_0": p, ...}``; or ``scores``, of a model without probabilities
    - multilabel: ``prediction`` and ``labels`` are lists of those that apply, and
      ``probabilities`` are those of all labels
    - regression: ``prediction`` is a number, or a list if there are several targets, and ``values``
      has them by name
    - embedding: ``embedding`` is a list of numbers

    ``top`` has the most probable classes or labels, the first of them first, where the call or the
    model asks for them.
    """

    prediction: NotRequired[int | float | list[int] | list[float]]
    label: NotRequired[str]
    labels: NotRequired[list[str]]
    probabilities: NotRequired[dict[str, float]]
    scores: NotRequired[dict[str, float]]
    values: NotRequired[dict[str, float]]
    embedding: NotRequired[list[Any]]
    top: NotRequired[list[TopClass]]
    model_version: str
    timestamp: str


class BatchPrediction(TypedDict):
    """Predictions in the order of the samples."""

    predictions: list[Prediction]
    total_samples: int
    model_version: str


class ClientError(Exception):
    """The base class of all errors of a call; its text is one sentence for people."""


class ServiceUnreachable(ClientError):
    """``url`` did not answer: no connection, a broken one, or no response in time."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"No response from {self.url}: {self.reason}."


class UnexpectedResponse(ClientError):
    """The response from ``url`` is not that of a Lantern service."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"The response from {self.url} is not Lantern's: {self.reason}."


class RequestRejected(ClientError):
    """The service, or something in front of it, answered with a status other than success.

    ``problem`` is the problem document (RFC 9457) of the response; for a response without one it is
    made from the status, with the type ``about:blank``.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    @property
    def detail(self) -> str:
        """A sentence that says what is wrong."""
        return str(self.problem.get("detail", ""))

    @property
    def errors(self) -> list[dict[str, str]]:
        """Every fault that was found: ``{"pointer": JSON pointer, "detail": ...}``."""
        errors = self.problem.get("errors")
        return errors if isinstance(errors, list) else []

    @property
    def request_id(self) -> str:
        """The id under which the service logged the request; empty if the response has none."""
        return str(self.problem.get("request_id", ""))

    def __str__(self) -> str:
        title = self.problem.get("title") or _phrase(self.status)
        quote = f" [request_id {self.request_id}]" if self.request_id else ""
        return f"{self.status} {title}: {self.detail}{quote}"


class KeyRejected(RequestRejected):
    """401: the service requires a key, and got none, or one that is not valid."""


class NotAllowed(RequestRejected):
    """403: the key is valid, but not for this call."""


class RateExceeded(RequestRejected):
    """429: the caller exceeded its rate, and did so again after each wait.

    ``retry_after`` is the number of seconds to wait, None if the response doesn't say.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after: float | None = None
    ) -> None:
        super().__init__(status, problem)
        self.retry_after = retry_after


class ModelClient:
    """A client of one Lantern service: its health, its model, and predictions.

    ``base_url`` is the URL of the service, with the path prefix of a proxy if there is one.
    ``api_key`` is sent with every request, and to no other host: redirects are not followed.
    ``timeout`` is in seconds: one number, or one to connect and one to wait for each response.
    ``retries`` is how often a call is repeated at most, after 429, 503 or a connection that failed
    or broke. It waits for ``Retry-After`` (at most 30 s), or else longer each time. Predictions
    change nothing, so repeating them is safe. A request that timed out is not repeated: that would
    add to the load that delayed it.

    Connections are kept open and reused, from any thread; `close` them, or use the client as a
    context manager. Every method raises `ServiceUnreachable`, `RequestRejected` or
    `UnexpectedResponse`, all of them `ClientError`. Raises `ValueError` for invalid arguments.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        api_key: str | None = None,
    ) -> None:
        seconds = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        if len(seconds) != 2 or not all(0 < value < math.inf for value in seconds):
            raise ValueError(f"timeout must be one or two positive numbers, not {timeout!r}.")
        if retries < 0:
            raise ValueError(f"retries must not be negative, not {retries}.")
        self._session = requests.Session()
        self.base_url, credentials = _split_url(base_url)
        if credentials and api_key is not None:
            raise ValueError("base_url has a password, and there is an api_key: only one is sent.")
        self._session.auth = credentials if api_key is None else _KeyAuth(api_key)
        self._timeout = seconds
        self._session.headers.update(
            {
                "Accept": f"{_JSON}, {_PROBLEM_JSON}",
                "User-Agent": "lantern-client",
            }
        )
        adapter = HTTPAdapter(
            max_retries=_PoliteRetry(
                total=retries,
                status_forcelist=_PoliteRetry.RETRY_AFTER_STATUS_CODES,
                allowed_methods=None,  # a POST too: a prediction changes nothing
                raise_on_status=False,  # the last response says more than "too many retries"
            )
        )
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def health_check(self) -> Health:
        """Return the state of the service at this moment; a 503 is not retried.

        An unhealthy service is no exception: look at ``status``.
        """
        response = self._send("GET", _HEALTH)
        if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            document = _json_object(response)
            if document is not None and "model_loaded" in document:
                return cast(Health, document)
        return cast(Health, _read_response(response))

    def get_model_info(self) -> ModelInfo:
        """Return the description of the model that is served."""
        return cast(ModelInfo, _read_response(self._send("GET", "/model/info")))

    def predict(
        self, features: Mapping[str, FeatureValue], *, top: int | None = None
    ) -> Prediction:
        """Predict one sample: a value for each feature, or None if it is unknown.

        With ``top``, the answer lists so many of the most probable classes. Raises `ValueError` for
        NaN or infinity, which JSON doesn't have, and `TypeError` for what is no number, string,
        boolean or None.
        """
        body = _encode({"features": dict(features)})
        return cast(Prediction, self._predict("/predict", body, _JSON, top))

    def predict_batch(
        self, samples: Sequence[Mapping[str, FeatureValue]], *, top: int | None = None
    ) -> BatchPrediction:
        """Predict many samples, all or none of them; raises what `predict` raises."""
        body = _encode({"samples": [dict(sample) for sample in samples]})
        return cast(BatchPrediction, self._predict("/predict/batch", body, _JSON, top))

    def predict_image(self, image: Image, *, top: int | None = None) -> Prediction:
        """Predict an image: its bytes as they are in a file, or the path of one.

        Raises `OSError` for a file that can't be read.
        """
        return cast(Prediction, self._predict("/predict", _image(image), _OCTETS, top))

    def predict_images(self, images: Sequence[Image], *, top: int | None = None) -> BatchPrediction:
        """Predict many images, all or none of them; raises what `predict_image` raises."""
        if not images:
            return self.predict_batch([], top=top)
        files = [(_DATA, (_DATA, _image(image))) for image in images]
        body, content_type = encode_multipart_formdata(files)
        return cast(BatchPrediction, self._predict("/predict/batch", body, content_type, top))

    def predict_text(
        self, text: str, pair: str | None = None, *, top: int | None = None
    ) -> Prediction:
        """Predict a text, or a ``pair`` of it: a second text that it is read with."""
        body = _encode(_text(text, pair))
        return cast(Prediction, self._predict("/predict", body, _JSON, top))

    def predict_texts(
        self, texts: Sequence[str | tuple[str, str]], *, top: int | None = None
    ) -> BatchPrediction:
        """Predict many texts, or pairs of them, all or none."""
        samples = [_text(each) if isinstance(each, str) else _text(*each) for each in texts]
        body = _encode({"samples": samples})
        return cast(BatchPrediction, self._predict("/predict/batch", body, _JSON, top))

    def _predict(
        self, path: str, body: bytes, content_type: str, top: int | None
    ) -> dict[str, Any]:
        query = "" if top is None else f"?top={int(top)}"
        return _read_response(self._send("POST", path + query, body, content_type))

    def _send(
        self, method: str, path: str, body: bytes | None = None, content_type: str = _JSON
    ) -> requests.Response:
        url = self.base_url + path
        try:
            return self._session.request(
                method,
                url,
                data=body,
                headers=None if body is None else {"Content-Type": content_type},
                timeout=self._timeout,
                allow_redirects=False,  # a redirected POST would arrive as a GET
            )
        except (requests.RequestException, HTTPError) as error:
            raise ServiceUnreachable(url, self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        connect, read = self._timeout
        if isinstance(error, requests.ConnectTimeout):
            return f"no connection within {connect:g} seconds"
        if isinstance(error, requests.ReadTimeout):
            return f"no data for {read:g} seconds"
        root = _root(error)
        return str(getattr(root, "strerror", None) or root).rstrip(".") or type(root).__name__


class _KeyAuth(AuthBase):
    """Sends a key; as an auth of requests, so that no .netrc takes its place."""

    def __init__(self, key: str) -> None:
        if not (key and key.isascii() and key.isprintable() and " " not in key):  # not quoted
            raise ValueError("api_key must be a key as `key create` prints it: one word of ASCII.")
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _PoliteRetry(Retry):
    """urllib3's retries for a service that may be overloaded."""

    RETRY_AFTER_STATUS_CODES = frozenset({429, 503})

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """Count a failure, and give up at once if a retry would not help."""
        if isinstance(error, ReadTimeoutError):
            raise error
        if error is None and url is not None and urlsplit(url).path.endswith(_HEALTH):
            raise MaxRetryError(_pool, url, ResponseError("its status is the response"))
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: Any) -> float | None:
        """Return the seconds that the service asks for, None for an invalid header."""
        try:
            seconds = super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):
            return None
        return None if seconds is None else min(seconds, _LONGEST_WAIT_SECONDS)

    def get_backoff_time(self) -> float:
        """Return the seconds to wait if the service doesn't say.

        They double, with jitter, so that clients that failed together don't retry together. After
        a first broken connection there is no wait: most were only kept open too long.
        """
        failures = len(self.history)
        if failures == 1 and self.history[0].error is not None:
            return 0
        seconds = _BACK_OFF_SECONDS * 2.0 ** (failures - 1)
        return min(seconds, _LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311


def _root(error: BaseException) -> BaseException:
    """Return the original exception, which requests and urllib3 wrap in three ways."""
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__):
        if isinstance(inner, BaseException):
            return _root(inner)
    return error


def _split_url(url: str) -> tuple[str, tuple[str, str] | None]:
    """Split the credentials off ``url``, so that no message shows them."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError as error:
        raise ValueError(f"base_url {url!r} is not a URL: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url must start with http:// or https:// and a host, not {url!r}.")
    if parts.query or parts.fragment:
        raise ValueError(f"base_url must end with its path, without ? and #, not {url!r}.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}", auth


def _encode(payload: dict[str, Any]) -> bytes:
    try:
        return json.dumps(
            payload, allow_nan=False, separators=(",", ":"), default=_plain_value
        ).encode()
    except ValueError:
        for sample in payload.get("samples", [payload.get("features")]):
            for name, value in sample.items():
                if (
                    isinstance(value, Real)
                    and not isinstance(value, Integral)  # one may be too large for a float
                    and not math.isfinite(value)
                ):
                    raise ValueError(
                        f"The feature {name!r} is {value}, which JSON doesn't have: "
                        "pass None for an unknown value."
                    ) from None
        raise


def _image(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | os.PathLike):
        raise TypeError(f"An image must be its bytes or a path, not {type(image).__name__}.")
    with pathlib.Path(image).open("rb") as file:
        return file.read()


def _text(text: str, pair: str | None = None) -> dict[str, Any]:
    for each in (text, pair):
        if each is not None and not isinstance(each, str):
            raise TypeError(f"A text must be a string, not {type(each).__name__}.")
    return {"text": text} if pair is None else {"text": text, "pair": pair}


def _plain_value(value: object) -> float | bool:
    """Convert a value of another type, such as NumPy's, to one that `json` knows."""
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if type(value).__name__ in ("bool", "bool_"):  # NumPy's is no number
        return bool(value)
    raise TypeError(f"A feature must be a number, a string, a boolean or None, not {value!r}.")


def _read_response(response: requests.Response) -> dict[str, Any]:
    document = _json_object(response)
    if not 200 <= response.status_code < 300:
        if document is None or not _is_problem(response):
            document = _made_up_problem(response)
        raise _rejection(response, document)
    if document is None:
        shown = response.text[:_LONGEST_BODY_SHOWN]
        raise UnexpectedResponse(response.url, f"it is not a JSON object but {shown!r}")
    return document


def _rejection(response: requests.Response, problem: dict[str, Any]) -> RequestRejected:
    status = response.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        seconds = _PoliteRetry().get_retry_after(response.raw)
        return RateExceeded(status, problem, seconds)
    known: dict[int, type[RequestRejected]] = {
        HTTPStatus.UNAUTHORIZED: KeyRejected,
        HTTPStatus.FORBIDDEN: NotAllowed,
    }
    return known.get(status, RequestRejected)(status, problem)


def _json_object(response: requests.Response) -> dict[str, Any] | None:
    try:
        document = json.loads(response.content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _is_problem(response: requests.Response) -> bool:
    return (
        response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == _PROBLEM_JSON
    )


def _made_up_problem(response: requests.Response) -> dict[str, Any]:
    if "Location" in response.headers:
        detail = f"It redirects to {response.headers['Location']}; is base_url right?"
    else:
        detail = f"Not a problem document: {response.text[:_LONGEST_BODY_SHOWN]!r}."
    return {
        "type": "about:blank",
        "title": response.reason or _phrase(response.status_code),
        "status": response.status_code,
        "detail": detail,
        "request_id": response.headers.get("X-Request-ID", ""),
    }


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the responses of a service, and return the exit status."""
    parser = argparse.ArgumentParser(
        # A copy of this file has no package; it is called by its name, as argparse does.
        prog=f"python -m {__spec__.name}" if __spec__ else None,
        description="Show the responses of a Lantern service.",
    )
    parser.add_argument(
        "--url", default=DEFAULT_URL, help="the URL of the service (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get(KEY_VARIABLE),
        metavar="KEY",
        help=f"the key to send (default: the variable {KEY_VARIABLE}; unlike an option, other "
        "users of this machine can't see it)",
    )
    given = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # may lack characters that the names of classes have
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with ModelClient(given.url, api_key=given.api_key or None) as client:
            _demonstrate(client)
    except ClientError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        parser.error(str(error))
    return 0


def _demonstrate(client: ModelClient) -> None:
    health = client.health_check()
    print(f"Health      {health['status']}, at {client.base_url}")
    if health["status"] != "healthy":
        raise ClientError(
            f"{client.base_url} is unhealthy: {health.get('reason', 'no reason given')}"
        )
    info = client.get_model_info()
    print(
        f"Model       {info['name']}, version {info['model_version']}: {info['num_features']} "
        f"features, {_answers(info)}{info['runtime']} on {info['device']}"
    )
    if steps := info.get("steps"):
        _demonstrate_steps(client, info, [str(step["kind"]) for step in steps])
        return
    if not info["features"]:
        raise ClientError(
            f"{info['name']} takes tensors: use a client of the Open Inference Protocol."
        )
    sample = {feature["name"]: _typical(feature) for feature in info["features"]}
    print(f"Sample      {', '.join(f'{name} {_short(value)}' for name, value in sample.items())}")
    print(f"Prediction  {_summary(client.predict(sample), info)}")

    varied = next((f for f in info["features"] if len(_some_values(f)) > 1), info["features"][0])
    values = _some_values(varied)
    batch = client.predict_batch([{**sample, varied["name"]: value} for value in values])
    print(f"Batch       {batch['total_samples']} samples that differ in {varied['name']}")
    for value, prediction in zip(values, batch["predictions"], strict=True):
        print(f"{_short(value):>10}  {_summary(prediction, info)}")


def _demonstrate_steps(client: ModelClient, info: ModelInfo, kinds: list[str]) -> None:
    if kinds != ["text"]:
        raise ClientError(
            f"{info['name']} takes an {' and a '.join(kinds)}, of which this program has none: "
            "call predict_image, or POST one to /predict."
        )
    print(f"Sample      {_EXAMPLE_TEXT!r}")
    print(f"Prediction  {_summary(client.predict_text(_EXAMPLE_TEXT), info)}")


def _answers(info: ModelInfo) -> str:
    """Return how many classes, labels or targets the model has."""
    words = {"classes": "class", "labels": "label", "targets": "target"}
    counts = [(len(cast(Any, info).get(name, ())), name, one) for name, one in words.items()]
    return "".join(f"{n} {one if n == 1 else name}, " for n, name, one in counts if n)


def _typical(feature: FeatureInfo) -> FeatureValue:
    if feature["example"] is not None or feature["nullable"]:
        return feature["example"]
    return _some_values(feature)[0] if _is_named(feature) else feature["minimum"] or 0.0


def _is_named(feature: FeatureInfo) -> bool:
    return feature.get("kind") in ("boolean", "category")


def _some_values(feature: FeatureInfo) -> list[FeatureValue]:
    """Return up to three values of a feature: its first categories, or numbers of its range."""
    if feature.get("kind") == "boolean":
        return [False, True]
    if feature.get("kind") == "category":
        return [*feature["categories"][:_CATEGORIES_SHOWN]] or [feature["example"] or ""]
    low, high = feature["minimum"], feature["maximum"]
    if low is None or high is None:
        middle = feature["example"]
        middle = middle if isinstance(middle, int | float) else 0.0
        low, high = middle - 1, middle + 1
    values = low, (low + high) / 2, high
    return [*map(math.floor, values)] if feature.get("kind") == "integer" else [*values]


def _short(value: FeatureValue) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value if isinstance(value, str) else f"{value:.6g}"


def _summary(prediction: Prediction, info: ModelInfo) -> str:
    """Return a prediction in a few words, by the members that it has."""
    if "embedding" in prediction:
        return f"{len(prediction['embedding'])} numbers"
    if "values" in prediction:
        units = {target["name"]: target["unit"] for target in info["targets"]}
        values = prediction["values"].items()
        return ", ".join(f"{name} {_short(value)} {units[name]}".strip() for name, value in values)
    names = info["classes"] or info["labels"]
    numbers, form = prediction.get("probabilities"), ".1%"
    if numbers is None:
        numbers, form = prediction["scores"], ".6g"
    shares = ", ".join(
        f"{names[int(key.removeprefix('class_'))]} {number:{form}}"
        for key, number in numbers.items()
    )
    label = prediction["label"] if "label" in prediction else " and ".join(prediction["labels"])
    return f"{label or 'none'} ({shares})"


if __name__ == "__main__":
    sys.exit(main())
