"""The two faces of the client: the same requests over a blocking and over an asynchronous connection.

What is here twice is what cannot be once: sending, waiting, and reading a stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self, TypeVar, final

import httpx
import orjson
from tenacity import AsyncRetrying, Retrying

from context_plane.client.methods import Methods
from context_plane.client.problems import error_of
from context_plane.client.requests import Call, Lines, Listing, Loading, Reply, Request, name_in_path
from context_plane.client.retries import Retries
from context_plane.client.values import EventLike, Ingested, Visible
from context_plane.errors import Invalid, PlaneError, Unavailable

T = TypeVar("T")

TIMEOUT_S: Final = 120.0
"""Between two bytes of an answer; the longest deadline of a read is 60 s."""
CONNECT_S: Final = 5.0


@final
class Client(Methods):
    """One tenant of one service. Blocking; may be shared by threads. `key` None: a service in open mode."""

    def __init__(
        self,
        url: str,
        tenant: str,
        key: str | None = None,
        *,
        retries: Retries | None = None,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._retries, self._sleep = retries or Retries(), sleep
        self._http = httpx.Client(**_options(url, tenant, key, timeout_s))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def send(self, call: Call[T]) -> T:
        """Make a call. Raises `context_plane.errors`."""

        def once() -> Reply:
            return _reply(self._http.send(_built(self._http, call.request)))

        return call.parse(self._retrying(call.request, once))

    def iterate(self, listing: Listing[T]) -> Iterator[T]:
        """The items of a listing. Every request is made when its items are reached."""
        while (request := listing.following()) is not None:
            for line in self._lines(request):
                yield from _items(listing, line)

    def ingest(
        self,
        events: Iterable[EventLike],
        *,
        visible: Visible = "now",
        run: str | None = None,
        progress: Callable[[Ingested], None] | None = None,
    ) -> Ingested:
        """Write any number of events, in order, in requests within the limits; each is durable when `progress` hears
        of it. `run` names the load: what it wrote is not written again within 24 hours, by whom ever, but with another
        `visible`."""
        loading = Loading(visible, run)

        def flush() -> None:
            if (call := loading.take()) is not None:
                _tell(progress, loading.done(self.send(call)))

        for event in events:
            if loading.add(event):
                flush()
        flush()
        return loading.total

    def _lines(self, request: Request) -> Iterator[bytes]:
        """Lines of an answer. It is asked for again until its first line is here."""

        def begin() -> tuple[httpx.Response, Iterator[bytes], bytes | None]:
            response = self._http.send(_built(self._http, request), stream=True)
            try:
                if not response.is_success:
                    raise error_of(response.status_code, response.headers, response.read())
                lines = _split(response.iter_bytes())
                return response, lines, next(lines, None)
            except BaseException:
                response.close()
                raise

        response, lines, first = self._retrying(request, begin)
        try:
            if first is not None:
                yield first
                yield from lines
        except httpx.HTTPError as error:
            raise _broken(error) from error
        finally:
            response.close()

    def _retrying(self, request: Request, once: Callable[[], T]) -> T:
        try:
            return Retrying(sleep=self._sleep, **self._retries.policy(request))(once)
        except httpx.HTTPError as error:
            raise _unreachable(error, self._http.base_url) from error


@final
class AsyncClient(Methods):
    """One tenant of one service, for asyncio. `key` None: a service in open mode. Its connections belong to the
    event loop that it is used in first: another `asyncio.run` takes a client of its own."""

    def __init__(
        self,
        url: str,
        tenant: str,
        key: str | None = None,
        *,
        retries: Retries | None = None,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._retries, self._sleep = retries or Retries(), sleep
        self._http = httpx.AsyncClient(**_options(url, tenant, key, timeout_s))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.aclose()

    async def send(self, call: Call[T]) -> T:
        """Make a call. Raises `context_plane.errors`."""

        async def once() -> Reply:
            return _reply(await self._http.send(_built(self._http, call.request)))

        return call.parse(await self._retrying(call.request, once))

    async def iterate(self, listing: Listing[T]) -> AsyncGenerator[T, None]:
        """The items of a listing. Every request is made when its items are reached."""
        while (request := listing.following()) is not None:
            async with aclosing(self._lines(request)) as lines:
                async for line in lines:
                    for item in _items(listing, line):
                        yield item

    async def ingest(
        self,
        events: Iterable[EventLike] | AsyncIterable[EventLike],
        *,
        visible: Visible = "now",
        run: str | None = None,
        progress: Callable[[Ingested], None] | None = None,
    ) -> Ingested:
        """As `Client.ingest`; events may come from an asynchronous iterator."""
        loading = Loading(visible, run)

        async def flush() -> None:
            if (call := await asyncio.to_thread(loading.take)) is not None:
                _tell(progress, loading.done(await self.send(call)))

        async for event in _each(events):
            if loading.add(event):
                await flush()
        await flush()
        return loading.total

    async def _lines(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Lines of an answer. It is asked for again until its first line is here."""

        async def begin() -> tuple[httpx.Response, AsyncIterator[bytes], bytes | None]:
            response = await self._http.send(_built(self._http, request), stream=True)
            try:
                if not response.is_success:
                    raise error_of(response.status_code, response.headers, await response.aread())
                lines = _asplit(response.aiter_bytes())
                return response, lines, await anext(lines, None)
            except BaseException:
                await response.aclose()
                raise

        response, lines, first = await self._retrying(request, begin)
        try:
            if first is not None:
                yield first
                async for line in lines:
                    yield line
        except httpx.HTTPError as error:
            raise _broken(error) from error
        finally:
            await response.aclose()

    async def _retrying(self, request: Request, once: Callable[[], Awaitable[T]]) -> T:
        try:
            done: T = await AsyncRetrying(sleep=self._sleep, **self._retries.policy(request))(once)
            return done
        except httpx.HTTPError as error:
            raise _unreachable(error, self._http.base_url) from error


