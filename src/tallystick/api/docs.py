"""The API's own reference: one page made from the schema, one that explains every error code.

For: people at `/docs`. Holds true: pages are rendered here, once, from the schema that programs read; they need no
script and ask nothing of anybody else, so the strictest content security policy holds. Must not: describe anything
by hand that the schema says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib import resources
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
from jinja2 import Environment, PackageLoader
from litestar import Litestar, Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.enums import MediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin
from markupsafe import Markup, escape

from tallystick.api.document import complete
from tallystick.api.problems import published_codes

DESCRIPTION: Final = (
    "Crypto payments that a merchant's systems can trust. Amounts are decimal strings, never numbers. "
    "Times are RFC 3339 UTC. Lists answer `data` and `next_cursor`. Errors are problem details (RFC 9457) "
    "with a stable `code`. Send `Idempotency-Key` with a POST to make its repetition harmless: the same key "
    "and body answers what was answered the first time, for at least 24 hours. A revoked key may work for "
    "some seconds more."
)
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_REFERENCE: Final = "#/components/schemas/"

_PAGE_OF: Final = re.compile(r"Page_(?:\w+\.)*(\w+?)_")  # how the framework names a page of a list of objects
_CODE: Final = re.compile(r"`([^`]+)`")
_LIMITS: Final = (
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("maxLength", "length at most"),
    ("default", "default"),
)

_environment: Final = Environment(
    loader=PackageLoader("tallystick.api", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_schemas: Final[WeakKeyDictionary[Litestar, bytes]] = WeakKeyDictionary()


def rendered_schema(app: Litestar) -> bytes:
    """The schema of this application as JSON; made once, at the first question."""
    found = _schemas.get(app)
    if found is None:
        found = _schemas[app] = msgspec.json.encode(complete(app.openapi_schema.to_schema(), app))
    return found


class ReferencePage(OpenAPIRenderPlugin):
    """`/docs`: every operation and object of the schema."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML, favicon="", style="")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """The page; also where the framework has its own idea of the schema, ours is the one published."""
        return _reference(rendered_schema(request.app))


def router() -> Router:
    """Where the framework hangs the reference page: with the page's own style, and nothing else, let through."""
    policy = ResponseHeader(name="content-security-policy", value=_policy())
    return Router("/docs", route_handlers=[], include_in_schema=False, response_headers=[policy])


@get("/docs/errors", include_in_schema=False, media_type=MediaType.HTML)
async def error_page() -> Response[bytes]:
    """Every error code: its status and what it means."""
    page = _environment.get_template("errors.html.jinja").render(codes=published_codes(), style=_style())
    return Response(page.encode(), media_type=MediaType.HTML, headers={"content-security-policy": _policy()})


@lru_cache(maxsize=4)
def _reference(schema: bytes) -> bytes:
    described: dict[str, Any] = msgspec.json.decode(schema)
    components: dict[str, Any] = described.get("components", {}).get("schemas", {})
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, item in described["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    ]
    tags: dict[str, list[dict[str, Any]]] = {}
    for operation in operations:
        tags.setdefault((operation.get("tags") or ["Other"])[0], []).append(operation)
    order = [tag["name"] for tag in described.get("tags", []) if tag["name"] in tags]
    page = _environment.get_template("reference.html.jinja").render(
        info=described["info"],
        sections=[(name, tags[name]) for name in [*order, *(set(tags) - set(order))]],
        components=sorted(components.items()),
        type_of=_type_of,
        name_of=_name_of,
        limits_of=_limits_of,
        prose=_prose,
        style=_style(),
    )
    return page.encode()


def _type_of(schema: dict[str, Any]) -> Markup:
    """A schema in a few words. The names of objects lead to their headings on the same page."""
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix(_REFERENCE)
        return Markup('<a href="#object-{}">{}</a>').format(name, _name_of(name))
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            return Markup(" or ").join(dict.fromkeys(_type_of(choice) for choice in schema[word]))
    if "enum" in schema:
        return Markup(" or ").join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return escape(f'"{schema["const"]}"')
    kind = schema.get("type", "any value")
    if isinstance(kind, list):
        return escape(" or ".join(kind))
    if kind == "array":
        return Markup("list of {}").format(_type_of(schema.get("items", {})))
    if schema.get("format") == "date-time":
        return escape("time")
    return escape(kind)


def _name_of(component: str) -> str:
    """An object's name as people read it."""
    return _PAGE_OF.sub(r"Page of \1", component)


def _limits_of(schema: dict[str, Any]) -> str:
    """What the schema says about a value besides its type."""
    said = []
    chosen = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    limits = {**chosen[0], **schema} if len(chosen) == 1 else schema
    for key, words in _LIMITS:
        value = limits.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # the schema writes whole bounds as 1.0
        if value not in (None, "", [], {}):
            said.append(f"{words} {msgspec.json.encode(value).decode()}")
    return ", ".join(said)


def _prose(text: str) -> Markup:
    """A sentence of the schema, its `code` marked as such."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just here


@lru_cache(maxsize=1)
def _style() -> str:
    return resources.files(__package__).joinpath("templates", "docs.css").read_text()


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    nothing_else = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; style-src 'sha256-{digest}'; {nothing_else}"
