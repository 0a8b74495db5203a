"""Refunds from the command line: listed, shown with their history, decided by an operator."""

from __future__ import annotations

from tests.cli.processes import run
from tests.support.app import mine_by_hand, running_api

WEI = 10**16  # what 25.00 USD asks


async def test_an_operator_looks_decides_and_makes_a_link(database_url: str) -> None:
    settings = {"TALLYSTICK_DATABASE_URL": database_url}
    async with running_api(database_url) as api:
        merchant = await api.merchant()
        client = api.client(merchant.key)
        asked = []
        for number in range(2):
            invoice = await client.invoice()
            await api.pay(invoice, WEI, blocks_more=2, nonce=number)
            body = {"invoice_id": invoice["id"], "rule": "received", "reason": "returned"}
            asked.append((await client.post("/v1/refunds", body, key=f"refund-{number}")).json())
        await mine_by_hand(api.ctx, "ethereum")
        first, second = (one["id"] for one in asked)
        listed = (await run("refund", "list", "--json", **settings)).object["data"]
        assert [one["id"] for one in listed] == [second, first]
        approved = (await run("refund", "approve", first, "--note", "seen", "--json", **settings)).object
        assert (approved["status"], approved["approved_by"]["type"]) == ("approved", "operator")
        linked = (await run("refund", "claim-link", first, "--json", **settings)).object
        assert linked["claim_url"].partition("?token=")[0].endswith(f"/r/{first}")
        assert linked["claim_url"] != asked[0]["claim_url"]
        rejected = await run("refund", "reject", second, "--note", "no", **settings)
        assert rejected.code == 0
        assert "rejected" in rejected.out
        shown = (await run("refund", "show", second, "--json", **settings)).object
        assert [step["to"] for step in shown["transitions"]] == ["requested", "rejected"]
        assert shown["transitions"][-1]["reason"] == "no"
        assert second in (await run("refund", "list", "--status", "rejected", **settings)).out
        for arguments in (("approve", second), ("show", "rfd_none"), ("list", "--status", "lost")):
            refused = await run("refund", *arguments, **settings)
            assert refused.code == 1
            assert refused.err.count("\n") == 1
