"""API keys: who may do what. `cp_<id>_<secret>`; the store holds only the SHA-256 of the secret.

A key belongs to one tenant, or is an operator key (`tenant` None) that reaches all of them. It has scopes, rates,
an expiry, a grace once it was rotated, and a revocation. The secret is 256 random bits, so a plain digest is enough:
there is nothing to guess. No HTTP here: the service and the command line both come through this module.

A revocation is an object of its own, created beside the key's: writing the key's record again, as a rotation
does to let it expire, can not undo one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Final, Literal, TypeAlias, TypeVar

import orjson

from context_plane.audit import PROCESS, Actor, audited
from context_plane.cache.recent import Held, Recent
from context_plane.engine import Engine
from context_plane.errors import Conflict, Corrupt, Denied, Invalid, NotFound
from context_plane.layout.keys import ControlKey
from context_plane.model import BYTES_PER_S_MAX, REQUESTS_PER_S_MAX, check_tenant
from context_plane.store.base import Store
from context_plane.tenants import refuse_erased

T = TypeVar("T")
Scope: TypeAlias = Literal["read", "write", "admin"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "admin")
NOTE_CHARS_MAX: Final = 200
ROTATION_GRACE_US: Final = 24 * 3600 * 1_000_000
"""How long a rotated key still works by default: whoever holds it has a working day to take the new one."""
PARALLEL_KEYS: Final = 32
"""Looked at or revoked at once: each is two to five requests of the store."""
_SECRET_BYTES: Final = 32
_ID = re.compile(r"[0-9a-f]{16}")
_TOKEN = re.compile(r"cp_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_PREFIX: Final = "control/keys/"
_RECORD: Final = ".json"
_REVOKED: Final = ".revoked"
_ANY: Final = "any"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key as stored. `tenant` None: an operator key. Times are microseconds since 1970.

    `requests_per_s`, `bytes_per_s`: of each process, in place of the tenant's; None: the tenant's. `grace_until_us`: of
    a rotated key. Its expiry stays as it was made: successors live as long as that says. `newer`: a later version
    stored more of it, which may bound what it opens: it is listed and revoked here, and neither let in nor rotated."""

    id: str
    sha256: str
    tenant: str | None
    scopes: frozenset[Scope]
    created_us: int
    expires_us: int | None = None
    revoked_us: int | None = None
    note: str = ""
    requests_per_s: float | None = None
    bytes_per_s: float | None = None
    grace_until_us: int | None = None
    newer: bool = False

    @property
    def ends_us(self) -> int | None:
        """When it ends unless it is revoked before: it expires, or its grace is over."""
        return min((end for end in (self.expires_us, self.grace_until_us) if end is not None), default=None)

    def live(self, now_us: int) -> bool:
        ends_us = self.ends_us
        return self.revoked_us is None and (ends_us is None or now_us < ends_us)

    def opens(self, tenant: str) -> bool:
        """Whether the key reaches the tenant at all, whatever its scopes."""
        return self.tenant is None or self.tenant == tenant


