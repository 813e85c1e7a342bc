"""A new kind of backend is one file and one line of the registry, here shown by a throw-away one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from finllm.desk.desk import open_desk
from finllm.desk.inventory import configured
from finllm.errors import BackendError
from finllm.events import Event, EventBus, Noted
from finllm.scheduler.backends.joined import Joined, join, joined
from finllm.scheduler.backends.kind import Opening, Site
from finllm.scheduler.backends.registry import KINDS, open_backends
from finllm.scheduler.decoding.template import Choose, Force
from finllm.scheduler.money.account import Account, Spent
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.money.tariff import Tariff
from finllm.scheduler.placement.task import Prompt, Task
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.conftest import bounded

TEMPLATE = (Force('{"oil":"'), Choose("oil", ("up", "down")), Force('"}'))
TASK = Task("narrative", "reading", Prompt("s", "Hormuz is closed."), "1", TEMPLATE, "Q4_0", 60.0, 0)


class ThrowAway:
    """Servers that `finllm nodes add --kind throw-away` would join."""

    name = "throw-away"

    def sites(self, settings: Settings) -> Iterable[Site]:
        return map(self.site, joined(settings, self.name))

    def site(self, node: Joined) -> Site:
        backend = ScriptedBackend(
            [{"when": "Hormuz", "say": {"oil": "up"}}], name=node.name, tier=node.tier, precision=node.precision,
            kind=self.name, where="remote", link=0.02, tariff=node.tariff, stronger=True,
        )  # fmt: skip
        return Site(backend.offer, node.url, lambda opening: backend)


class Away:
    """A kind none of whose backends can be reached."""

    name = "away"

    def sites(self, settings: Settings) -> Iterable[Site]:
        def fail(opening: Opening) -> ScriptedBackend:
            raise BackendError("it is away", fix="start it")

        return [Site(ScriptedBackend([], kind=self.name).offer, "nowhere", fail)]


@pytest.fixture
def only_throw_away() -> Iterator[None]:
    """The registry, one line longer, and without the kinds that load models."""
    before = KINDS[:]
    KINDS[:] = [ThrowAway()]
    yield
    KINDS[:] = before


@pytest.mark.usefixtures("only_throw_away")
def test_a_new_kind_is_opened_placed_priced_and_recorded_with_no_other_file_touched(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, usd_per_kwh=0.3)
    node = Joined(name="mine", kind="throw-away", url="http://x", usd_per_mtok=(2.0, 10.0))
    join(settings, node)
    assert [(row["name"], row["kind"], row["runs"]) for row in configured(settings)] == [
        ("mine", "throw-away", "remote")
    ]
    with open_desk(settings, EventBus()) as desk:
        account = Account(Budget(), lambda: 0.0)
        answer = bounded(desk.broker.run(TASK, account, run_id="run"))
        assert (answer.text, answer.offer.kind) == ('{"oil":"up"}', "throw-away")
        entry = desk.ledger.lookup(answer.key)
        assert entry is not None
        offer, spent = entry.request["offer"], Spent.from_json(entry.response["spent"])
        assert (offer["kind"], offer["where"], offer["tariff"]["per_million_output"]) == ("throw-away", "remote", 10.0)
        usd = entry.response["prompt_tokens"] * 2e-6 + entry.response["output_tokens"] * 10e-6
        assert spent.of("usd") == pytest.approx(usd)
        assert spent.joules is not None
        assert spent.joules.provenance == "table", "nobody here meters what a server draws"
        assert "2 and 10 USD per million tokens" in (spent.usd.basis if spent.usd else "")
        assert desk.broker.costing.tariffs == {"mine": Tariff(None, 2.0, 10.0)}
        assert desk.escalating, "a stronger model is behind, so doubtful answers go there"


def test_what_cannot_be_reached_is_noted_and_the_rest_is_opened(tmp_path: Path) -> None:
    settings, noted = Settings(home=tmp_path), list[Event]()
    join(settings, Joined(name="mine", kind="throw-away", url="http://x"))
    KINDS.append(ThrowAway())
    try:
        with contextlib.ExitStack() as closing:
            opening = Opening(settings, EventBus(noted.append), closing)
            backends = open_backends(opening, [Away(), ThrowAway(), ThrowAway()])
    finally:
        KINDS.pop()
    assert [backend.offer.name for backend in backends] == ["mine"]
    told = [event.message for event in noted if isinstance(event, Noted)]
    assert told == [
        "without the edge backend at nowhere: it is away; start it",
        "without the deep backend at http://x: 'mine' is there already",
    ]


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
