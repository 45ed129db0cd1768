"""Settings: plain data, read from the environment once, at the edge of a process.

Names are `CONTEXT_PLANE_*`; object store credentials keep their usual names (`AWS_*` and so on).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from context_plane.embed.open import EmbedderSettings
from context_plane.layout.batch import DAY_US
from context_plane.store.open import StoreOptions

DEFAULT_STORE: Final = ".plane/store"


class Settings(BaseSettings):
    """What a process needs to open a plane. Every field has a `CONTEXT_PLANE_` variable of its name."""

    model_config = SettingsConfigDict(env_prefix="CONTEXT_PLANE_", env_nested_delimiter="__", frozen=True)

    store: str = Field(default="", description="store URL: file:///…, s3://bucket/prefix, gs://, az://, memory://")
    cache_dir: Path | None = Field(default=None, description="folder of the disk cache; default in the user's cache")
    cache_memory_bytes: int = Field(default=512 * 1024 * 1024, ge=1 << 20, description="budget of the memory cache")
    cache_disk_bytes: int = Field(default=8 * 1024 * 1024 * 1024, ge=0, description="budget of the disk cache; 0: none")
    specs_dir: Path | None = Field(default=None, description="folder of bundle specs; default: the shipped ones")
    bundle_change_max: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of a day's bundles that a build may change or remove unasked; 1: all, nothing waits",
    )
    horizon_days: int = Field(
        default=2, ge=0, le=366, description="days ahead of now that event times may lie; partitions must reach as far"
    )
    embedder: EmbedderSettings = EmbedderSettings()

    @property
    def horizon_us(self) -> int:
        return self.horizon_days * DAY_US

    @property
    def store_url(self) -> str:
        return self.store or f"file://{Path(DEFAULT_STORE).resolve()}"

    @property
    def cache_folder(self) -> Path:
        return self.cache_dir or user_cache_path("context-plane")


def store_options_from_environment() -> StoreOptions:
    """Credentials and endpoints under the names every cloud client uses."""
    env = os.environ
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    return StoreOptions(
        endpoint=endpoint,
        region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"),
        access_key=env.get("AWS_ACCESS_KEY_ID"),
        secret_key=env.get("AWS_SECRET_ACCESS_KEY"),
        session_token=env.get("AWS_SESSION_TOKEN"),
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        google_service_account=env.get("GOOGLE_APPLICATION_CREDENTIALS"),
        azure_account=env.get("AZURE_STORAGE_ACCOUNT_NAME"),
        azure_key=env.get("AZURE_STORAGE_ACCOUNT_KEY"),
    )