_STORED: Final = frozenset(field.name for field in fields(AccessKey)) - {"newer"}


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `token` is shown once and kept nowhere."""

    key: AccessKey
    token: str


async def create_key(
    engine: Engine,
    *,
    tenant: str | None,
    scopes: Iterable[str],
    expires_us: int | None = None,
    note: str = "",
    requests_per_s: float | None = None,
    bytes_per_s: float | None = None,
    actor: Actor = PROCESS,
) -> NewKey:
    """Make and store a key. `actor`: for the audit.

    Raises `Invalid(settings_invalid | tenant_invalid)`, `Conflict(tenant_erased)`."""
    now_us = engine.now_us()
    if tenant is not None:
        check_tenant(tenant)
    if expires_us is not None and expires_us <= now_us:
        raise Invalid("settings_invalid", "the expiry of a key lies ahead of now", field="expires")
    if len(note) > NOTE_CHARS_MAX:
        raise Invalid("settings_invalid", f"a note has at most {NOTE_CHARS_MAX} characters", field="note")
    if requests_per_s is not None and not 0 < requests_per_s <= REQUESTS_PER_S_MAX:
        raise Invalid("settings_invalid", f"a key's requests a second are over 0, up to {REQUESTS_PER_S_MAX:.0f}")
    if bytes_per_s is not None and not 1 <= bytes_per_s <= BYTES_PER_S_MAX:
        raise Invalid("settings_invalid", f"a key's bytes a second are 1 to {BYTES_PER_S_MAX:.0f}")
    made = _made(
        AccessKey(
            id="",
            sha256="",
            tenant=tenant,
            scopes=_scopes(scopes),
            created_us=now_us,
            expires_us=expires_us,
            note=note,
            requests_per_s=requests_per_s,
            bytes_per_s=bytes_per_s,
        )
    )
    async with audited(engine, tenant, actor, "key_create", subject=made.key.id):
        await _put_new(engine.store, made.key)
    return made


async def rotate_key(
    engine: Engine, key_id: str, *, grace_us: int = ROTATION_GRACE_US, actor: Actor = PROCESS
) -> NewKey:
    """A new key that may do what this one may and lives as long as it was made for; this one ends after `grace_us`, or
    as it would have where that is sooner (a second rotation does not lengthen the first one's grace). Both work until
    then. Raises `NotFound(key_not_found)`, `Conflict(tenant_erased)`, `Invalid(settings_invalid)` for a key that has
    ended, and `Corrupt(format_unknown)` for one that a later version made.
    """
    now_us = engine.now_us()
    old = await _existing(engine.store, key_id)
    if not old.live(now_us):
        raise Invalid("settings_invalid", "the key has ended, there is nothing to rotate; make one", id=old.id)
    _refuse_newer(old)
    life_us = None if old.expires_us is None else old.expires_us - old.created_us
    expires_us = None if life_us is None else now_us + life_us
    made = _made(replace(old, created_us=now_us, expires_us=expires_us, grace_until_us=None))
    until_us = now_us + grace_us
    ending = old if old.ends_us is not None and old.ends_us <= until_us else replace(old, grace_until_us=until_us)
    async with audited(engine, old.tenant, actor, "key_rotate", subject=old.id):
        async with audited(engine, old.tenant, actor, "key_create", subject=made.key.id):
            await _put_new(engine.store, made.key)
        await engine.store.put(_object(old.id), _encode(ending))
    return made


async def _put_new(store: Store, key: AccessKey) -> None:
    """An erasure that was recorded before the key was put may have listed keys before it, too: then the key, which
    nobody was given, goes. Raises `Conflict(tenant_erased)`."""
    await store.put_new(_object(key.id), _encode(key))
    if key.tenant is None:
        return
    try:
        await refuse_erased(store, key.tenant)
    except Conflict:
        await store.delete([_object(key.id)])
        raise


async def list_keys(store: Store) -> list[AccessKey]:
    """Every key, revoked and expired ones included, oldest first. Raises `Corrupt(format_unknown)`."""
    keys = await _each(await _ids(store), lambda key_id: load_key(store, key_id))
    return sorted((key for key in keys if key is not None), key=lambda key: (key.created_us, key.id))


async def _ids(store: Store) -> list[str]:
    listed = [info.key.removeprefix(_PREFIX) async for info in store.list(_PREFIX)]
    return [name.removesuffix(_RECORD) for name in listed if name.endswith(_RECORD)]


async def revoke_key(engine: Engine, key_id: str, *, actor: Actor = PROCESS) -> AccessKey:
    """End a key for good; processes that know it obey within 5 s. Raises `NotFound(key_not_found)`."""
    key = await _existing(engine.store, key_id)
    if key.revoked_us is None:
        async with audited(engine, key.tenant, actor, "key_revoke", subject=key_id) as counts:
            counts["revoked"] = 0
            with suppress(Conflict):  # somebody else was faster
                await engine.store.put_new(_object(key_id, _REVOKED), orjson.dumps({"revoked_us": engine.now_us()}))
                counts["revoked"] = 1
        key = await _existing(engine.store, key_id)
    return key


async def revoke_keys(engine: Engine, tenant: str, *, actor: Actor = PROCESS) -> int:
    """End every key of a tenant that is erased; how many were not revoked yet. A record that does not decode opens
    nothing, and is passed over.

    None is deleted: the audit names them, and a store whose last keys they were would be one without keys, which a
    loopback service opens."""

    async def revoke(key_id: str) -> bool:
        try:
            key = await load_key(engine.store, key_id)
        except Corrupt:
            return False
        if key is None or key.tenant != tenant or key.revoked_us is not None:
            return False
        with suppress(NotFound):  # one that was made too late, and went again
            await revoke_key(engine, key_id, actor=actor)
        return True

    return sum(await _each(await _ids(engine.store), revoke))


async def _each(ids: Iterable[str], work: Callable[[str], Awaitable[T]]) -> list[T]:
    gate = asyncio.Semaphore(PARALLEL_KEYS)

    async def one(key_id: str) -> T:
        async with gate:
            return await work(key_id)

    return list(await asyncio.gather(*map(one, ids)))


async def load_key(store: Store, key_id: str) -> AccessKey | None:
    """The key as it stands: its record and its revocation, in one round trip. Raises `Corrupt(format_unknown)`."""
    try:
        stored, revoked_us = await asyncio.gather(store.get(_object(key_id)), _revoked_us(store, key_id))
    except NotFound:
        return None
    key = _decode(stored, key_id)
    return key if revoked_us is None else replace(key, revoked_us=revoked_us)


async def _revoked_us(store: Store, key_id: str) -> int | None:
    try:
        stored = await store.get(_object(key_id, _REVOKED))
    except NotFound:
        return None
    try:
        found: int = orjson.loads(stored)["revoked_us"]
    except (ValueError, TypeError, LookupError) as error:
        raise _unreadable(key_id) from error
    return found


async def _existing(store: Store, key_id: str) -> AccessKey:
    key = await load_key(store, key_id) if _ID.fullmatch(key_id) else None
    if key is None:
        raise NotFound("key_not_found", "no such key; list them with `context-plane keys list`", id=key_id[:64])
    return key


class Keyring:
    """Keys as one process knows them: at most 5 s old."""

    def __init__(self, engine: Engine) -> None:
        store = engine.store
        self._now_us = engine.now_us
        self._keys: Recent[AccessKey | None] = Recent(
            lambda key_id: load_key(store, key_id), monotonic_s=engine.monotonic_s
        )
        self._any: Recent[bool] = Recent(lambda _: any_key(store), monotonic_s=engine.monotonic_s)

    async def authenticate(self, token: str) -> AccessKey:
        """The live key of a token. One answer for every defect: raises `Denied(key_invalid)`, or
        `Corrupt(format_unknown)` for one that a later version made."""
        found = _TOKEN.fullmatch(token)
        key = await self._keys.get(found[1]) if found else None
        expected = key.sha256 if key is not None else "0" * 64
        matches = hmac.compare_digest(expected, _digest(found[2] if found else ""))
        if key is None or not matches or not key.live(self._now_us()):
            raise Denied("key_invalid", "the API key is unknown, expired or revoked; ask an operator for a new one")
        _refuse_newer(key)
        return key

    def look(self, key_id: str) -> Held[AccessKey | None] | None:
        """What is known of a key, however old. Waits for nothing."""
        return self._keys.look(key_id)

    async def configured(self) -> bool:
        """Whether the store holds any key at all, revoked ones included."""
        return await self._any.get(_ANY)


def is_token(token: str) -> bool:
    """Whether a token reads as one of a key, known or not. Asks nobody."""
    return _TOKEN.fullmatch(token) is not None


async def any_key(store: Store) -> bool:
    async for _ in store.list(_PREFIX, limit=1):
        return True
    return False


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    wanted = set(names)
    if not wanted or wanted - set(SCOPES):
        raise Invalid("settings_invalid", f"scopes are among {' '.join(SCOPES)}, at least one", got=sorted(wanted))
    return frozenset(scope for scope in SCOPES if scope in wanted)


def _made(like: AccessKey) -> NewKey:
    """A key like this one, with an id and a secret of its own."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    key = replace(like, id=secrets.token_hex(8), sha256=_digest(secret))
    return NewKey(key, f"cp_{key.id}_{secret}")


def _object(key_id: str, kind: str = _RECORD) -> str:
    return str(ControlKey(None, f"keys/{key_id}{kind}"))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _encode(key: AccessKey) -> bytes:
    """Rates and a grace only where they are set: processes of before them read keys that have none."""
    fields = {
        "id": key.id,
        "sha256": key.sha256,
        "tenant": key.tenant,
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "created_us": key.created_us,
        "expires_us": key.expires_us,
        "revoked_us": key.revoked_us,
        "note": key.note,
    }
    later = {
        "requests_per_s": key.requests_per_s,
        "bytes_per_s": key.bytes_per_s,
        "grace_until_us": key.grace_until_us,
    }
    return orjson.dumps(fields | {name: value for name, value in later.items() if value is not None})


def _decode(stored: bytes, key_id: str) -> AccessKey:
    try:
        found = orjson.loads(stored)
        known = {name: value for name, value in found.items() if name in _STORED}
        newer = len(known) < len(found)
        return AccessKey(**{**known, "scopes": frozenset(found["scopes"]), "newer": newer})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _unreadable(key_id) from error


def _refuse_newer(key: AccessKey) -> None:
    if key.newer:
        raise Corrupt("format_unknown", "a later version made the API key; upgrade this process", id=key.id)


def _unreadable(key_id: str) -> Corrupt:
    detail = "the record of an API key does not decode; upgrade this process, or delete the key's objects"
    return Corrupt("format_unknown", detail, id=key_id)
