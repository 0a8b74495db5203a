"""Merchants and keys: what is stored, what is shown, who is let in."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest

from tallystick.core.errors import InsufficientScope, InvalidInput, NotFound, Unauthenticated
from tallystick.db.pool import Database
from tallystick.rates.source import StaticRates
from tallystick.services.context import Context
from tallystick.services.merchants import (
    Principal,
    Scope,
    authenticate,
    create_key,
    create_merchant,
    is_key,
)


@pytest.fixture
async def ctx(database_url: str) -> AsyncIterator[Context]:
    database = await Database.open(database_url)
    yield Context(database, {}, StaticRates({}), "http://x.example")
    await database.close()


async def test_a_key_is_shown_once_and_stored_as_its_hash(ctx: Context) -> None:
    async with ctx.database.transaction() as connection:
        merchant_id, key = await create_merchant(connection, ctx, "Shop")
        assert is_key(key)
        assert len(key) == len("ts_") + 32
        stored = await connection.fetchrow("SELECT * FROM api_keys")
        assert stored is not None
        assert stored["key_hash"] == hashlib.sha256(key.encode()).digest()
        assert key not in repr(dict(stored))
        principal = await authenticate(connection, key)
    assert principal.merchant_id == merchant_id
    assert principal.scopes == {"admin"}


async def test_what_is_no_key_in_force_is_not_let_in(ctx: Context) -> None:
    async with ctx.database.transaction() as connection:
        _, key = await create_merchant(connection, ctx, "Shop")
        for wrong in (
            "",
            "ts_",
            key[:-1],
            key + "a",
            key.upper(),
            " " + key,
            "ts_" + "a" * 32,
            "ts_\x00" + "a" * 31,
            "ä",
        ):
            with pytest.raises(Unauthenticated) as refused:
                await authenticate(connection, wrong)
            assert not wrong.strip() or wrong not in str(refused.value)
        await connection.execute("UPDATE api_keys SET revoked_at = now()")
        with pytest.raises(Unauthenticated):
            await authenticate(connection, key)


async def test_keys_carry_the_scopes_they_were_given(ctx: Context) -> None:
    async with ctx.database.transaction() as connection:
        merchant_id, first = await create_merchant(connection, ctx, "Shop")
        _, key = await create_key(connection, ctx, merchant_id, "shop", ["invoices:read", "invoices:read"])
        assert key != first
        assert (await authenticate(connection, key)).scopes == {"invoices:read"}
        for scopes in ([], ["everything"], ["invoices:read", "Admin"]):
            with pytest.raises(InvalidInput) as refused:
                await create_key(connection, ctx, merchant_id, "x", scopes)
            assert refused.value.problems[0].pointer == "/scopes"
        with pytest.raises(NotFound):
            await create_key(connection, ctx, "mer_" + "0" * 26, "x", ["admin"])


@pytest.mark.parametrize("name", ["", "x" * 201, "a\x00b", "line\nline", "\ud800"])
async def test_names_are_text(ctx: Context, name: str) -> None:
    async with ctx.database.transaction() as connection:
        with pytest.raises(InvalidInput):
            await create_merchant(connection, ctx, name)
        assert await connection.fetchval("SELECT count(*) FROM merchants") == 0


def test_admin_implies_every_right_and_nothing_else_implies_another() -> None:
    for held in Scope:
        principal = Principal("mer_x", "key_x", frozenset({held}))
        for wanted in Scope:
            if held in (wanted, Scope.ADMIN):
                principal.require(wanted)
            else:
                with pytest.raises(InsufficientScope):
                    principal.require(wanted)
                principal.require(wanted, held)
