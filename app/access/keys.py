"""API keys: created and revoked on the command line, and read by every worker at once.

A key is ``lantern_ID_SECRET``. The secret is 256 random bits, so one round of a fast hash protects
it: slow hashes are for passwords, which can be guessed (NIST SP 800-63B, section 5.1.2.2, requires
no more for look-up secrets with 112 bits of entropy). The file has a hash and its salt for each
key, and is replaced as a whole under a lock.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from ..documents.files import locked, remove_scratch, replace_file
from ..documents.schema import SchemaError, place, read_as
from ..documents.text import NotUtf8, decode, readable

Scope = Literal["predict", "admin", "metrics"]
PREDICT, ADMIN, METRICS = SCOPES = get_args(Scope)

KEY_NAME = re.compile(r"(?![0-9a-f]{8}\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY_NAME_FORM = "1 to 64 letters, digits and . _ -, and not of the form of an id"
_TEXT = re.compile(r"lantern_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
KEY_SECRET = re.compile(r"(lantern_[0-9a-f]{8}_)[A-Za-z0-9_-]+")
"""A key in any text, its secret perhaps cut: to redact it."""
_SECRET_BYTES = 32
_LARGEST_FILE = 8 << 20
_LOCK_WAIT_SECONDS = 10

log = logging.getLogger("lantern.access")


class KeysError(Exception):
    """The file of keys can't be read or changed; the message says which file, and why."""

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


_Time = Annotated[datetime, Meta(tz=True)]


class Key(Struct, frozen=True):
    """A key as it is stored: everything but its secret. Times are in UTC."""

    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{8}\Z")]
    name: Annotated[str, Meta(pattern=rf"\A{KEY_NAME.pattern}\Z")]
    scopes: tuple[Scope, ...]
    salt: Annotated[bytes, Meta(min_length=16)]
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)] = field(name="sha256")
    created_at: _Time
    expires_at: _Time | None

    def __post_init__(self) -> None:
        for name in ("created_at", "expires_at"):
            if (time := getattr(self, name)) is not None:
                force_setattr(self, name, time.astimezone(UTC))

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and datetime.now(UTC) >= self.expires_at

    def allows(self, scope: str) -> bool:
        """Return True if the key has ``scope``, or the scope "admin"."""
        return scope in self.scopes or ADMIN in self.scopes

    def matches(self, secret: str) -> bool:
        """Return True if the key's secret is ``secret``, in constant time."""
        return hmac.compare_digest(self.digest, _digest(self.salt, secret))


_NOBODY = Key("", "", (), bytes(16), bytes(32), datetime(1970, 1, 1, tzinfo=UTC), None)
"""Compared with the key of an unknown id, so that it takes as long as for a known one."""


class _Document(Struct):
    keys: list[Key]


