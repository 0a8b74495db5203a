"""Wallets: the account public keys under which customers pay."""

from __future__ import annotations

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from tallystick.api.answers import created
from tallystick.api.request import ApiRequest, cursor_of, path_id
from tallystick.api.requests import RegisterWallet
from tallystick.api.resources.common import ADMIN, Cursor, Limit
from tallystick.core.ids import IdKind
from tallystick.services import objects, wallets
from tallystick.services.paging import LIMIT_DEFAULT, Page


@post("/wallets", opt=ADMIN, tags=["Wallets"], operation_id="register_wallet")
async def register_wallet(request: ApiRequest, data: JSONBody[RegisterWallet]) -> Response[objects.Wallet]:
    """Register an account's public key. Compare `first_addresses` with your own wallet before taking money."""
    new = data.to_service()
    return await created(
        request,
        lambda connection: wallets.register_wallet(connection, request.ctx, request.merchant_id, new),
    )


@get("/wallets", opt=ADMIN, tags=["Wallets"], operation_id="list_wallets")
async def list_wallets(
    request: ApiRequest, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Page[objects.Wallet]:
    """Wallets, newest first."""
    below = cursor_of(IdKind.WALLET, cursor)
    async with request.ctx.database.snapshot() as connection:
        return await wallets.list_wallets(connection, request.ctx, request.merchant_id, limit, below)


@get("/wallets/{wallet_id:str}", opt=ADMIN, tags=["Wallets"], operation_id="get_wallet")
async def get_wallet(request: ApiRequest, wallet_id: FromPath[str]) -> objects.Wallet:
    """One wallet, with the next index and the gap that your own software must scan."""
    own = path_id(IdKind.WALLET, wallet_id)
    async with request.ctx.database.snapshot() as connection:
        return await wallets.get_wallet(connection, request.ctx, request.merchant_id, own)


HANDLERS = (register_wallet, list_wallets, get_wallet)