# --- leaves -------------------------------------------------------------------------------------


def _options(url: str, tenant: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    """Raises `Invalid(settings_invalid)` for what is no address of a service."""
    try:
        base = httpx.URL(f"{url.rstrip('/')}/v1/tenants/{name_in_path(tenant)}")
    except httpx.InvalidURL:
        base = httpx.URL()
    if base.scheme not in ("http", "https") or not base.host:
        raise Invalid("settings_invalid", "a service URL reads http://host:port", url=url)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return {"base_url": base, "headers": headers, "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S)}


def _built(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    base = str(http.base_url).rstrip("/")  # a path is joined as it stands: nothing of it is resolved
    if not request.of_tenant:
        base = base.rpartition("/")[0]
    url = httpx.URL(base + request.path, params=request.params) if request.params else httpx.URL(base + request.path)
    return http.build_request(request.method, url, headers=request.headers, content=request.content)


def _reply(response: httpx.Response) -> Reply:
    if not (response.is_success or response.status_code == httpx.codes.NOT_MODIFIED):
        raise error_of(response.status_code, response.headers, response.content)
    return Reply(response.status_code, response.headers, response.content)


def _unreachable(error: httpx.HTTPError, url: httpx.URL) -> PlaneError:
    detail = f"the service does not answer; is it running there? {type(error).__name__}: {error}"
    return Unavailable("not_ready", detail, url=str(url))


def _items(listing: Listing[T], line: bytes) -> Iterable[T]:
    """What the line holds. Raises `Unavailable(not_ready)` for the beginning of one."""
    try:
        return listing.items(line)
    except orjson.JSONDecodeError as error:
        raise _broken(error) from error


def _broken(error: Exception) -> PlaneError:
    detail = f"the answer broke off; name a snapshot to ask again at the same cut. {type(error).__name__}: {error}"
    return Unavailable("not_ready", detail)


def _tell(progress: Callable[[Ingested], None] | None, so_far: Ingested) -> None:
    if progress is not None:
        progress(so_far)


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    lines = Lines()
    for chunk in chunks:
        yield from lines.feed(chunk)
    yield from lines.rest()


async def _asplit(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    lines = Lines()
    async for chunk in chunks:
        for line in lines.feed(chunk):
            yield line
    for line in lines.rest():
        yield line


async def _each(events: Iterable[EventLike] | AsyncIterable[EventLike]) -> AsyncIterator[EventLike]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event
