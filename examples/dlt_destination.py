"""dlt: a destination, so that any dlt source loads the plane.

    python examples/dlt_destination.py

Rows become events. A table's columns say which is which; what is left becomes attributes. The primary key is the
event's id, so a row that is loaded again replaces itself; a batch that dlt sends again within a load is written once.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.common.schema import TTableSchema

from context_plane.client import Client, Event
from context_plane.errors import Invalid

FIELDS = ("entity", "ts", "id", "thread", "text")  # of an event, from columns of these names, or of `event_columns`


@dlt.destination(name="context_plane", batch_size=10_000, max_table_nesting=0)
def context_plane(
    items: Any,
    table: TTableSchema,
    url: str = dlt.config.value,
    tenant: str = dlt.config.value,
    api_key: str | None = None,
    event_columns: dict[str, Any] | None = None,
) -> None:
    """`event_columns`: table -> field -> column, such as `{"tickets": {"entity": "account", "ts": "opened"}}`."""
    name = str(table["name"])
    named = dict(zip(FIELDS, FIELDS, strict=True)) | (event_columns or {}).get(name, {})
    key = [each for each, column in table["columns"].items() if column.get("primary_key")]
    load = dlt.current.load_package_state()["load_id"]  # the same where dlt sends a batch of it again
    with Client(url, tenant, api_key) as client:
        try:
            client.ingest((event(row, name, named, key) for row in items), run=f"dlt {load} {name}")
        except Invalid as error:  # sending it again would not help: dlt fails the job instead
            raise DestinationTerminalException(str(error)) from error


def event(row: Mapping[str, Any], table: str, named: Mapping[str, str], key: list[str]) -> Event:
    """A row as an event: the table is its source and its kind."""
    held = {field: str(plain(row[column])) for field, column in named.items() if row.get(column) is not None}
    if "id" not in held and key:
        held["id"] = "/".join(str(row[name]) for name in key)
    attrs = {name: plain(value) for name, value in row.items() if name not in named.values()}
    return {**held, "source": table, "kind": table, "attrs": attrs}  # type: ignore[typeddict-item]  # the service checks


def plain(value: Any) -> Any:
    """A value as an event may hold it: dates as RFC 3339, decimals as numbers, what is nested as text."""
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat()
    if isinstance(value, dt.date):
        return f"{value.isoformat()}T00:00:00Z"
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, None | bool | int | float | str) else str(value)


def main() -> None:
    ticket = {"id": "zd-1", "account": "acct-0042", "opened": dt.datetime.now(dt.UTC), "text": "It fails", "seats": 40}
    target = context_plane(
        url=os.environ.get("CONTEXT_PLANE_URL", "http://127.0.0.1:8080"),
        tenant=os.environ.get("CONTEXT_PLANE_TENANT", "demo"),
        api_key=os.environ.get("CONTEXT_PLANE_KEY"),
        event_columns={"tickets": {"entity": "account", "ts": "opened"}},
    )
    print(dlt.pipeline("tickets", destination=target).run([ticket], table_name="tickets", primary_key="id"))


if __name__ == "__main__":
    main()
