"""Makes the framework's description of the API say what is so.

For: `/openapi.json`, and `/docs`, which is rendered from it. Holds true: objects are described by the library that
reads and writes them, so limits and refused fields are those that hold; errors are the problem documents that are
sent, with the codes each status can have; ids, cursors and texts have the form that is checked; answers link to what
can be done next with the object in them. Tests fuzz the served application against the result.
Must not: be the place where something is decided: it repeats what handlers, structs and `problems` say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, get_args

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

from tallystick.api.problems import MEDIA_TYPE, Problem, published_codes
from tallystick.api.request import PARAMETER_LENGTH_MAX, PATH_LENGTH_MAX
from tallystick.core.ids import IdKind, id_pattern
from tallystick.services.paging import Page

ALSO_ANSWERS: Final = "also_answers"
"""The route option that holds statuses of errors which do not follow from method, body and path."""

KEY_REQUIRED: Final = "idempotency_key_required"
"""The route option of an operation that is refused without an idempotency key."""

_SCHEMAS: Final = "#/components/schemas/"
_RESPONSES: Final = "#/components/responses/"
_NO_CONTROL: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_KINDS: Final[Mapping[str, IdKind]] = {
    "invoice_id": IdKind.INVOICE,
    "option_id": IdKind.OPTION,
    "payment_id": IdKind.PAYMENT,
    "wallet_id": IdKind.WALLET,
    "exception_id": IdKind.EXCEPTION,
    "refund_id": IdKind.REFUND,
    "endpoint_id": IdKind.WEBHOOK_ENDPOINT,
    "event_id": IdKind.EVENT,
    "after": IdKind.EVENT,
}
_HELD: Final[Mapping[str, Mapping[str, str]]] = {
    "Invoice": {"invoice_id": "id", "option_id": "payment_options/0/id"},
    "Payment": {"payment_id": "id", "invoice_id": "invoice_id"},
    "Wallet": {"wallet_id": "id"},
    "ExceptionObject": {"exception_id": "id", "invoice_id": "invoice_id"},
    "Refund": {"refund_id": "id", "invoice_id": "invoice_id"},
    "WebhookEndpoint": {"endpoint_id": "id"},
    "Event": {"event_id": "id"},
    "Delivery": {"event_id": "event_id", "endpoint_id": "endpoint_id"},
}
"""Where an object holds what fills the path of another operation."""

_CURSORS: Final[Mapping[str, IdKind]] = {
    "Invoice": IdKind.INVOICE,
    "Payment": IdKind.PAYMENT,
    "Wallet": IdKind.WALLET,
    "ExceptionObject": IdKind.EXCEPTION,
    "Refund": IdKind.REFUND,
    "WebhookEndpoint": IdKind.WEBHOOK_ENDPOINT,
    "Event": IdKind.EVENT,
    "LedgerEntry": IdKind.LEDGER_ENTRY,
}
_HEADERS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "X-Request-Id": ("Names this request in our logs.", {"type": "string", "pattern": "^req_[0-9a-f]{18}$"}),
    "Location": ("Where the new object is.", {"type": "string", "format": "uri"}),
    "Idempotent-Replayed": (
        "Sent where this is what was answered to an earlier request with the same key.",
        {"type": "string", "const": "true"},
    ),
    "Retry-After": ("Seconds after which to try again.", {"type": "string", "pattern": "^[0-9]+$"}),
    "WWW-Authenticate": ("How to say who you are.", {"type": "string"}),
}


def complete(document: dict[str, Any], app: Litestar) -> dict[str, Any]:
    """The framework's description of this application, completed. `document` is changed."""
    handlers = {handler.operation_id: handler for handler in _handlers(app)}
    found = [
        (method, operation, handlers[operation["operationId"]])
        for item in document["paths"].values()
        for method, operation in item.items()
    ]
    components = document["components"]
    components["schemas"] = _schemas(handler for _, _, handler in found)
    components["responses"] = {
        _name_of(status): _problem(status, codes) for status, codes in _codes().items()
    }
    components["headers"] = {name: _header(*said) for name, said in _HEADERS.items()}
    for method, operation, handler in found:
        _complete_operation(method, operation, handler, components["schemas"])
    targets = {operation["operationId"]: operation for _, operation, _ in found}
    for _, operation, handler in found:
        _link(operation, _answered(handler), targets)
    return document


def _handlers(app: Litestar) -> Iterator[HTTPRouteHandler]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler) and handler.include_in_schema is not False:
                yield handler


