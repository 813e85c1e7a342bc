"""What a report says of the text against the market: each factor since each day of publication, and why they differ."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.graphs.figures import Figure
from finllm.graphs.markdown import markdown_table, markdown_text
from finllm.tools.forecasts.text_market import CAUSE_WORDS

MARKET_HEADER = ("since the close before", "sources", "factor", "read", "moved by", "surprise", "verdict")
LIQUIDITY_HEADER = ("factor", "measure of the last 20 days", "it is", "days of the year before so thin", "verdict")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class MarketRow(_Frozen):
    """A factor since the close before `day`: its move, how far that was from a forecast made then, and the verdict.

    `sources` came out that day; `why` says what makes it untestable.
    """

    day: str
    sources: tuple[str, ...]
    factor: str
    read: str
    move: Figure | None
    surprise: Figure | None
    verdict: str
    why: str | None = None


class StaleSource(_Frozen):
    """Sources of a day that are stale context: `share` of the move since then came after its first days."""

    day: str
    sources: tuple[str, ...]
    share: Figure


class LiquidityRow(_Frozen):
    """Whether few trade in a factor by one measure: its `value`, and how rare that was in the year before."""

    factor: str
    measure: str
    value: Figure
    rarity: Figure | None
    verdict: str

    @property
    def shown(self) -> tuple[str, str, str, str, str]:
        """The row with its evidence ids, under `LIQUIDITY_HEADER`."""
        return self.factor, self.measure, self.value.cited, self.rarity.cited if self.rarity else "-", self.verdict


class Against(_Frozen):
    """The text against the market. `cause`: why they differ by rule, with its `reason`; `agent_cause`: the validator's.

    `liquidity`: whether few trade in the factors that did not move as told; `untested` names what no data were there
    for. `skipped` counts days of publication that were not looked at.
    """

    verdict: Literal["aligned", "diverged", "not yet", "not testable"]
    rows: tuple[MarketRow, ...]
    factors: dict[str, str]
    cause: str
    reason: str
    agent_cause: str | None
    stale: tuple[StaleSource, ...] = ()
    liquidity: tuple[LiquidityRow, ...] = ()
    untested: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def words(self) -> str:
        """The verdict with the factors that bear it, by what became of them."""
        groups: dict[str, list[str]] = {}
        for factor, verdict in self.factors.items():
            groups.setdefault(verdict, []).append(factor)
        told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in groups.items())
        return self.verdict + (f" ({told})" if told else "")

    @property
    def lines(self) -> list[str]:
        """What is said below the rows: why text and market differ, what is stale, and what was not looked at."""
        found = [self.words[0].upper() + self.words[1:] + "."]
        if self.verdict == "diverged":
            reason = f" ({self.reason})" if self.reason else ""
            known = self.cause != CAUSE_WORDS["none"]
            found.append(
                f"They differ, by rule, for: {self.cause}{reason}." if known else "No rule says why they differ."
            )
        elif self.verdict == "not yet":
            reason = f" ({self.reason})" if self.reason else ""
            known = f" By rule: {self.cause}{reason}." if self.cause != CAUSE_WORDS["none"] else ""
            found.append(f"The market has not moved beyond chance either way: it bears nothing out yet.{known}")
        elif self.verdict == "not testable" and not self.factors:
            found.append(f"There is nothing to test: {self.reason}.")
        if self.agent_cause is not None:
            found.append(f"As the validator judges, they differ for: {self.agent_cause}.")
        found += [f"Stale context: {', '.join(one.sources)} of {one.day}; {one.share.cited} of the move "
                  "since came after its first days." for one in self.stale]  # fmt: skip
        found += [f"Whether few trade is {one}." for one in self.untested]
        if self.skipped:
            found.append(f"And {self.skipped} more days of publication, between the first and the last, were left out.")
        return found

    @property
    def markdown(self) -> list[str]:
        """The lines, and below them the rows and the measures of liquidity as tables, where there are any."""
        rows = [(row.day, ", ".join(row.sources), row.factor, row.read, row.move.cited if row.move else "-",
                 row.surprise.cited if row.surprise else "-", row.verdict) for row in self.tested]  # fmt: skip
        said = [f"- {markdown_text(line)}" for line in (*self.lines, *self.untestable)]
        for header, of in ((MARKET_HEADER, rows), (LIQUIDITY_HEADER, [row.shown for row in self.liquidity])):
            said += ["", *markdown_table(header, of)] if of else []
        return said

    @property
    def tested(self) -> list[MarketRow]:
        """The rows with a verdict."""
        return [row for row in self.rows if row.move is not None]

    @property
    def first(self) -> list[MarketRow]:
        """Of these, each factor's first, whose verdict is the factor's."""
        found: dict[str, MarketRow] = {}
        for row in self.tested:
            found.setdefault(row.factor, row)
        return list(found.values())

    @property
    def untestable(self) -> list[str]:
        """Each factor that no day could be tested on, with the reason."""
        open_ = [factor for factor, verdict in self.factors.items() if verdict == "not testable"]
        whys = {row.factor: row.why for row in reversed(self.rows) if row.factor in open_}
        return [f"{factor} is not testable: {why}" for factor, why in whys.items()]
