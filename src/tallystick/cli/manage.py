"""Commands that change something small: merchants, keys, wallets, a halted network. Each is one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from tallystick.cli.common import JsonFlag, load_config, parts_of, print_object

if TYPE_CHECKING:
    from tallystick.db.sql import Connection
    from tallystick.services.context import Actor, Context

merchant: Final = App(name="merchant", help="Merchants.")
key: Final = App(name="key", help="API keys.")
wallet: Final = App(name="wallet", help="Wallets: account public keys under which customers pay.")
network: Final = App(name="network", help="Networks.")


class CreatedMerchant(msgspec.Struct, frozen=True, kw_only=True):
    """A new merchant. The key is shown this once."""

    merchant_id: str
    api_key: str


class ShownMerchant(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant and what was decided for its new invoices."""

    merchant_id: str
    name: str
    spread_bps: int
    quote_seconds: int
    grace_seconds: int
    refund_second_person: bool


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. It is shown this once."""

    key_id: str
    merchant_id: str
    scopes: list[str]
    api_key: str


class ResumedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network that is followed again."""

    name: str
    status: str


def transact(work: Callable[[Connection, Context], Awaitable[Any]]) -> Any:
    """Do `work` in one transaction on the configured database, which may be in use by a running server."""
    from tallystick.runtime import open_context, open_database, run

    settings = load_config()

    async def main(_stop: asyncio.Event) -> Any:
        async with open_database(settings) as database:
            ctx = await open_context(settings, database)
            async with database.transaction() as connection:
                return await work(connection, ctx)

    return run(main)


@merchant.command(name="create")
def create_merchant(*, name: str, json: JsonFlag = False) -> None:
    """Create a merchant with a first API key that may do everything. The key is shown this once.

    Parameters
    ----------
    name
        Shown to customers on the checkout page.
    """

    async def work(connection: Connection, ctx: Context) -> CreatedMerchant:
        from tallystick.services import merchants

        merchant_id, api_key = await merchants.create_merchant(connection, ctx, name)
        return CreatedMerchant(merchant_id=merchant_id, api_key=api_key)

    print_object(transact(work), as_json=json)


@merchant.command(name="set")
def set_merchant(
    *,
    merchant: str,  # noqa: A002, RUF100  # the option's name
    spread_bps: int | None = None,
    quote_seconds: int | None = None,
    grace_seconds: int | None = None,
    refund_second_person: bool | None = None,
    json: JsonFlag = False,
) -> None:
    """Change what holds for a merchant's new invoices, and show it. What is not given stays; so do open invoices.

    Parameters
    ----------
    merchant
        The merchant's id.
    spread_bps
        Added to amounts quoted at a rate, in 1/10,000 of them (0 to 2000): the margin against a rate that moves.
    quote_seconds
        For how long an amount is promised (60 to 86400). An invoice that is open for longer is quoted again then.
    grace_seconds
        For how long after its end a payment is still on time, without saying so (0 to 86400).
    refund_second_person
        Whether a refund needs the approval of another key or person than the one who asked for it.
    """

    async def work(connection: Connection, _ctx: Context) -> ShownMerchant:
        from dataclasses import asdict

        from tallystick.services import merchants

        new = merchants.NewSettings(spread_bps, quote_seconds, grace_seconds, refund_second_person)
        settings = await merchants.change_settings(connection, merchant, new)
        return ShownMerchant(merchant_id=merchant, **asdict(settings))

    print_object(transact(work), as_json=json)


@key.command(name="create")
def create_key(
    *,
    merchant: str,  # noqa: A002, RUF100  # the option's name
    scopes: Annotated[list[str], Parameter(consume_multiple=True)],
    name: str = "key",
    json: JsonFlag = False,
) -> None:
    """Create an API key with limited rights. The key is shown this once.

    Parameters
    ----------
    merchant
        The merchant's id.
    scopes
        Rights, such as invoices:read invoices:write webhooks:write.
    name
        What you call the key.
    """

    async def work(connection: Connection, ctx: Context) -> CreatedKey:
        from tallystick.services import merchants

        wanted = sorted(set(parts_of(scopes)))
        key_id, api_key = await merchants.create_key(connection, ctx, merchant, name, wanted)
        return CreatedKey(key_id=key_id, merchant_id=merchant, scopes=wanted, api_key=api_key)

    print_object(transact(work), as_json=json)


@wallet.command(name="add")
def add_wallet(
    *, merchant: str, account_key: str, family: str = "evm", label: str = "", json: JsonFlag = False
) -> None:
    """Register an account's public key. Compare the first addresses with your own wallet.

    Parameters
    ----------
    merchant
        The merchant's id.
    account_key
        The account's extended public key: xpub… (m/44'/60'/0' in most wallets, m/44'/195'/0' for TRON); for Bitcoin and
        Litecoin zpub…, ypub…, or an output descriptor in quotes. Never a private key.
    family
        Which networks it is for: evm, bitcoin, litecoin or tron.
    label
        What you call the wallet.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.core.errors import NotFound
        from tallystick.db import merchants
        from tallystick.services import wallets

        if await merchants.merchant_name(connection, merchant) is None:
            raise NotFound("There is no such merchant.", object_id=merchant)
        new = wallets.NewWallet(family=family, account_key=account_key, label=label)
        return await wallets.register_wallet(connection, ctx, merchant, new)

    print_object(transact(work), as_json=json)


@network.command(name="resume")
def resume_network(name: str, *, json: JsonFlag = False) -> None:
    """Follow a halted network again, after you looked into why it was halted.

    Parameters
    ----------
    name
        The network's name in the configuration.
    """

    async def work(connection: Connection, ctx: Context) -> ResumedNetwork:
        from tallystick.services import networks

        await networks.resume(connection, ctx, name)
        return ResumedNetwork(name=name, status="catching_up")

    print_object(transact(work), as_json=json)


@network.command(name="raise")
def raise_network(name: str, *, confirmations: int, note: str, json: JsonFlag = False) -> None:
    """Require more confirmations on a network: of new invoices, and of open ones of which nothing is confirmed yet.

    Never lowers a requirement. Rules that wait for the network's own word (safe, finalized) stay as they are.

    Parameters
    ----------
    name
        The network's name in the configuration.
    confirmations
        How many blocks must hold or follow a payment at least, while the raise stands.
    note
        Why. Merchants read it with each payment option that was raised.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import congestion

        return await congestion.raise_requirement(connection, ctx, operator(), name, confirmations, note)

    print_object(transact(work), as_json=json)


@network.command(name="lift")
def lift_network(name: str, *, json: JsonFlag = False) -> None:
    """End a raise: new invoices require what the rules say again. Open invoices keep what they require.

    Parameters
    ----------
    name
        The network's name in the configuration.
    """

    async def work(connection: Connection, ctx: Context) -> Any:
        from tallystick.services import congestion

        return await congestion.lift_requirement(connection, ctx, name)

    print_object(transact(work), as_json=json)


def operator() -> Actor:
    """Whoever runs the command: the name of the system's user, where it has one."""
    import getpass

    from tallystick.services.context import Actor, ActorType

    try:
        return Actor(ActorType.OPERATOR, getpass.getuser())
    except (KeyError, OSError):  # a container's user may have a number only
        return Actor(ActorType.OPERATOR)


def config() -> None:
    """Print a configuration file with every key explained, at its default."""
    import sys

    from tallystick.config import default_text

    sys.stdout.write(default_text())
