"""What `invoice show` tells people about each state."""

from __future__ import annotations

import pytest

from tallystick.cli.inspect import standing
from tallystick.core.invoice import Status
from tallystick.core.transitions import MEANINGS
from tallystick.services.objects import NextAction
from tests.web.samples import invoice


@pytest.mark.parametrize("status", Status)
def test_every_state_says_what_it_means_who_has_it_and_what_is_next(status: Status) -> None:
    meaning = MEANINGS[status]
    action = NextAction(owner=meaning.owner, action=meaning.action, text=meaning.action_text)
    lines = standing(invoice(status, next_action=action, late_payment="refund"))
    assert lines[0].startswith(f"means: {meaning.means}")
    assert lines[1:] == [f"owner: {meaning.owner}", f"next:  {meaning.action_text}"]
    assert ("late payments: refund" in lines[0]) == (status is Status.LATE_PAID)
    assert all("\n" not in line and len(line) < 120 for line in lines)
