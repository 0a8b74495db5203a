"""The documentation says what is true: links lead somewhere, names exist, examples run, generated pages are current."""

from __future__ import annotations

import importlib
import re
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import pytest

from tallystick.core.cases import DERIVED, CaseKind, Resolution
from tallystick.core.invoice import PaymentStatus, Status
from tallystick.core.ledger import EntryKind
from tallystick.core.refund import RefundRule
from tallystick.core.transitions import Reason, diagram
from tools import endings_doc, exceptions_doc, ledger_doc, networks_doc, plants, refunds_doc
from tools.states_doc import PAYMENTS, REASONS, TARGET, render

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
ADRS = sorted(DOCS.glob("adr/[0-9]*.md"))
ROOMS = ("core", "db", "chains", "rates", "services", "workers", "api", "web", "cli")
CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_states_are_those_of_the_table() -> None:
    """After a change of the table: `python -m tools.states_doc`. Planted bug seen to fail: an edge removed in core."""
    assert text_of(TARGET) == render()
    assert diagram() in text_of(TARGET)


def test_the_table_of_endings_is_that_of_the_code() -> None:
    """After a change of meanings, words or exceptions: `python -m tools.endings_doc`.

    Planted and seen to fail: a headline, an owner and the rule for a late exception changed in the code, each alone.
    """
    readme = text_of(endings_doc.TARGET)
    assert readme.count(endings_doc.BEGIN) == readme.count(endings_doc.END) == 1
    assert endings_doc.written(readme) == readme


def test_the_table_of_endings_has_every_ending_and_every_exception() -> None:
    """What is not in the table is still on its way; and no kind of exception goes unmentioned."""
    moving = {"created", "quoted", "awaiting_payment", "detected", "partially_paid", "confirming"}
    assert {status.value for status in Status} - moving == {status.value for status in endings_doc.ENDINGS}
    table = endings_doc.render()
    assert [kind for kind in CaseKind if f"`{kind}`" not in table] == []
    found = endings_doc.exceptions_of()
    assert set().union(*found.values()) == DERIVED
    # What the public contract says about them.
    assert CaseKind.LATE in found[Status.UNDERPAID]
    assert CaseKind.LATE in found[Status.LATE_PAID]
    assert found[Status.EXPIRED] == {CaseKind.UNSUPPORTED_TOKEN}
    assert all(CaseKind.UNSUPPORTED_TOKEN in found[status] for status in endings_doc.ENDINGS)


def test_the_exceptions_are_those_of_the_guides() -> None:
    """After a change of the guides: `python -m tools.exceptions_doc`. Planted bug seen to fail: an owner changed."""
    assert text_of(exceptions_doc.TARGET) == exceptions_doc.render()
    assert set(exceptions_doc.RESOLUTIONS) == set(Resolution)
    assert set(exceptions_doc.OPENED) == set(CaseKind) - DERIVED


def test_the_networks_are_those_of_the_presets() -> None:
    """After a change of `presets.toml`: `python -m tools.networks_doc`. Planted bug seen to fail: a depth changed."""
    page = text_of(networks_doc.TARGET)
    assert networks_doc.written(page) == page


def test_the_books_are_those_of_the_tables() -> None:
    """After a change of `core.ledger` or `core.books`: `python -m tools.ledger_doc`.

    Planted bug seen to fail: another account for underpaid money.
    """
    assert text_of(ledger_doc.TARGET) == ledger_doc.render()
    assert set(ledger_doc.KINDS) == set(EntryKind)


def test_the_refunds_are_those_of_the_table() -> None:
    """After a change of `core.refund`: `python -m tools.refunds_doc`. Planted bug seen to fail: an edge removed."""
    assert text_of(refunds_doc.TARGET) == refunds_doc.render()
    assert set(refunds_doc.RULES) == set(RefundRule)


def test_the_planted_bugs_and_the_rules_are_those_of_the_code() -> None:
    """After a change of rules, plants or their seeds: `python -m tools.plants`. Planted bug seen to fail: a rule's
    sentence changed."""
    page = text_of(plants.TARGET)
    for begin, end in (plants.BUGS, plants.RULES_TABLE):
        assert page.count(begin) == page.count(end) == 1
    assert plants.written(page) == page


