"""`/docs`: the API on a page to click on. Its scripts and styles come with the service: it needs no network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

PAGE: Final = "/docs"
FILES: Final = f"{PAGE}/files"


def add(app: FastAPI) -> None:
    """The page of `app`'s document, and the files it loads."""
    files = Path(str(resources.files("fastapi_offline"))) / "static"
    app.mount(FILES, StaticFiles(directory=files), name="docs-files")
    app.add_route(PAGE, _page, include_in_schema=False)


async def _page(request: Request) -> Response:
    app, root = request.app, request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        swagger_js_url=f"{root}{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{root}/explorer/icon.svg",
    )
