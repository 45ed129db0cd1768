"""dlt: a destination, so that any dlt source loads the plane.

    python examples/dlt_destination.py

A row becomes an event: the table is its source and its kind, some columns are its fields, the others its attributes.
The id is made of the table and the primary key, so a row that is loaded again, by `append` or `merge`, replaces itself
as long as its entity and its day stay: for `ts` name a column that does not change, such as `created_at`. A row that a
merge marks by a `hard_delete` column is deleted. `replace` is refused: a load cannot tell which rows it does not hold.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.common.json import json
from dlt.common.schema import TTableSchema

from context_plane.client import Client, Event
from context_plane.errors import Invalid

FIELDS = ("entity", "ts", "thread", "text")  # of an event, from columns of these names, or of `event_columns`
BY_KEY = (None, "delete-insert", "upsert")  # strategies of a merge by which a row replaces the one of its key


@dlt.destination(name="context_plane", batch_size=10_000, max_table_nesting=0)
def context_plane(
    items: Any,
    table: TTableSchema,
    url: str = dlt.config.value,
    tenant: str = dlt.config.value,
    api_key: str | None = None,
    event_columns: dict[str, Any] | None = None,
) -> None:
    """`event_columns`: table -> field -> column, such as `{"tickets": {"entity": "account", "ts": "opened"}}`; a column
    for `id` is the key instead of the primary one."""
    check(table)
    name = str(table["name"])
    columns = (event_columns or {}).get(name, {})
    load = dlt.current.load_package_state()["load_id"]  # the same where dlt sends a batch of it again
    rows = items if isinstance(items, list) else items.to_pylist()  # of Arrow, where the source gives that
    with Client(url, tenant, api_key) as client:
        try:
            client.ingest((event(row, table, columns) for row in rows), run=f"dlt {load} {name}")
        except Invalid as error:  # sending it again would not help: dlt fails the job instead
            raise DestinationTerminalException(str(error)) from error


def check(table: Mapping[str, Any]) -> None:
    """Raises for what would silently do less than it says."""
    how, strategy = table["write_disposition"], table.get("x-merge-strategy")
    by_key = hinted(table, "primary_key") and not hinted(table, "merge_key") and strategy in BY_KEY
    if how == "replace" or (how == "merge" and not by_key):
        raise DestinationTerminalException(
            f"events replace each other by their key alone, table={table['name']} write_disposition={how} "
            f"merge_strategy={strategy}: use 'append', or 'merge' with a primary_key and no merge_key (rows leave by a "
            "hard_delete column), or load all of it into a new tenant"
        )


def hinted(table: Mapping[str, Any], hint: str) -> list[str]:
    """Names of the columns that carry the hint."""
    return [name for name, column in table["columns"].items() if column.get(hint)]


def event(row: Mapping[str, Any], table: Mapping[str, Any], columns: Mapping[str, str]) -> Event:
    """Identity is (entity, UTC day, id), whatever the source: without the table in its id, ticket 1 would replace
    invoice 1. A row without a key is known by its content."""
    name, named = str(table["name"]), {field: columns.get(field, field) for field in FIELDS}
    made: dict[str, Any] = {field: text(row[at]) for field, at in named.items() if row.get(at) is not None}
    key = [columns["id"]] if "id" in columns else hinted(table, "primary_key") or ["id"]
    if all(row.get(at) is not None for at in key):
        parts = [name, *(text(row[at]) for at in key)]
        made["id"] = "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
    if table["write_disposition"] == "merge" and any(marked(row.get(at)) for at in hinted(table, "hard_delete")):
        made["op"] = "delete"
    attrs = {at: plain(value) for at, value in row.items() if at not in named.values()}
    return {**made, "source": name, "kind": name, "attrs": attrs}  # type: ignore[typeddict-item]  # the service checks


def marked(value: Any) -> bool:
    """As dlt reads a `hard_delete` column: true, or anything that is no boolean."""
    return value is not None and value is not False


def plain(value: Any) -> Any:
    """A value as an attribute holds it: numbers, strings and lists of strings as they are, all else as text."""
    if isinstance(value, Decimal):
        return float(value)
    listed = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return value if listed or isinstance(value, None | bool | int | float) else text(value)


def text(value: Any) -> str:
    """Times as RFC 3339, what is nested as JSON, bytes as base64."""
    match value:
        case dt.datetime():
            return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat()
        case dt.date():
            return f"{value.isoformat()}T00:00:00Z"
        case dict() | list():
            return json.dumps(value, sort_keys=True)
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


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