def _answered(handler: HTTPRouteHandler) -> Any:
    """What an operation answers when all is well; None for no JSON."""
    said = handler.parsed_fn_signature.return_type
    annotation = (
        said.inner_types[0].annotation if said.inner_types and said.origin is not Page else said.annotation
    )
    return None if annotation in (None, type(None), bytes) else annotation


def _taken(handler: HTTPRouteHandler) -> Any:
    """The struct of an operation's body, or None."""
    field = handler.parsed_data_field
    return None if field is None else field.annotation


# --- objects ---


def _schemas(handlers: Iterable[HTTPRouteHandler]) -> dict[str, Any]:
    """Every object that is taken or answered, by name."""
    taken: list[Any] = []
    answered: list[Any] = [Problem]
    for handler in handlers:
        taken += [t for t in (_taken(handler),) if t is not None]
        answered += [t for t in (_answered(handler),) if t is not None]
    _, schemas = msgspec.json.schema_components([*taken, *answered], ref_template=_SCHEMAS + "{name}")
    _, of_bodies = msgspec.json.schema_components(taken, ref_template=_SCHEMAS + "{name}")
    for name, schema in schemas.items():
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        for field in (schema.get("properties") or {}).values():
            for choice in field.get("anyOf", ()):  # what a field means is said of the field
                if "description" in choice:
                    field["description"] = choice.pop("description")
        if name in of_bodies:
            _say_which_text(schema)
    for struct in _structs([*taken, *answered]):
        _say_what_is_sent(
            struct, schemas[_component(struct.cls)], always=_component(struct.cls) not in of_bodies
        )
    return schemas


def _structs(types: list[Any]) -> Iterator[msgspec.inspect.StructType]:
    """Every struct in these types, once."""
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(types))
    seen: set[Any] = set()
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen and not get_args(info.cls):
                continue
            seen.add(info.cls)
            yield info
            waiting += [field.type for field in info.fields]
        elif isinstance(info, msgspec.inspect.UnionType):
            waiting += info.types
        elif isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
            waiting.append(info.item_type)
        elif isinstance(info, msgspec.inspect.Metadata):
            waiting.append(info.type)


def _component(cls: Any) -> str:
    """The name under which msgspec describes a struct."""
    arguments = "".join(f"{_component(argument)}_" for argument in get_args(cls))
    return f"{cls.__name__}_{arguments}" if arguments else str(cls.__name__)


def _say_what_is_sent(struct: msgspec.inspect.StructType, schema: dict[str, Any], *, always: bool) -> None:
    """Times as such; and of what we answer, that a field with a default is there all the same."""
    required: list[str] = schema.setdefault("required", [])
    config = getattr(struct.cls, "__origin__", struct.cls).__struct_config__
    for field in struct.fields:
        types = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        if any(isinstance(one, msgspec.inspect.DateTimeType) for one in types):
            for part in _strings(schema["properties"][field.encode_name]):
                part["format"] = "date-time"
        # A field that may be UNSET has no default here.
        has_default = msgspec.NODEFAULT is not field.default or msgspec.NODEFAULT is not field.default_factory
        if always and has_default and not field.required and not config.omit_defaults:
            required.append(field.encode_name)


def _say_which_text(schema: Any) -> None:
    """Of what we are sent: no text with control characters."""
    for part in _strings(schema):
        if not {"pattern", "enum", "const", "format"} & part.keys():
            part["pattern"] = _NO_CONTROL
    if isinstance(schema, dict):
        for inner in (schema.get("properties") or {}).values():
            for part in _objects(inner):
                part.setdefault("propertyNames", {})["pattern"] = _NO_CONTROL


def _strings(schema: Any) -> Iterator[dict[str, Any]]:
    return (part for part in _parts(schema) if part.get("type") == "string")


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    return (part for part in _parts(schema) if isinstance(part.get("additionalProperties"), dict))


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for key, inner in value.items():
            if key not in ("default", "examples", "enum", "const"):
                yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


# --- operations ---


