"""What the resources share: parameter types of lists, and the shape of short lists.

For: `api.resources`. Holds true: every list has `limit` and `cursor`, and answers `data` and `next_cursor`.
Must not: hold routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, TypeAlias, TypeVar

from litestar.openapi.spec import SecurityRequirement
from litestar.params import QueryParameter

from tallystick.api.auth import SCOPES
from tallystick.services.merchants import Scope
from tallystick.services.paging import LIMIT_MAX, Page

T = TypeVar("T")

Limit: TypeAlias = Annotated[
    int, QueryParameter(ge=1, le=LIMIT_MAX, description="How many objects a page holds at most.")
]
Cursor: TypeAlias = Annotated[
    str | None, QueryParameter(description="`next_cursor` of the page before; left out for the first page.")
]

Time: TypeAlias = Annotated[str | None, QueryParameter(schema_extra={"format": "date-time"})]

READ_INVOICES = {SCOPES: (Scope.INVOICES_READ,)}
WRITE_INVOICES = {SCOPES: (Scope.INVOICES_WRITE,)}
WEBHOOKS = {SCOPES: (Scope.WEBHOOKS_WRITE,)}
READ_EVENTS = {SCOPES: (Scope.INVOICES_READ, Scope.WEBHOOKS_WRITE)}
READ_EXCEPTIONS = {SCOPES: (Scope.INVOICES_READ, Scope.EXCEPTIONS_WRITE)}
WRITE_EXCEPTIONS = {SCOPES: (Scope.EXCEPTIONS_WRITE,)}
READ_REPORTS = {SCOPES: (Scope.REPORTS_READ,)}
READ_REFUNDS = {SCOPES: (Scope.INVOICES_READ, Scope.REFUNDS_WRITE, Scope.REFUNDS_APPROVE)}
WRITE_REFUNDS = {SCOPES: (Scope.REFUNDS_WRITE,)}
APPROVE_REFUNDS = {SCOPES: (Scope.REFUNDS_APPROVE,)}
ADMIN = {SCOPES: (Scope.ADMIN,)}
ANY_KEY: dict[str, tuple[Scope, ...]] = {SCOPES: ()}

BEARER: list[SecurityRequirement] = [{"secret_key": []}]


def one_of(words: type[StrEnum]) -> QueryParameter:
    """A parameter that is one word of a published list. What is no such word is refused by `choice_of`."""
    return QueryParameter(schema_extra={"enum": [word.value for word in words]})


def whole(items: Sequence[T]) -> Page[T]:
    """A list that is never long, in the shape of a page."""
    return Page(data=list(items), next_cursor=None)
