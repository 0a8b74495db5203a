"""Every situation, brought about in a real database, is the one that the page's view names."""

from __future__ import annotations

import msgspec

from tallystick.core.invoice import Status
from tallystick.services.checkout import customer_view
from tallystick.services.checkout_situations import OF_STATUS, Situation
from tallystick.services.checkout_words import WORDS
from tests.web.scenes import SCENES
from tests.web.shop import Shop

# A network that left the configuration cannot be taken from a shop that others use: `test_words` has it.
INTERNAL = (
    "secret",
    "rfd_",
    "exc_",
    "wal_",
    "trf_",
    "pay_0",
    "0xfefe",
    "0x5e5e",
    "jo@customer",
    "margin",
    "policy",
)
NOT_BROUGHT_ABOUT = frozenset({Situation.NOT_WATCHED})


def test_no_situation_is_left_out() -> None:
    assert set(SCENES) == set(Situation) - NOT_BROUGHT_ABOUT


async def test_every_situation_is_found_and_shows_nothing_internal(shop: Shop) -> None:
    """Planted and seen to fail: the refund's reason selected and shown in place of its asset."""
    found: dict[Situation, str] = {}
    for situation, scene in SCENES.items():
        invoice = await scene(shop)
        async with shop.database.snapshot() as connection:
            view = await customer_view(connection, shop.ctx, invoice.id)
        found[situation] = view.situation
        assert Situation(view.situation) in OF_STATUS[Status(view.status)], (situation, view.status)
        assert view.phase == WORDS[Situation(view.situation)].phase.value
        shown = msgspec.json.encode(view).decode()
        for internal in INTERNAL:
            assert internal not in shown, (situation, internal)
    assert found == {situation: situation.value for situation in SCENES}