def test_every_reason_and_payment_status_is_explained() -> None:
    assert set(REASONS) == set(Reason)
    assert set(PAYMENTS) == set(PaymentStatus)


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere. Links to other sites are not followed."""
    broken = []
    for target in LINK.findall(CODE_BLOCK.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors_of(text_of(found))):
            broken.append(target)
    return broken


def anchors_of(text: str) -> set[str]:
    """The anchors that headings get where Markdown is shown."""
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, text_of(page)) == []


def test_a_broken_link_would_be_noticed() -> None:
    page = DOCS / "architecture.md"
    text = "[a](nowhere.md) [b](glossary.md) [c](glossary.md#nothing) [d](glossary.md#glossary) [e](https://x.test/)"
    assert broken_links(page, text) == ["nowhere.md", "glossary.md#nothing"]


def exists(dotted: str) -> bool:
    """Whether `core.chain.Anchor` and the like name a module of ours or something in it."""
    words = dotted.split(".")
    for length in range(len(words), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["tallystick", *words[:length]]))
        except ModuleNotFoundError:
            continue
        for word in words[length:]:
            if not hasattr(found, word) and word not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, word, None)
        return True
    return False


def schema() -> str:
    folder = resources.files("tallystick.db").joinpath("migrations", "sql")
    return "\n".join(path.read_text(encoding="utf-8") for path in folder.iterdir())


def tables() -> dict[str, str]:
    """Table to the text of its definition."""
    return dict(re.findall(r"^CREATE TABLE (\w+) \((.*?)^\);", schema(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=name_of)
def test_code_that_is_named_exists(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(ROOMS)})(?:\.\w+)+)`", text_of(page))
    assert [name for name in named if not exists(name)] == []


def test_the_glossary_points_to_code_and_columns_that_exist() -> None:
    rows = re.findall(r"^\| \*\*.*\| (?:`([^`]+)`)? ?\|$", text_of(DOCS / "glossary.md"), re.MULTILINE)
    places = [place for place in rows if place]
    assert len(places) > 30
    known = tables()
    for place in places:
        first, _, rest = place.partition(".")
        if first in known:
            assert not rest or re.search(rf"^    {rest}\s", known[first], re.MULTILINE), place
        elif first in ROOMS:
            assert exists(place), place
        else:
            assert any(exists(f"{module}.{place}") for module in CORE_MODULES), place


CORE_MODULES = ("core.invoice", "core.chain", "core.assess", "core.network", "services.intake")


def test_the_glossary_has_every_word_of_the_house() -> None:
    text = text_of(DOCS / "glossary.md")
    words = [
        *(
            "invoice",
            "payment option",
            "quote",
            "transfer",
            "anchor",
            "confirmation policy",
            "transition",
            "evidence",
        ),
        *("ledger entry", "posting", "settlement batch", "refund", "dispute", "reconciliation"),
        *("webhook endpoint", "event", "delivery"),
    ]
    assert [word for word in words if f"**{word}**" not in text] == []
    defined = re.findall(r"\*\*([^*]+)\*\*", text)
    assert len(defined) == len(set(defined))


@pytest.mark.parametrize("adr", ADRS, ids=name_of)
def test_a_decision_names_its_options_and_its_price_on_one_page(adr: Path) -> None:
    text = text_of(adr)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Context", "Options", "Decision", "Drawbacks"]
    assert len(text.splitlines()) <= 60
    assert re.match(rf"# {adr.name[:4]} \S", text)
    assert f"]({adr.name})" in text_of(DOCS / "adr" / "README.md")


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(adr.name[:4]) for adr in ADRS] == list(range(1, len(ADRS) + 1))


RUNNABLE = [
    (page, number, block)
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python runnable\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize(("page", "number", "block"), RUNNABLE, ids=[f"{p.name}-{n}" for p, n, _ in RUNNABLE])
def test_examples_run(page: Path, number: int, block: str) -> None:
    """Blocks marked `python runnable` run as they stand."""
    exec(compile(block, f"{page.name}, example {number}", "exec"), {"__name__": "example"})


def test_there_are_examples_to_run() -> None:
    assert RUNNABLE
