"""Every backend passes the one contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from context_plane.store import CountingStore, Store, open_store
from context_plane.store.faults import FaultyStore, Mishap
from tests.store.contract import StoreContract
from tests.store.dictionary import DictStore
from tests.store.servers import Server


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self, store_name: str) -> Store:
        return open_store(f"memory://{store_name}/below/a/prefix")


class TestDictionary(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return DictStore()


class TestLocal(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        local = open_store((tmp_path / "new" / "store").as_uri())
        yield local
        await local.aclose()


class TestMoto(StoreContract):
    @pytest.fixture
    def store(self, moto_s3: Server, store_name: str) -> Store:
        return open_store(moto_s3.url(store_name), options=moto_s3.options)


class TestSeaweedFS(StoreContract):
    creators = 8  # its lock polls once a second: 32 contenders take 10 s

    @pytest.fixture
    def store(self, seaweedfs: Server, store_name: str) -> Store:
        return open_store(seaweedfs.url(store_name), options=seaweedfs.options)


class TestCeph(StoreContract):
    @pytest.fixture
    def store(self, ceph_s3: Server, store_name: str) -> Store:
        return open_store(ceph_s3.url(store_name), options=ceph_s3.options)


class TestWrappedAndSlow(StoreContract):
    """Counting and delays change no answer."""

    @pytest.fixture
    def store(self) -> Store:
        return CountingStore(FaultyStore(DictStore(), lambda operation, key: Mishap(delay_s=0.001)))
