"""From a URL to a store: `file:///abs`, `s3://bucket/prefix`, `gs://`, `az://`, `memory://name`.

The environment is not read here: the settings layer reads it once and passes `StoreOptions`. (What
is left None may still be found by the cloud's own credential chain: instance roles, web identity.)
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from context_plane.errors import Invalid
from context_plane.store.base import Store
from context_plane.store.key import check_key
from context_plane.store.local import LocalStore
from context_plane.store.objects import Clients, ObjectStore

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config
    from obstore.store import ObjectStore as Client

CONNECT_TIMEOUT_S: Final = 2.0
"""A connection within a region opens in milliseconds; one that takes seconds will not be saved by waiting."""
READ_TIMEOUT_S: Final = 3.0
"""Silence on a read. Healthy first bytes come within 0.2 s, also of a loaded server within one; a stall beyond this is
retried on another connection. Hedges answer stalls earlier; this is for those that the budget leaves out."""
REQUEST_TIMEOUT_S: Final = 30.0
"""One whole request, body included: 300 MB at 10 MB/s."""
RETRIES_MAX: Final = 2
"""Of reads and idempotent writes. With the read timeout, a dead store is reported within 10 s."""
RETRY_WINDOW_S: Final = 15.0
"""No retry starts later than this after the first attempt."""
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5
POOL_IDLE_S: Final = 15.0
"""Of writes. Below the idle limit of common servers (20 s at S3): a create must not meet a connection just closed."""
POOL_IDLE_READ_S: Final = 60.0
"""Of reads, which may meet one: they are sent again. A query opens sixty connections, each a TLS handshake; who asks
once a minute finds those that the server kept. Below the idle limits of cloud networks (240 s), which drop silently."""
POOL_IDLE_MAX: Final = 128
"""Connections kept for reads when idle: as many as a tenant may have in flight, so the next query opens none. (What is
in flight is bounded by the lanes above the store; the client itself opens one for each request, all in parallel.)"""
REGION_DEFAULT: Final = "us-east-1"
"""Servers other than AWS ignore the region but a signature needs one."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How to reach a store. Times in seconds. Secrets stay out of `repr`."""

    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    allow_http: bool = False
    virtual_hosted: bool = False
    google_service_account: str | None = None
    azure_account: str | None = None
    azure_key: str | None = field(default=None, repr=False)
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S
    request_timeout_s: float = REQUEST_TIMEOUT_S
    retries_max: int = RETRIES_MAX


REMOTE: Final = frozenset({"s3", "gs", "az"})
"""Schemes of stores across a network: reads of them stall, and are worth hedging."""

_memories: dict[str, MemoryStore] = {}
"""Memory stores of this process by name: opening a name twice gives the same objects."""


def open_store(url: str, *, options: StoreOptions | None = None) -> Store:
    """The store at `url`. No request is sent; `probe` does. Raises `Invalid(settings_invalid)`."""
    options = options or StoreOptions()
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise Invalid("settings_invalid", "a store URL has no query and no fragment", url=url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise Invalid("settings_invalid", "a local store reads file:///absolute/path", url=url)
        return LocalStore(Path(unquote(parts.path)))
    if not parts.netloc:
        raise Invalid("settings_invalid", "a store URL reads scheme://name or file:///absolute/path", url=url)
    prefix = parts.path.strip("/")
    if prefix:
        prefix = check_key(prefix) + "/"
    try:
        return ObjectStore(_clients(parts.scheme, parts.netloc, options), prefix=prefix)
    except (BaseError, ValueError) as error:
        raise Invalid("settings_invalid", "the store URL or its options are not usable", cause=str(error)) from error


def is_remote(url: str) -> bool:
    """Whether the store at `url` is across a network."""
    return urlsplit(url).scheme in REMOTE


def _clients(scheme: str, name: str, options: StoreOptions) -> Clients:
    if scheme == "memory":
        memory = _memories.setdefault(name, MemoryStore())
        return Clients(read=memory, replace=memory, create=memory)
    # A read timeout runs while a body is sent, too: writes have the request timeout alone.
    return Clients(
        read=_client(scheme, name, options, retries=options.retries_max, read_timeout_s=options.read_timeout_s),
        replace=_client(scheme, name, options, retries=options.retries_max, read_timeout_s=None),
        create=_client(scheme, name, options, retries=0, read_timeout_s=None),
    )


def _client(scheme: str, name: str, options: StoreOptions, *, retries: int, read_timeout_s: float | None) -> Client:
    http = _http(options, read_timeout_s)
    retry = _retry(retries)
    match scheme:
        case "s3":
            return S3Store(name, config=_s3(options), client_options=http, retry_config=retry)
        case "gs":
            return GCSStore(name, config=_google(options), client_options=http, retry_config=retry)
        case "az":
            return AzureStore(name, config=_azure(options), client_options=http, retry_config=retry)
        case _:
            raise Invalid("settings_invalid", "a store is one of file, s3, gs, az, memory", scheme=scheme)


def _s3(options: StoreOptions) -> S3Config:
    config: S3Config = {
        "region": options.region or REGION_DEFAULT,
        "virtual_hosted_style_request": options.virtual_hosted,
    }
    if options.endpoint:
        config["endpoint"] = options.endpoint
    if options.access_key and options.secret_key:
        config["access_key_id"] = options.access_key
        config["secret_access_key"] = options.secret_key
        if options.session_token:
            config["session_token"] = options.session_token
    return config


def _google(options: StoreOptions) -> GCSConfig:
    return {"service_account": options.google_service_account} if options.google_service_account else {}


def _azure(options: StoreOptions) -> AzureConfig:
    config: AzureConfig = {}
    if options.azure_account:
        config["account_name"] = options.azure_account
    if options.azure_key:
        config["account_key"] = options.azure_key
    return config


def _http(options: StoreOptions, read_timeout_s: float | None) -> ClientConfig:
    config: ClientConfig = {
        "allow_http": options.allow_http,
        "connect_timeout": dt.timedelta(seconds=options.connect_timeout_s),
        "timeout": dt.timedelta(seconds=options.request_timeout_s),
        "pool_idle_timeout": dt.timedelta(seconds=POOL_IDLE_S),
        # One connection for each request: over HTTP/2 all share one, and with it its window and its stalls.
        "http1_only": True,
    }
    if read_timeout_s is not None:
        config["read_timeout"] = dt.timedelta(seconds=read_timeout_s)
        config["pool_idle_timeout"] = dt.timedelta(seconds=POOL_IDLE_READ_S)
        config["pool_max_idle_per_host"] = str(POOL_IDLE_MAX)
    return config


def _retry(retries: int) -> RetryConfig:
    return {
        "max_retries": retries,
        "retry_timeout": dt.timedelta(seconds=RETRY_WINDOW_S),
        "backoff": {
            "init_backoff": dt.timedelta(seconds=BACKOFF_FIRST_S),
            "max_backoff": dt.timedelta(seconds=BACKOFF_MAX_S),
            "base": 2,
        },
    }
