"""The demo's merchant: talks to the server over HTTP with its API key, as a real shop's server does.

Must not: reach into the server's process; what the demo shows is what the public API gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import aiohttp

from tallystick.core.errors import TallystickError

if TYPE_CHECKING:
    from types import TracebackType

REQUEST_SECONDS_MAX: Final = 15


class DemoFailed(TallystickError):
    """The demonstration did not go as it should."""

    code = "demo_failed"


class Merchant:
    """A client of the API. Use as an asynchronous context manager."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ready(self) -> bool:
        """Whether `/readyz` says so."""
        async with self._session.get(f"{self._base_url}/readyz") as response:
            return response.status == 200

    async def get(self, path: str) -> Any:
        """The object at `path`. Raises DemoFailed with the server's words."""
        async with self._session.get(f"{self._base_url}{path}") as response:
            return await self._checked(response, path)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Post, under an idempotency key as one should. Raises DemoFailed with the server's words."""
        headers = {"Idempotency-Key": str(uuid4())}
        async with self._session.post(
            f"{self._base_url}{path}", json=body or {}, headers=headers
        ) as response:
            return await self._checked(response, path)

    async def _checked(self, response: aiohttp.ClientResponse, path: str) -> Any:
        answer = await response.json(content_type=None)
        if response.status >= 400:
            detail = answer.get("detail") or answer.get("title") if isinstance(answer, dict) else None
            raise DemoFailed(f"The server answered {response.status} to {path}: {detail}")
        return answer

    async def create_invoice(
        self, order_id: str, amount: str, currency: str, expires_in: int
    ) -> dict[str, Any]:
        """An invoice payable with everything that the merchant has a wallet for."""
        wanted = {"amount": amount, "currency": currency, "order_id": order_id, "expires_in": expires_in}
        created: dict[str, Any] = await self.post("/v1/invoices", wanted)
        return created

    async def invoice(self, invoice_id: str) -> dict[str, Any]:
        """The invoice as it stands."""
        found: dict[str, Any] = await self.get(f"/v1/invoices/{invoice_id}")
        return found

    async def transitions(self, invoice_id: str) -> list[dict[str, Any]]:
        """Its history, oldest first."""
        found: list[dict[str, Any]] = (await self.get(f"/v1/invoices/{invoice_id}/transitions"))["data"]
        return found
