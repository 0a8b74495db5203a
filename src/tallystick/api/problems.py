"""Errors as problem details (RFC 9457).

For: everything that is answered instead of a result. Holds true: every error answers `application/problem+json`
with a stable `code`; bad input is never a 500; a 500 tells the caller its request id and nothing else, and the log
everything.
Must not: repeat secrets or whole inputs.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from tallystick.api.strict_json import BODY_BYTES_MAX
from tallystick.core import errors
from tallystick.services.failures import is_outage

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 1
# A commit may be on its way when the time is up, so nobody can say that nothing happened.
TIMEOUT_DETAIL: Final = (
    "The request took too long and was given up. Whether it had its effect is not known: send it again with the same "
    "Idempotency-Key, or look at the object first."
)

_STATUS: Final[tuple[tuple[type[errors.TallystickError], int], ...]] = (
    (errors.Malformed, 400),
    (errors.Unauthenticated, 401),
    (errors.InsufficientScope, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.StaleWrite, 409),
    (errors.InvalidInput, 422),
    (errors.RateLimited, 429),
    (errors.SourceError, 503),
    (errors.DatabaseError, 503),
)
_HTTP_CODES: Final = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
}

_log: Final = structlog.get_logger("tallystick.api")


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong: the field by its JSON pointer, or the query parameter by its name."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document (RFC 9457). `code` is stable; `detail` is for people and may change."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    errors: list[ErrorDetail] = []


def problem_response(
    request: Request[Any, Any, Any],
    status: int,
    code: str,
    detail: str,
    *,
    details: list[ErrorDetail] | None = None,
    headers: dict[str, str] | None = None,
) -> Response[bytes]:
    """The answer that tells of a problem."""
    body = render_problem(
        request.app.state.ctx.public_url, request_id(request), status, code, detail, details=details
    )
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def render_problem(
    public_url: str,
    request_id: str | None,
    status: int,
    code: str,
    detail: str,
    *,
    details: list[ErrorDetail] | None = None,
) -> bytes:
    """A problem document as it is sent."""
    problem = Problem(
        type=f"{public_url}/docs/errors#{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=details or [],
    )
    return msgspec.json.encode(problem)


def request_id(request: Request[Any, Any, Any]) -> str | None:
    """The id under which this request is logged."""
    found: str | None = request.scope["state"].get("request_id")
    return found


def bad_parameter(name: str, detail: str, *, code: str = "invalid_parameter") -> BadParameter:
    """An error about one query parameter."""
    return BadParameter(name, detail, code=code)


class BadParameter(errors.Malformed):
    """A query parameter that does not exist or cannot be read (HTTP 400)."""

    def __init__(self, name: str, detail: str, *, code: str) -> None:
        super().__init__(f"The parameter {name[:100]!r} {detail}.", code=code)
        self.parameter = name[:100]
        self.detail = detail


def _ours(request: Request[Any, Any, Any], error: errors.TallystickError) -> Response[bytes]:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    if status is None:
        return _unexpected(request, error)
    details: list[ErrorDetail] = []
    headers: dict[str, str] = {}
    if isinstance(error, BadParameter):
        details = [ErrorDetail(parameter=error.parameter, detail=error.detail)]
    elif isinstance(error, errors.Malformed | errors.InvalidInput):
        details = [ErrorDetail(pointer=item.pointer, detail=item.detail) for item in error.problems]
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tallystick"'
    elif isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(error.retry_after_seconds)
    elif status == 503:
        _log.warning("unavailable", error=str(error), code=error.code)
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    detail = f"{error.what} {error.remedy}" if error.remedy and status != 503 else error.what
    return problem_response(request, status, error.code, detail, details=details, headers=headers)


def _from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    status = error.status_code
    if status >= 500:
        return _unexpected(request, error)
    if status == 413:
        detail = f"The body is larger than {BODY_BYTES_MAX} bytes."
        return problem_response(request, 400, "body_too_large", detail)
    if isinstance(error, ValidationException):
        return _wrong_parameters(request, error)
    code = _HTTP_CODES.get(status, "malformed_request")
    detail = "There is nothing at this address." if status == 404 else error.detail
    return problem_response(request, status, code, detail, headers=dict(error.headers or {}))


def _wrong_parameters(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Litestar validates path and query parameters only; bodies are converted by `strict_json`."""
    found = cast("list[dict[str, Any]]", error.extra) if isinstance(error.extra, list) else []
    details = [
        ErrorDetail(parameter=str(item.get("key", ""))[:100], detail=str(item.get("message", ""))[:300])
        for item in found
    ]
    names = ", ".join(item.parameter or "" for item in details)
    text = f"Wrong: {names}." if names else error.detail.split(" for path")[0] + "."
    return problem_response(request, 400, "invalid_parameter", text, details=details)


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A defect, or an outage below us. The caller gets the request id, the log everything else."""
    if is_outage(error):
        _log.warning("database_unavailable", error=repr(error), path=request.scope.get("path_template"))
        return problem_response(
            request,
            503,
            "database_unavailable",
            "The database cannot be used at the moment. Nothing was changed unless a repeat says so.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    if "prematurely" in str(error):  # Litestar's word for a client that hung up: nobody reads the answer
        return problem_response(request, 400, "malformed_request", "The request ended early.")
    _log.error(
        "defect",
        method=request.method,
        path=request.scope.get("path_template"),
        request_id=request_id(request),
        exc_info=error,
    )
    detail = "Something went wrong on our side. Quote the request id to the operator."
    return problem_response(request, 500, "internal_error", detail)


EXCEPTION_HANDLERS: Final = cast(
    "ExceptionHandlersMap",
    {errors.TallystickError: _ours, HTTPException: _from_framework, Exception: _unexpected},
)


def published_codes() -> dict[str, tuple[int, str]]:
    """Every code that a problem may carry, with its status and what it means."""
    found: dict[str, tuple[int, str]] = {
        "malformed_json": (
            400,
            "The body is not JSON, or not JSON with one meaning (a key twice, half a character).",
        ),
        "body_too_large": (400, f"The body is larger than {BODY_BYTES_MAX} bytes."),
        "unsupported_content_type": (400, "A body must be sent as application/json."),
        "invalid_parameter": (400, "A query parameter cannot be read."),
        "unknown_parameter": (400, "There is no such query parameter."),
        "idempotency_key_invalid": (
            400,
            "The Idempotency-Key header is not 1 to 255 printable ASCII characters.",
        ),
        "idempotency_key_required": (400, "This request needs an Idempotency-Key header."),
        "method_not_allowed": (405, "The address exists, but not for this method."),
        "database_unavailable": (503, "The database cannot be used at the moment."),
        "request_timeout": (503, TIMEOUT_DETAIL),
        "unsupported_asset": (422, "An asset is named that is not configured on its network."),
        "unknown_symbol": (422, "A symbol is neither a configured asset nor an ISO 4217 currency."),
        "unsupported_network": (422, "A network is named that is not configured."),
        "internal_error": (500, "A defect on our side."),
    }
    waiting = [kind for kind, _ in _STATUS]
    while waiting:
        kind = waiting.pop()
        status = next(status for known, status in _STATUS if issubclass(kind, known))
        found.setdefault(kind.code, (status, (kind.__doc__ or "").split(" (HTTP")[0].strip()))
        waiting.extend(kind.__subclasses__())
    return dict(sorted(found.items()))
