"""A JSON-RPC 2.0 client for one node, with limits on everything that comes back.

For: the sources of every family whose nodes speak JSON-RPC; one client per URL.
Holds true: a call returns a decoded result that answers exactly this call, or raises an error of
`core.errors.SourceError`'s tree. No attempt takes longer or reads more than `RpcLimits` says, and none begins
after that time. The URL, which often holds a password or an access key, is in no name, error or log: only
host and port are.
Must not: decide what an empty result means, choose between nodes, or wait for long: a short trouble (a
dropped connection, 429, 502) is tried again at once a few times; longer waiting is the follower's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import aiohttp
import msgspec
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)
from yarl import URL

from tallystick.chains.node_urls import (
    access_key_of,
    basic_authorization,
    node_name,
    secret_parts,
    split_url,
)
from tallystick.chains.pauses import pause_asked_for
from tallystick.core.errors import SourceIncomplete, SourceUnavailable

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Failure(msgspec.Struct, gc=False):
    """A JSON-RPC error object (JSON-RPC 2.0, section 5.1). `data` is ignored."""

    code: int = 0
    message: str = ""


class Answer(msgspec.Struct, Generic[ResultT], gc=False):
    """One JSON-RPC response object. Neither `result` nor `error` present is a fault of the node.

    Not tracked by the garbage collector (`gc=False`), like all that is decoded here: it holds no cycles.
    """

    id: int | str | None = None
    result: ResultT | msgspec.UnsetType = msgspec.UNSET
    error: Failure | None = None


Batch: TypeAlias = list[Answer[ResultT]] | Answer[ResultT]
"""What a node may send for a batch: one answer per call, or one failure for all of them."""

_MESSAGE_LENGTH_MAX: Final = 200
_FOREIGN_LENGTH_MAX: Final = 4_000
_TRANSIENT_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
_PAUSE_STATUSES: Final = _TRANSIENT_STATUSES | {403}
_READ_BUFFER_BYTES: Final = 1 << 20

_REASONS: Final = {401: "does not accept our name and password", 429: "asks to be called less often"}

# EIP-1474 (-32601, -32004), and what nodes send that know the method with other parameters only (-32600,
# -32602).
METHOD_MISSING_CODES: Final = frozenset({-32601, -32004, -32600, -32602})
# EIP-1474 "limit exceeded", and the HTTP number that some providers put there.
LIMIT_CODES: Final = frozenset({-32005, 429})


class Decoder(Protocol[ResultT_co]):
    """Turns an answer's bytes into a value. Raises what `msgspec.json.Decoder` raises."""

    def decode(self, body: bytes, /) -> ResultT_co:
        """The value."""
        ...


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """Bounds of one call, times in seconds. A batch above `batch_size_max` is sent in several requests."""

    response_bytes_max: int = 64 * 1024 * 1024
    total_timeout_seconds: float = 30.0
    connect_timeout_seconds: float = 5.0
    batch_size_max: int = 100
    attempts_max: int = 3
    retry_wait_seconds_max: float = 2.0


@dataclass(frozen=True, slots=True)
class Call:
    """One method and its positional parameters, which are JSON values."""

    method: str
    params: list[Any] = field(default_factory=list)


class RpcRefused(SourceUnavailable):
    """The node answered with a JSON-RPC error object. `rpc_code` is its code (EIP-1474)."""

    code = "source_unavailable"

    def __init__(self, node: str, method: str, rpc_code: int, message: str) -> None:
        self.rpc_code = rpc_code
        super().__init__(
            f"The node refused {method}: {message} (error {rpc_code}).",
            object_id=node,
            remedy="It is asked again; look at the node if this goes on.",
        )

    @property
    def method_missing(self) -> bool:
        """The node does not have this method, or not with these parameters."""
        return self.rpc_code in METHOD_MISSING_CODES

    @property
    def limited(self) -> bool:
        """The node wants to be asked less often."""
        return self.rpc_code in LIMIT_CODES


class RpcBeyond(SourceUnavailable):
    """The node, or what stands before it, will not or cannot answer this question: HTTP 4xx, or too large an answer."""

    code = "source_unavailable"


class RpcTooLarge(RpcBeyond):
    """The answer is larger than `RpcLimits` lets in. Less of it can be asked for."""

    code = "source_unavailable"


class RpcUnauthorized(RpcBeyond):
    """The node does not accept our name and password (HTTP 401)."""

    code = "source_unavailable"


class _Transient(SourceUnavailable):
    """A trouble that may be over at once: worth another attempt within the call."""