class KeyFile:
    """The current keys in the file at ``path``: each look-up begins with a ``stat``.

    So a key is valid in every worker as soon as it is created, and until it is revoked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = str(path)
        self._lock = threading.Lock()
        self._state: tuple[object, Mapping[str, Key] | None] = None, None

    def find(self, text: str) -> Key | None:
        """Return the key ``text``, expired or not; None if it is unknown. Raises `KeysError`."""
        keys = self.current()
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        id, secret = match.groups()
        key = keys.get(id, _NOBODY)
        return key if key.matches(secret) else None

    def current(self) -> Mapping[str, Key]:
        """Return all keys by their ids; none if there is no file.

        Raises `KeysError` for a file that can't be read, which is logged once.
        """
        signature = _signature(self._text)
        known, keys = self._state
        if known != signature:
            with self._lock:
                keys = self._read(signature)
        if keys is None:
            raise KeysError(f"{self.path} can't be read; see the log.")
        return keys

    def _read(self, signature: object) -> Mapping[str, Key] | None:
        known, keys = self._state
        if known == signature:  # another thread was faster
            return keys
        try:
            keys = {key.id: key for key in read_keys(self.path)}
        except KeysError as error:
            log.error("every request is rejected: %s", error)
            keys = None
        self._state = signature, keys
        return keys


def read_keys(path: Path) -> list[Key]:
    """Read the keys from ``path``, in the order of their creation; none if there is no file.

    Raises `KeysError`.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KeysError(f"{path} is not a file.")
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeysError(f"{path} can't be read: {error.strerror}.") from error
    if len(content) > _LARGEST_FILE:
        raise KeysError(f"{path} is larger than {_LARGEST_FILE:,} bytes.")
    try:
        keys = read_as(_Document, msgspec.json.decode(decode(content))).keys
    except NotUtf8 as error:
        raise KeysError(f"{path} {error}") from None
    except SchemaError as error:
        fault = "missing" if error.missing else "malformed"
        raise KeysError(f"{path} is not a file of keys: {place(error.path)} is {fault}.") from None
    except (msgspec.DecodeError, OverflowError, RecursionError):  # their words may repeat a secret
        raise KeysError(
            f"{path} is not a file of keys: it is not JSON, or only a part of it. Restore it from "
            "a copy, or delete it and create the keys again."
        ) from None
    if len({key.id for key in keys}) < len(keys):
        raise KeysError(f"{path} is not a file of keys: two of them have the same id.")
    return keys


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking, as opening a pipe would until its other end is open."""
    return os.open(path, flags | os.O_NONBLOCK)


def create_key(
    path: Path, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[Key, str]:
    """Add a key to the file at ``path``; return it as it is stored, and its text with the secret.

    Raises `KeysError`, also if the name is taken.
    """
    with _changing(path) as keys:
        if any(key.name == name for key in keys):
            raise KeysError(f"A key named {name!r} exists; revoke it, or choose another name.")
        taken = {key.id for key in keys}
        id = next(id for id in iter(lambda: secrets.token_hex(4), "") if id not in taken)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        salt = secrets.token_bytes(16)
        key = Key(
            id=id,
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in set(scopes)),
            salt=salt,
            digest=_digest(salt, secret),
            created_at=datetime.now(UTC).replace(microsecond=0),
            expires_at=expires_at,
        )
        keys.append(key)
    return key, f"lantern_{id}_{secret}"


def revoke_key(path: Path, which: str) -> Key:
    """Remove the key with the id or name ``which`` from the file at ``path``, and return it.

    Raises `KeysError`.
    """
    with _changing(path) as keys:
        key = next((key for key in keys if which in (key.id, key.name)), None)
        if key is None:
            raise KeysError(f"No key has the id or name {which[:80]!r}.")
        keys.remove(key)
    return key


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """Yield the keys to be changed, under a lock, and write them at the end.

    The system releases the lock of a process that dies.
    """
    path = Path(os.path.realpath(path))  # replaces the target of a link, not the link
    lock = path.with_name(f"{path.name}.lock")
    busy = KeysError(f"Timed out waiting for {lock}, which another process holds.")
    with locked(lock, _unusable, busy=busy, mode=0o600, wait_seconds=_LOCK_WAIT_SECONDS):
        remove_scratch(path)
        keys = read_keys(path)
        yield keys
        _write(path, keys)


def _unusable(fault: str) -> KeysError:
    return KeysError(
        f"{fault} Set access.keys_file to a file in a directory that exists, is writable and "
        "supports locks."
    )


def _write(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file at ``path``, and keep who may read it: root may do this for a service.

    Raises `KeysError`.
    """
    content = msgspec.json.format(msgspec.json.encode(_Document(list(keys)))) + b"\n"
    try:
        replace_file(path, content, mode=0o600, keep_access=True)
    except OSError as error:
        raise KeysError(
            f"{path} can't be written: {error.strerror}. The keys are unchanged."
        ) from error


def key_document(key: Key) -> dict[str, Any]:
    """Return ``key`` as JSON has it, without the hash of its secret: that is for the file alone."""
    document: dict[str, Any] = msgspec.to_builtins(key)
    return {name: value for name, value in document.items() if name not in ("salt", "sha256")}


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()


def _signature(path: str) -> object:
    """Return a value that changes with the file at ``path``, or the error number of ``stat``."""
    try:
        status = os.stat(path)  # noqa: PTH116 -- half as long as the path's own
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
