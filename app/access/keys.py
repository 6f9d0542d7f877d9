"""The keys of the API: made and revoked by a command, read by every worker at once.

A key is ``lantern_ID_SECRET``. The secret is 256 random bits, so one round of a fast hash keeps
it: there is no dictionary to try, and slow hashes are for secrets that people think of (NIST SP
800-63B, section 5.1.2.2, asks for no more where a look-up secret has 112 bits of entropy). The file
holds a hash and its salt for each key, and is replaced as a whole under a lock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
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
"""A key in any text, its secret perhaps cut: for those who have to leave it out."""
_SECRET_BYTES = 32
_LARGEST_FILE = 8 << 20
_LOCK_WAIT_SECONDS = 10

log = logging.getLogger("lantern.access")


class KeysError(Exception):
    """The file of keys can't be read or changed; the message names it and what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


_Time = Annotated[datetime, Meta(tz=True)]


class Key(Struct, frozen=True):
    """What is kept of a key, and how it stands in the file: everything but its secret.

    Times are in UTC.
    """

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
        """Return whether the key is good for ``scope``."""
        return scope in self.scopes or ADMIN in self.scopes

    def matches(self, secret: str) -> bool:
        """Return whether the key's secret is ``secret``, in a time that doesn't depend on it."""
        return hmac.compare_digest(self.digest, _digest(self.salt, secret))


_NOBODY = Key("", "", (), bytes(16), bytes(32), datetime(1970, 1, 1, tzinfo=UTC), None)
"""What an unknown id is compared with, so that it takes as long as a known one."""


class _Document(Struct):
    keys: list[Key]


class KeyFile:
    """The keys in the file at ``path``, as they are now: each look-up begins with a ``stat``.

    So a key counts as soon as it is made, and no longer than it is there, in every worker.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = str(path)
        self._lock = threading.Lock()
        self._state: tuple[object, Mapping[str, Key] | None] = None, None

    def find(self, text: str) -> Key | None:
        """Return the key that ``text`` is, expired or not. Raises `KeysError`."""
        keys = self.current()
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        id, secret = match.groups()
        key = keys.get(id, _NOBODY)
        return key if key.matches(secret) else None

    def current(self) -> Mapping[str, Key]:
        """Return all keys by their ids; none where there is no file.

        Raises `KeysError` for a file that can't be used; the log tells it once.
        """
        signature = _signature(self._text)
        known, keys = self._state
        if known != signature:
            with self._lock:
                keys = self._read(signature)
        if keys is None:
            raise KeysError(f"{self.path} can't be used; the log says why.")
        return keys

    def _read(self, signature: object) -> Mapping[str, Key] | None:
        known, keys = self._state
        if known == signature:  # another thread was faster
            return keys
        try:
            keys = {key.id: key for key in read_keys(self.path)}
        except KeysError as error:
            log.error("no request is let in: %s", error)
            keys = None
        self._state = signature, keys
        return keys


def read_keys(path: Path) -> list[Key]:
    """Read the keys from ``path``, in the order they were made; none where there is no file.

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
    except (msgspec.DecodeError, OverflowError, RecursionError) as error:
        raise KeysError(f"{path} is not a file of keys ({type(error).__name__}).") from None
    if len({key.id for key in keys}) < len(keys):
        raise KeysError(f"{path} is not a file of keys: two of them have the same id.")
    return keys


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe would otherwise be waited for until its other end comes."""
    return os.open(path, flags | os.O_NONBLOCK)


def create_key(
    path: Path, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[Key, str]:
    """Make a key in the file at ``path``; give what is kept of it, and the key itself.

    Raises `KeysError`, also for a name that is taken.
    """
    with _changing(path) as keys:
        if any(key.name == name for key in keys):
            raise KeysError(f"There is a key named {name!r} already; revoke it, or take another.")
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
    """Take the key with the id or the name ``which`` out of the file at ``path``; give it.

    Raises `KeysError`.
    """
    with _changing(path) as keys:
        key = next((key for key in keys if which in (key.id, key.name)), None)
        if key is None:
            raise KeysError(f"There is no key with the id or name {which[:80]!r}.")
        keys.remove(key)
    return key


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """Yield the keys for a change, under a lock, and write them at the end.

    The system takes the lock back from a process that dies.
    """
    path = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    lock = path.with_name(f"{path.name}.lock")
    busy = KeysError(f"Another process has held {lock} for too long.")
    with locked(lock, _unusable, busy=busy, mode=0o600, wait_seconds=_LOCK_WAIT_SECONDS):
        remove_scratch(path)
        keys = read_keys(path)
        yield keys
        _write(path, keys)


def _unusable(fault: str) -> KeysError:
    return KeysError(
        f"{fault} Set access.keys_file to a file in a directory that exists, can be written to "
        "and supports locks."
    )


def _write(path: Path, keys: Iterable[Key]) -> None:
    """Replace the file at ``path``; who may read it still may, such as the service, when root does.

    Raises `KeysError`.
    """
    document = {"keys": [key_document(key, with_hash=True) for key in keys]}
    content = json.dumps(document, indent=2).encode() + b"\n"
    try:
        replace_file(path, content, mode=0o600, keep_access=True)
    except OSError as error:
        raise KeysError(
            f"{path} can't be written: {error.strerror}. The keys are what they were."
        ) from error


def key_document(key: Key, *, with_hash: bool = False) -> dict[str, Any]:
    """Return ``key`` as JSON has it; ``with_hash`` is for the file alone."""
    document: dict[str, Any] = {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at and key.expires_at.isoformat(),
    }
    if with_hash:
        document |= {
            "salt": base64.b64encode(key.salt).decode(),
            "sha256": base64.b64encode(key.digest).decode(),
        }
    return document


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()


def _signature(path: str) -> object:
    """Return what differs when the file does, wherever links lead; or why it can't be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116 -- half as long as the path's own
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
