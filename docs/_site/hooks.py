"""Pages of the site that have their source elsewhere: made when the site is built, never kept beside it.

The API reference comes from the service's own OpenAPI document, the benchmarks from the committed results' report,
architecture, changes and deployment from the files of the checkout. Links that lead out of `docs/` are turned to where
the site has the page, or to its name alone where it has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from context_plane.settings import Settings
from serving.app import create_app

ROOT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = {
    "architecture.md": "ARCHITECTURE.md",
    "changes.md": "CHANGELOG.md",
    "deployment.md": "deploy/README.md",
    "benchmarks.md": "benchmarks/REPORT.md",
}
"""Pages of the site that are files of the checkout."""
METHODS: Final = ("get", "put", "post", "delete")
EXAMPLE_CHARS_MAX: Final = 80
"""Of an example in a table."""
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]*)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions in the navigation, by their numbers."""
    assert config.nav is not None
    [section] = [each for each in config.nav if "Decisions" in each]
    section["Decisions"] = [f"decisions/{path.name}" for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages, and the plots of the report."""
    for name in COPIED:
        files.append(File.generated(config, name, content=(ROOT / COPIED[name]).read_text()))
    files.append(File.generated(config, "reference.md", content="\n".join(reference(_document()))))
    for plot in sorted((ROOT / "benchmarks" / "plots").glob("*.svg")):
        files.append(File.generated(config, f"plots/{plot.name}", content=plot.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the site has them."""
    source = COPIED.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return _LINK.sub(_turned((ROOT / source).parent, files), markdown)


def _turned(folder: Path, files: Files) -> Callable[[re.Match[str]], str]:
    homes = {str(ROOT / source): page for page, source in COPIED.items()}

    def turn(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        path = (folder / target).resolve()
        here = homes.get(str(path))
        if here is None and path.is_relative_to(ROOT / "docs"):
            here = path.relative_to(ROOT / "docs").as_posix()
        if here is None and path.parent == ROOT / "benchmarks" / "plots":
            here = f"plots/{path.name}"
        if here is None or files.get_file_from_path(here) is None:
            return f"`{target}`" if text == target else text
        return f"{image}[{text}]({_relative(folder, here)}{anchor})"

    return turn


def _relative(folder: Path, page: str) -> str:
    """From where the page will be: decisions lie one folder down, all others at the top."""
    return f"../{page}" if folder == ROOT / "docs" / "decisions" else page


# --- the API reference ----------------------------------------------------------------------------


def _document() -> dict[str, Any]:
    return create_app(Settings(store="memory://docs")).openapi()


def reference(document: Mapping[str, Any]) -> Iterator[str]:
    """The OpenAPI document as Markdown, line by line. Pure."""
    components = document["components"]
    schemas: Mapping[str, Any] = components["schemas"]
    yield "# API reference"
    yield ""
    yield "Made from the service's own OpenAPI document; [the HTTP API](api.md) explains and has examples that run."
    groups: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                operation = operations[method]
                groups.setdefault((operation.get("tags") or ["process"])[0], []).append((method, path, operation))
    for group, found in groups.items():
        yield from ("", f"## {group.capitalize()}")
        for method, path, operation in found:
            yield from _operation(method, path, operation, schemas)
    yield from ("", "## Headers", "", "Of answers, beside those that HTTP itself needs.")
    yield from ("", "| header | type | meaning | example |", "|---|---|---|---|")
    for name, each in components["headers"].items():
        [example] = each["schema"]["examples"]
        yield f"| {_anchor(name)}`{name}` | {_type(each['schema'])} | {_cell(each['description'])} | `{example}` |"
    yield from ("", "## Schemas", "", "What bodies and answers are made of.")
    for name in sorted(schemas):
        yield from ("", f"### {_anchor(name)}{name}")
        if schemas[name].get("description"):
            yield from ("", schemas[name]["description"])
        yield from _fields(schemas[name])


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"### {operation['summary']}", "", f"`{method.upper()} {path}`")
    if operation.get("description"):
        yield from ("", operation["description"])
    parameters = operation.get("parameters", [])
    if parameters:
        yield from ("", "| parameter | in | type | meaning | example |", "|---|---|---|---|---|")
        for each in parameters:
            place = each["in"] if each.get("required") else f"{each['in']}, optional"
            yield f"| `{each['name']}` | {place} {_field(each['schema'], each.get('description'))}"
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield from ("", f"Body, `{media}`:")
        yield from _fields(body["schema"])
    for status, answer in sorted(operation["responses"].items(), key=lambda each: each[0] == "default"):
        yield from _answer(status, answer, schemas)


def _answer(status: str, answer: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a success; of others their schema alone."""
    content = answer.get("content", {})
    forms = [f"`{media}` of {_type(body['schema'])}" for media, body in content.items()]
    headers = [f"[`{name}`](#{_id(name)})" for name in answer.get("headers", {})]
    told = f"Answers {status}" if status != "default" else "Else"
    yield from ("", f"{told}: {answer['description']}. {_listed('', forms)}{_listed('Headers: ', headers)}".rstrip())
    if status.startswith("2"):
        for body in content.values():
            yield from _fields(_resolved(body["schema"], schemas))


def _listed(before: str, items: Sequence[str]) -> str:
    return f"{before}{', '.join(items)}. " if items else ""


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    if not schema.get("properties"):
        return
    required = set(schema.get("required", ()))
    yield from ("", "| field | type | meaning | example |", "|---|---|---|---|")
    for name, each in schema["properties"].items():
        must = "" if name in required else " (optional)"
        yield f"| `{name}`{must} {_field(each, each.get('description'))}"


def _field(schema: Mapping[str, Any], description: str | None) -> str:
    """The cells of type, meaning and example. An example that has parts is shown by its own schema, field by field."""
    example = json.dumps(schema.get("examples", [""])[0], ensure_ascii=False)
    shown = f"`{_cell(example)}`" if len(example) <= EXAMPLE_CHARS_MAX else ""
    return f"| {_type(schema)} | {_cell(description)} | {shown} |"


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return schemas[name] if name else schema


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{_id(name)})"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(part for each in choices for part in _type(each).split(" or ")))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", "any"))
    if kind == "array" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    if kind == "array" and "prefixItems" in schema:
        return f"[{', '.join(_type(each) for each in schema['prefixItems'])}]"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return kind


def _anchor(name: str) -> str:
    """Where links to a schema or a header lead."""
    return f'<a id="{_id(name)}"></a>'


def _id(name: str) -> str:
    return f"of-{name}"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")
