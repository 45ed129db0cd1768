"""Logs as lines of JSON (`serve --log-format json`): what went wrong, and a line for each request.

A line names a request by its id, its route as a template and its caller by the id of the key: no path and so no entity,
no token, no body. With `text` there are no lines for requests, and the others are uvicorn's. A field that is unknown is
left out. Times are UTC.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal, TypeAlias

import orjson

from context_plane.model import format_time

LogFormat: TypeAlias = Literal["text", "json"]
FIELDS: Final = "fields"
"""Of a record (`extra`): what its line says beside its message."""

requests: Final = logging.getLogger("context_plane.requests")


class JsonLines(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": format_time(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def config(wanted: LogFormat) -> dict[str, Any] | None:
    """For `logging.config.dictConfig`; None: uvicorn's own."""
    if wanted == "text":
        return None
    own = {"handlers": ["lines"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "serving.logs.JsonLines"}},
        "handlers": {
            "lines": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"},
        },
        "root": {"handlers": ["lines"], "level": "WARNING"},
        "loggers": {"uvicorn": own, "context_plane": own},
    }
