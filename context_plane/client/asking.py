"""What turns a method into requests: `asks` and `lists` make of what a method describes what a face gives: a result or
an iterator from `Client`, an awaitable or an asynchronous generator from `AsyncClient`."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from context_plane.client.requests import Call, Listing
from context_plane.client.values import Day, Time
from context_plane.errors import Invalid

if TYPE_CHECKING:
    from context_plane.client.faces import AsyncClient, Client

P = ParamSpec("P")
T = TypeVar("T")


class asks(Generic[P, T]):
    """A method that is one request."""

    def __init__(self, make: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> asks[P, T]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self
        send, make = client.send, self._make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return send(make(client, *args, **kwargs))

        return method


class lists(Generic[P, T]):
    """A method that gives an iterator, over as many requests as it takes."""

    def __init__(self, make: Callable[Concatenate[Any, P], Listing[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> lists[P, T]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self
        iterate, make = client.iterate, self._make

        @wraps(make)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return iterate(make(client, *args, **kwargs))

        return method


# --- leaves -------------------------------------------------------------------------------------


def moment(value: Time | None) -> str | None:
    """Raises `Invalid(ts_invalid)` for a time that could be anywhere."""
    if not isinstance(value, dt.datetime):
        return value
    if value.tzinfo is None:
        raise Invalid("ts_invalid", "a datetime needs a time zone: datetime.now(timezone.utc)", ts=value.isoformat())
    return value.isoformat()


def day_name(value: Day | None) -> str | None:
    return value.isoformat() if isinstance(value, dt.date) else value


def names(values: Sequence[T] | None) -> list[T] | None:
    return None if values is None else list(values)