def new_session(limits: RpcLimits) -> aiohttp.ClientSession:
    """A session for the clients of one network. No cookies, no proxy settings from the environment."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(
            total=limits.total_timeout_seconds, sock_connect=limits.connect_timeout_seconds, ceil_threshold=60
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
        read_bufsize=_READ_BUFFER_BYTES,
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )


class RpcClient:
    """Calls methods of one node. Safe to use concurrently. `name` is host and port, safe to show.

    The session is shared and belongs to the caller. `read_credentials` answers `name:password` where the URL does not
    hold them; it is asked again whenever the node refuses what it answered before, and raises SourceError when it
    cannot. `error_statuses` are those of HTTP under which the node sends the error object of a single call. A name
    without a password in the URL is sent in `key_header`, if that is given. Requests leave as `pace` lets them. Raises
    ConfigurationError for an unusable URL.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        limits: RpcLimits,
        *,
        read_credentials: Callable[[], str] | None = None,
        error_statuses: frozenset[int] = frozenset(),
        key_header: str | None = None,
        pace: AsyncLimiter | None = None,
    ) -> None:
        address, self._headers = split_url(url)
        if key_header is not None and (key := access_key_of(url)) is not None:
            self._headers = {key_header: key}
        self._pace = pace
        self._error_statuses = error_statuses
        self._read_credentials = read_credentials
        self._batches = True
        self._url_secrets = self._secrets = secret_parts(URL(url))
        self._url = address
        self.name = node_name(url)
        self._session = session
        self._limits = limits
        self._ids = count(1)
        self._encode = msgspec.json.Encoder().encode
        self._retrying = AsyncRetrying(
            retry=retry_if_exception(self._worth_another_attempt),
            stop=stop_after_attempt(max(1, limits.attempts_max))
            | stop_after_delay(limits.total_timeout_seconds),
            wait=_Wait(limits.retry_wait_seconds_max),
            reraise=True,
        )

    async def call(self, call: Call, decoder: Decoder[Answer[ResultT]]) -> ResultT:
        """The result of one call. Raises RpcRefused, SourceUnavailable or SourceIncomplete."""
        request_id = next(self._ids)
        body = await self.post(self._encode(_request(request_id, call)))
        return self._result_of(self._decode(body, decoder), request_id, call)

    async def batch(
        self, calls: Sequence[Call], decoder: msgspec.json.Decoder[Batch[ResultT]]
    ) -> list[ResultT | RpcRefused]:
        """The results in the order of `calls`, whatever order the node answers in.

        A call that the node refuses is a value, so that the others stay usable. A node that refuses batches is
        asked one by one from then on. Raises SourceIncomplete if answers are missing, doubled or foreign, else
        SourceUnavailable.
        """
        results: list[ResultT | RpcRefused] = []
        size = max(1, self._limits.batch_size_max)
        for start in range(0, len(calls), size):
            part = calls[start : start + size]
            if self._batches:
                try:
                    answered = await self._one_batch(part, decoder)
                except RpcRefused as refused:
                    if refused.limited:
                        raise
                    self._batches = False
                else:
                    results.extend(answered)
                    continue
            for call in part:
                answer = await self._one_alone(call, decoder)
                results.append(answer)
        return results

    async def _one_alone(
        self, call: Call, decoder: msgspec.json.Decoder[Batch[ResultT]]
    ) -> ResultT | RpcRefused:
        """One call of a batch, for nodes that take no batches."""
        request_id = next(self._ids)
        answer = self._decode(await self.post(self._encode(_request(request_id, call))), decoder)
        if not isinstance(answer, Answer):
            raise self._unusable("The node sent a list as the answer to a single call.")
        try:
            return self._result_of(answer, request_id, call)
        except RpcRefused as refused:
            return refused

    def _result_of(self, answer: Answer[ResultT], request_id: int, call: Call) -> ResultT:
        """The result in an answer to exactly this request. Raises RpcRefused or SourceUnavailable."""
        if answer.error is not None:
            raise self._refused(call.method, answer.error)
        if answer.id != request_id:
            raise self._unusable("The node answered another question than the one asked (wrong id).")
        if answer.result is msgspec.UNSET:
            raise self._unusable("The node's answer has neither a result nor an error.")
        return answer.result

    async def _one_batch(
        self, calls: Sequence[Call], decoder: msgspec.json.Decoder[Batch[ResultT]]
    ) -> list[ResultT | RpcRefused]:
        ids = [next(self._ids) for _ in calls]
        body = await self.post(self._encode([_request(i, call) for i, call in zip(ids, calls, strict=True)]))
        answers = self._decode(body, decoder)
        if isinstance(answers, Answer):
            if answers.error is not None:
                raise self._refused(f"a batch of {len(calls)} calls", answers.error)
            raise self._unusable("The node sent a single answer to a batch.")
        by_id = {answer.id: answer for answer in answers}
        if len(answers) != len(calls) or by_id.keys() != set(ids):
            raise SourceIncomplete(
                f"The node's answers do not match the {len(calls)} calls of a batch: {len(answers)} came.",
                object_id=self.name,
                remedy="It is asked again.",
            )
        results: list[ResultT | RpcRefused] = []
        for request_id, call in zip(ids, calls, strict=True):
            try:
                results.append(self._result_of(by_id[request_id], request_id, call))
            except RpcRefused as refused:
                results.append(refused)
        return results

    async def post(self, body: bytes) -> bytes:
        """Send a request body and return the answer's, within the limits. Raises SourceUnavailable."""
        return await self._retrying(self._post_once, body)

    async def _post_once(self, body: bytes) -> bytes:
        if self._read_credentials is None:
            return await self._exchange(body)
        if not self._headers:
            self._headers = self._authorization(self._read_credentials())
        try:
            return await self._exchange(body)
        except RpcUnauthorized:
            # Such credentials are new after every start of the node.
            fresh = self._authorization(self._read_credentials())
            if fresh == self._headers:
                raise
            self._headers = fresh
            return await self._exchange(body)

    def _authorization(self, credentials: str) -> dict[str, str]:
        user, _, password = credentials.partition(":")
        self._secrets = (*self._url_secrets, *([password] if password else []))
        return basic_authorization(user, password)

    async def _exchange(self, body: bytes) -> bytes:
        if self._pace is not None:
            await self._pace.acquire()
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                told = response.status in self._error_statuses and response.content_type == "application/json"
                if response.status == 200 or told:
                    return await self._read(response)
                raise await self._bad_status(response)
        except TimeoutError:
            raise self._unusable("The node did not answer in time.") from None
        except aiohttp.ClientError as error:
            # Only the kind is told: the text of these errors may hold the URL.
            raise _Transient(
                f"The node cannot be reached ({type(error).__name__}).",
                object_id=self.name,
                remedy="Check that it runs and listens there.",
            ) from None
        except ValueError:  # its text may hold the URL, too
            raise SourceUnavailable(
                "The node's URL holds a host or credentials that cannot be sent.",
                object_id=self.name,
                remedy="Correct the network's rpc.",
            ) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, decompressed. Stops reading as soon as it is too large."""
        limit = self._limits.response_bytes_max
        if response.content_length is not None and response.content_length > limit:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise self._too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    def _decode(self, body: bytes, decoder: Decoder[ResultT]) -> ResultT:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            # JSON, but not the shape asked for. An error object of an odd shape also ends here.
            raise SourceIncomplete(
                f"The node's answer does not have the expected shape: {_printable(str(error))}.",
                object_id=self.name,
                remedy="It is asked again; look at the node or the proxy before it if this goes on.",
            ) from None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise self._unusable("The node's answer is not JSON (an error page, or cut off).") from None

    async def _bad_status(self, response: aiohttp.ClientResponse) -> SourceUnavailable:
        status = response.status
        retry_after = await pause_asked_for(response) if status in _PAUSE_STATUSES else None
        kind = SourceUnavailable
        if status in _TRANSIENT_STATUSES:
            kind = _Transient
        elif status == 401:
            kind = RpcUnauthorized
        elif 400 <= status < 500:
            kind = RpcBeyond
        reason = _REASONS.get(status, "cannot answer")
        return kind(
            f"The node {reason} (HTTP {status}).", object_id=self.name, retry_after_seconds=retry_after
        )

    def _worth_another_attempt(self, error: BaseException) -> bool:
        """A short trouble, and the node does not ask for a longer pause than we make within a call."""
        if not isinstance(error, _Transient):
            return False
        return (error.retry_after_seconds or 0) <= self._limits.retry_wait_seconds_max

    def _refused(self, what: str, failure: Failure) -> RpcRefused:
        message = failure.message[:_FOREIGN_LENGTH_MAX]
        for secret in self._secrets:  # some providers repeat the access key in their errors
            message = message.replace(secret, "[hidden]")
        return RpcRefused(self.name, what, failure.code, _printable(message))

    def _unusable(self, what: str) -> SourceUnavailable:
        return SourceUnavailable(what, object_id=self.name, remedy="It is asked again.")

    def _too_large(self) -> SourceUnavailable:
        return RpcTooLarge(
            f"The node's answer is larger than {self._limits.response_bytes_max} bytes.",
            object_id=self.name,
            remedy="Raise the network's limit if its blocks are that large.",
        )


class _Wait:
    """How long to wait before another attempt: what the node asked for, or a random growing time."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._jitter = wait_random_exponential(multiplier=0.1, max=seconds_max)

    def __call__(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after_seconds if isinstance(error, SourceUnavailable) else None
        return float(asked) if asked is not None else self._jitter(state)


def value_in(answer: msgspec.Raw | RpcRefused, kind: type[ResultT]) -> ResultT:
    """The typed value in one answer of a mixed batch. Raises RpcRefused or SourceIncomplete."""
    if isinstance(answer, RpcRefused):
        raise answer
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SourceIncomplete(
            "One of the node's answers does not have the expected shape.", remedy="It is asked again."
        ) from None


def _request(request_id: int, call: Call) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": call.method, "params": call.params}


def _printable(text: str) -> str:
    """A foreign text, cut and without control characters, fit for an error and a log line."""
    return "".join(character if character.isprintable() else " " for character in text[:_MESSAGE_LENGTH_MAX])