def _complete_operation(
    method: str, operation: dict[str, Any], handler: HTTPRouteHandler, schemas: Mapping[str, Any]
) -> None:
    answer, body = _answered(handler), _taken(handler)
    parameters = [_parameter(one, answer) for one in operation.get("parameters", ())]
    if method == "post":
        parameters.append(_idempotency_key(required=bool(handler.opt.get(KEY_REQUIRED))))
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        described: dict[str, Any] = {"$ref": f"{_SCHEMAS}{_component(body)}"}
        operation["requestBody"] = {
            "content": {"application/json": {"schema": described}},
            "required": bool(schemas[_component(body)].get("required")),
        }
    responses: dict[str, Any] = {
        status: response for status, response in operation["responses"].items() if status < "400"
    }
    for status, response in responses.items():
        names = ["X-Request-Id"]
        names += ["Location"] if status == "201" else []
        names += ["Idempotent-Replayed"] if method == "post" else []
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        response["description"] = HTTPStatus(int(status)).phrase
        if answer is not None:
            response["content"] = {
                "application/json": {"schema": {"$ref": f"{_SCHEMAS}{_component(answer)}"}}
            }
    for status_code in _problems_of(method, operation, handler):
        responses[str(status_code)] = {"$ref": f"{_RESPONSES}{_name_of(status_code)}"}
    for status_code, said in (handler.responses or {}).items():
        shapes = {"application/json": _component(said.data_container), MEDIA_TYPE: _component(Problem)}
        responses[str(status_code)] = {
            "description": said.description,
            "content": {kind: {"schema": {"$ref": f"{_SCHEMAS}{name}"}} for kind, name in shapes.items()},
        }
    operation["responses"] = dict(sorted(responses.items()))


def _problems_of(method: str, operation: Mapping[str, Any], handler: HTTPRouteHandler) -> set[int]:
    """Statuses of the errors that an operation can answer."""
    found = {*handler.opt.get(ALSO_ANSWERS, ()), 500, 503}
    if operation.get("security"):
        found |= {400, 401, 429}
        found |= {403} if handler.opt.get("scopes") else set()
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", ())):
        found.add(404)
    if method in ("post", "put", "patch", "delete"):
        found |= {404, 409}
    if _taken(handler) is not None:
        found.add(422)
    return found


def _parameter(parameter: dict[str, Any], answer: Any) -> dict[str, Any]:
    """A parameter of path or query as it is checked. There is no null in an address."""
    schema: dict[str, Any] = parameter["schema"]
    choices = [one for one in schema.pop("oneOf", ()) if one.get("type") != "null"]
    for choice in choices:
        schema = {**choice, **schema}
    for bound in ("minimum", "maximum"):
        if bound in schema:
            schema[bound] = int(schema[bound])
    kind = _KINDS.get(parameter["name"])
    if parameter["name"] == "cursor" and answer is not None and get_args(answer):
        kind = _CURSORS.get(get_args(answer)[0].__name__)
    if kind is not None and (parameter["in"] == "path" or parameter["name"] in ("cursor", "after")):
        schema["pattern"] = id_pattern(kind)
    elif schema.get("type") == "string" and not {"enum", "pattern", "format"} & schema.keys():
        schema["pattern"] = _NO_CONTROL
        schema["maxLength"] = PARAMETER_LENGTH_MAX if parameter["in"] == "query" else PATH_LENGTH_MAX // 4
    kept = ("name", "in", "description", "required")
    return {key: parameter[key] for key in kept if key in parameter} | {"schema": schema}


def _idempotency_key(*, required: bool) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "description": "Makes a repetition harmless: the same key and body has one effect and one answer.",
        # Blanks at the ends do not survive HTTP.
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    }


def _header(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "schema": schema}


# --- errors ---


def _codes() -> dict[int, dict[str, str]]:
    """Codes and what they mean, by status."""
    found: dict[int, dict[str, str]] = {}
    for code, (status, meaning) in published_codes().items():
        found.setdefault(status, {})[code] = meaning
    return dict(sorted(found.items()))


def _name_of(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


def _problem(status: int, codes: Mapping[str, str]) -> dict[str, Any]:
    names = ["X-Request-Id"]
    names += ["WWW-Authenticate"] if status == 401 else []
    names += ["Retry-After"] if status in (429, 503) else []
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": sorted(codes)}}}
    return {
        "description": " ".join(f"`{code}`: {' '.join(meaning.split())}" for code, meaning in codes.items()),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {MEDIA_TYPE: {"schema": {"allOf": [{"$ref": f"{_SCHEMAS}Problem"}, narrowed]}}},
    }


# --- links ---


def _link(operation: dict[str, Any], answer: Any, targets: Mapping[str, dict[str, Any]]) -> None:
    """Say in an answer which operations take the ids that are in it."""
    is_page = bool(get_args(answer))
    answered = get_args(answer)[0] if is_page else answer
    held = _HELD.get(getattr(answered, "__name__", ""), {})
    place = "$response.body#/data/0/" if is_page else "$response.body#/"
    links: dict[str, Any] = {}
    for name, target in targets.items():
        wanted = [one["name"] for one in target.get("parameters", ()) if one["in"] == "path"]
        if wanted and all(one in held for one in wanted):
            links[name] = {"operationId": name, "parameters": {one: place + held[one] for one in wanted}}
    for status, response in operation["responses"].items():
        if links and status < "300":
            response["links"] = links
