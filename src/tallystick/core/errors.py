"""The one tree of errors.

For: every failure that Tallystick itself names. Each error says what failed (`what`), for which object
(`object_id`) and what to do about it (`remedy`), and carries a stable snake_case `code` that the API
publishes.
Holds true: no message contains a secret; `code` never changes once released; an error that the API may
answer with derives from one of the classes below that map to exactly one HTTP status.
Must not: know about HTTP, SQL or any library's exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class TallystickError(Exception):
    """Root of all errors. `code` is stable, `what` is a sentence for people, `remedy` says what to do next."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, what: str, *, object_id: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.object_id = object_id
        self.remedy = remedy

    def __str__(self) -> str:
        where = f" ({self.object_id})" if self.object_id else ""
        then = f" {self.remedy}" if self.remedy else ""
        return f"{self.what}{where}{then}"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: `pointer` is a JSON pointer (RFC 6901) into the request, `detail` a sentence."""

    pointer: str
    detail: str


class InvalidInput(TallystickError):
    """The request is well-formed and wrong in meaning (HTTP 422). Names the fields."""

    code = "validation_failed"

    def __init__(
        self, what: str, *, problems: tuple[FieldProblem, ...] = (), code: str | None = None
    ) -> None:
        super().__init__(what)
        self.problems = problems
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more specific than its class

    @classmethod
    def at(cls, pointer: str, detail: str, *, code: str | None = None) -> InvalidInput:
        """An error about exactly one field."""
        return cls(detail, problems=(FieldProblem(pointer, detail),), code=code)


class Malformed(TallystickError):
    """The request cannot be read at all, or asks in a way that does not exist (HTTP 400)."""

    code = "malformed_request"

    def __init__(
        self, what: str, *, problems: tuple[FieldProblem, ...] = (), code: str | None = None
    ) -> None:
        super().__init__(what)
        self.problems = problems
        if code is not None:
            self.code = code  # type: ignore[misc]  # as with InvalidInput


class Unauthenticated(TallystickError):
    """No key, or none that is known and in force (HTTP 401)."""

    code = "unauthenticated"


class InsufficientScope(TallystickError):
    """The key is good but does not carry the right that this needs (HTTP 403)."""

    code = "insufficient_scope"


class RateLimited(TallystickError):
    """Too many requests in too short a time (HTTP 429). `retry_after_seconds` says when to come back."""

    code = "rate_limited"

    def __init__(self, what: str, *, retry_after_seconds: int) -> None:
        super().__init__(what)
        self.retry_after_seconds = retry_after_seconds


class NotFound(TallystickError):
    """No such object for this merchant (HTTP 404). Another merchant's object looks exactly the same."""

    code = "not_found"


class Conflict(TallystickError):
    """The object is not in a state that allows this (HTTP 409)."""

    code = "invalid_state"


class NetworkUnavailable(Conflict):
    """The network cannot be used now: it has never been reached, or is halted (HTTP 409)."""

    code = "network_unavailable"


class AlreadyExists(Conflict):
    """The same object exists already at this merchant (HTTP 409)."""

    code = "already_exists"


class IdempotencyInProgress(Conflict):
    """A request under the same idempotency key is being carried out right now (HTTP 409)."""

    code = "idempotency_in_progress"


class IdempotencyKeyReused(InvalidInput):
    """The idempotency key was used before with another request (HTTP 422)."""

    code = "idempotency_key_reused"


class NoQuote(Conflict):
    """No trustworthy rate is known, so no price can be asked (HTTP 409). Never replaced by a guess."""

    code = "rate_unavailable"


class ConfigurationError(TallystickError):
    """The configuration cannot be used as written."""

    code = "configuration_error"


class DatabaseError(TallystickError):
    """The database cannot be used: unreachable, newer than the code, or not ours."""

    code = "database_error"


class SourceError(TallystickError):
    """A node's answer cannot be used. Never read as "nothing happened"; always retried or raised."""

    code = "source_error"


class SourceUnavailable(SourceError):
    """No usable answer came (refused, timed out, 429, 5xx, not JSON, too large). Retry later."""

    code = "source_unavailable"

    def __init__(
        self,
        what: str,
        *,
        object_id: str | None = None,
        remedy: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(what, object_id=object_id, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class SourceIncomplete(SourceError):
    """An answer came, but parts are missing or do not fit together (null receipts, truncated logs)."""

    code = "source_incomplete"


class BlockNotFound(SourceError):
    """The node does not have this block: it lags, or the block left its best chain. Ask again by height."""

    code = "block_not_found"


class SourcesDisagree(SourceError):
    """Two nodes of one network name different blocks at one height. Crediting waits until they agree."""

    code = "sources_disagree"


class WrongChain(SourceError):
    """The node serves another chain than the one configured and pinned. Refused until a person decides."""

    code = "wrong_chain"


class ReorgTooDeep(SourceError):
    """The best chain changed deeper than the network's safety depth. The network is halted for crediting."""

    code = "reorg_too_deep"


class IllegalTransition(TallystickError):
    """A status change that the transition table does not allow was asked for: a defect, nothing is written."""

    code = "illegal_transition"


class Unbalanced(TallystickError):
    """A ledger entry whose postings do not cancel out was to be made: a defect, nothing is written."""

    code = "unbalanced_entry"


class StaleWrite(TallystickError):
    """A row was not in the state the writer expected: another writer was first. Load again and decide anew."""

    code = "stale_write"
