"""The deadline in chain time, to the second, whenever it is read.

Cites R-INV 9, R-CHAIN 7, 10, design idea 6. `VERDICTS` says what is true; `test_windows` has each rule on its own.
"""

from __future__ import annotations

import pytest

from tallystick.core.invoice import LatePayment
from tests.support.endings import open_world
from tests.support.stand import Clock

DOWN_SECONDS = 600

VERDICTS = {
    "a second before": ("paid", [True]),
    "on the second": ("paid", [True]),
    "a second after": ("late_paid", [False]),
    "a second after, accepted by rule": ("paid", [False]),
    "a second after, refunded by rule": ("late_paid", [False]),
    "half before, half after": ("late_paid", [False, True]),
    "half before, half on the second": ("paid", [True, True]),
    "half before": ("underpaid", [True]),
    "never": ("expired", []),
}
"""What is true however late it is read: the status, and which payments are on time."""


@pytest.mark.parametrize("down", [False, True], ids=["read at once", "read ten minutes late"])
@pytest.mark.parametrize("grace_seconds", [0, 30])
async def test_the_deadline_is_the_chains_to_the_second(
    database_url: str, grace_seconds: int, down: bool
) -> None:
    """Evidenced in a block one second before, on, and one second after the deadline, the follower up or down.

    While it is down our clock passes the deadline by far and the expirer runs: nothing is judged before it was read.

    Planted: `<` for `<=` in the verdict; the window ended by our clock (underpaid before the second half is read);
    grace forgotten.
    """
    async with open_world(database_url) as world:
        await world.give_grace(grace_seconds)
        rules = {
            "a second after, accepted by rule": LatePayment.ACCEPT,
            "a second after, refunded by rule": LatePayment.REFUND,
        }
        made = {
            name: await world.invoice(late_payment=rules.get(name, LatePayment.REVIEW)) for name in VERDICTS
        }
        deadline = int(made["never"].expires_at.timestamp()) + grace_seconds
        halves = [name for name in VERDICTS if name.startswith("half before")]
        blocks = {
            -1: {"a second before": "0.01"} | dict.fromkeys(halves, "0.005"),
            0: {"on the second": "0.01", "half before, half on the second": "0.005"},
            1: {name: "0.01" for name in VERDICTS if name.startswith("a second after")}
            | {"half before, half after": "0.005"},
        }
        for seconds, payments in blocks.items():
            for name, amount in payments.items():
                await world.send(made[name], amount)
            await world.mine_at(deadline + seconds)
            if not down:
                await world.stand.follow()
                await world.stand.expire()
        if down:
            await world.chains["local"].mine_many(20, interval_seconds=DOWN_SECONDS // 20)
            world.clock.at = Clock.of(deadline + DOWN_SECONDS).at
            assert await world.stand.expire() == 0
            assert {await world.stand.status(one) for one in made.values()} == {"awaiting_payment"}
            await world.stand.restart()
        await world.mine()
        await world.stand.expire()
        seen = {name: await world.stand.get(one) for name, one in made.items()}
        assert {
            name: (one.status, sorted(payment.on_time for payment in one.payments))
            for name, one in seen.items()
        } == VERDICTS
        ended = {
            name for name in VERDICTS if {"expired", "underpaid"} & set(await world.stand.way(made[name]))
        }
        assert ended == {name for name, one in seen.items() if one.status != "paid"} | {
            "a second after, accepted by rule"
        }


async def test_a_sighting_in_time_is_kept_while_the_follower_is_down(database_url: str) -> None:
    """Both are mined ten minutes after the deadline. One was seen a second before it; the other was there, unseen.

    Planted: the time of the newest block that holds it kept as its first evidence; both are late.
    """
    async with open_world(database_url) as world:
        seen, unseen = await world.invoice(), await world.invoice()
        deadline = int(seen.expires_at.timestamp())
        await world.send(seen)
        world.clock.at = Clock.of(deadline - 1).at
        await world.stand.follow()
        await world.send(unseen)
        assert [await world.stand.status(one) for one in (seen, unseen)] == ["detected", "awaiting_payment"]
        await world.mine_at(deadline + DOWN_SECONDS)
        world.clock.at = Clock.of(deadline + DOWN_SECONDS).at
        await world.stand.restart()
        await world.mine()
        await world.stand.expire()
        assert await world.stand.status(seen) == "paid"
        assert await world.stand.status(unseen) == "late_paid"
        assert [
            payment.on_time for one in (seen, unseen) for payment in (await world.stand.get(one)).payments
        ] == [True, False]
