"""The fields of a position that a column of a file may hold, and the words by which columns and cells are known."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from finllm.tools.data.books.position import AssetClass

Kind = Literal["text", "number", "day"]


@dataclass(frozen=True)
class Field:
    """What a column holds. `low` and `high` bound a number. Typical figures from `percent_from` on are percent.

    `many`: several columns may be it, of which the first that is filled counts; else they must not disagree.
    """

    kind: Kind = "text"
    low: float = -1e15
    high: float = 1e15
    percent_from: float | None = None
    many: bool = False


_NUMBER = Field("number")
FIELDS: dict[str, Field] = {
    "id": Field(many=True), "ticker": Field(many=True), "isin": Field(many=True), "cusip": Field(many=True),
    "sedol": Field(many=True), "figi": Field(many=True), "code": Field(many=True), "name": Field(many=True),
    "quantity": _NUMBER, "market_value": _NUMBER, "value_base": _NUMBER, "price": _NUMBER, "priced_on": Field("day"),
    "currency": Field(), "base_currency": Field(), "fx": Field("number", 1e-9, 1e9), "asset_class": Field(),
    "subclass": Field(many=True), "sector": Field(many=True), "side": Field(), "underlying": Field(many=True),
    "option_type": Field(), "exercise": Field(), "strike": _NUMBER, "expiry": Field("day"),
    "multiplier": Field("number", 1e-9, 1e9), "volatility": Field("number", 0, 3, percent_from=3),
    "coupon": Field("number", -0.1, 0.5, percent_from=0.3), "maturity": Field("day"),
    "frequency": Field("number", 0, 12), "day_count": Field(), "yield": Field("number", -0.1, 0.5, percent_from=0.3),
    "duration": Field("number", 0, 100),
    "convexity": Field("number", -100, 5000), "beta": Field("number", -20, 20), "delta": _NUMBER, "gamma": _NUMBER,
    "vega": _NUMBER,
}  # fmt: skip
OWN = (
    "id", "name", "quantity", "market_value", "currency", "asset_class", "sector", "duration", "convexity", "beta",
    "delta", "gamma", "vega", "underlying", "option_type", "exercise", "strike", "expiry", "multiplier", "volatility",
    "coupon", "maturity", "frequency", "day_count", "yield", "price", "priced_on", "fx", "isin",
)  # fmt: skip
"""finllm's own columns."""
IDENTIFIERS = ("id", "ticker", "isin", "cusip", "sedol", "figi", "code", "name")
"""What names a position, in the order of preference."""


@dataclass(frozen=True)
class Words:
    """`synonyms.yaml`, its texts as `plain` makes them."""

    fields: dict[str, tuple[str, int]]
    asset_classes: dict[str, AssetClass]
    yellow_keys: dict[str, AssetClass]
    sides: dict[str, int]
    sectors: frozenset[str]
    government_classes: frozenset[str]
    government_names: tuple[str, ...]
    totals: frozenset[str]
    currencies: frozenset[str]


def _yaml(name: str) -> dict[str, Any]:
    return yaml.load(Path(__file__).with_name(name).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


@cache
def words() -> Words:
    data: dict[str, Any] = _yaml("synonyms.yaml")
    return Words(
        fields={
            plain(name): (field, rank) for field, names in data["fields"].items() for rank, name in enumerate(names)
        },
        asset_classes={plain(word): kind for kind, names in data["asset_classes"].items() for word in names},
        yellow_keys=data["yellow_keys"],
        sides={word: 1 if side == "long" else -1 for side, names in data["sides"].items() for word in names},
        sectors=frozenset(map(plain, data["sectors"])),
        government_classes=frozenset(map(plain, data["governments"]["classes"])),
        government_names=tuple(f"{plain(name)} " for name in data["governments"]["names"]),
        totals=frozenset(map(plain, data["totals"])),
        currencies=frozenset(data["currencies"]),
    )


_RUN_TOGETHER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_SIGNS = re.compile(r"[^a-z0-9]+")


@cache
def plain(text: str) -> str:
    """A name for comparison: `MarkPrice`, `Mark-Price` and `mark price` are one; accents and signs do not count."""
    apart = _RUN_TOGETHER.sub(" ", text.replace("ß", "ss"))
    bare = unicodedata.normalize("NFKD", apart).encode("ascii", "ignore").decode()
    return _SIGNS.sub(" ", bare.lower()).strip()


@cache
def is_government(text: str) -> bool:
    """Whether a class, a sector, a Bloomberg ticker or a bond's name tells that a government owes it.

    The ticker `T` alone does not: it is the Treasury's and AT&T's.
    """
    bare = plain(text)
    known = words()
    return bare in known.government_classes or bare.endswith(" govt") or f"{bare} ".startswith(known.government_names)


@cache
def contracts() -> dict[str, Any]:
    """`contracts.yaml`: units of the underlying in one contract, by the root of its symbol."""
    return _yaml("contracts.yaml")
