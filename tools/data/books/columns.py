"""Which column of a file is which field of a position, and why; what is doubtful is refused, never guessed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from finllm.errors import InputError
from finllm.tools.data.books.fields import FIELDS, OWN, plain, words
from finllm.tools.data.books.mapping import Map
from finllm.tools.data.books.symbols import is_cusip, is_isin
from finllm.tools.data.tables.cells import as_text, blank
from finllm.tools.data.tables.table import Table

REQUIRED = ("id", "currency", "asset_class")
"""The columns by which a file is known to be written in finllm's own form."""
LOOK = 200
"""Cells of a column by which its content is told."""
MOST = 0.9
"""Share of these that must agree."""
NEAR = 0.8
"""Likeness, as difflib has it, at which a name in finllm's own form counts as a misspelt one."""
SIZES = ("quantity", "market_value", "value_base", "price")
_UNITS = re.compile(r"^(?P<name>.*?)[\s_]*[(\[]?\b(?:in )?(?P<code>[A-Z]{3}|GBp)[)\]]?$")
_THOUSANDS = re.compile(
    r"[(\[]?\b(?:in )?('?000'?s?|thousands?|tsd\.?|tausend|milliers)\b[)\]]?|\((k)\)", re.IGNORECASE
)
_MILLIONS = re.compile(r"[(\[]?\b(?:in )?(mm|mln|mio\.?|millions?|millionen)\b[)\]]?|\((m)\)", re.IGNORECASE)


@dataclass(frozen=True)
class Column:
    """A column of the file: `at` its place, `field` what it is, None for a tag, and `why`.

    `unit` is the currency that its name states, `scale` what a figure is multiplied by, `percent` whether its name
    says so.
    """

    at: int
    name: str
    field: str | None
    why: str
    unit: str | None = None
    scale: float = 1.0
    percent: bool = False
    rank: int = 0


def is_known(text: str) -> bool:
    """Whether a text is the name of a column that holds a field, by which a header is found."""
    return text in OWN or plain(_bare(text)[0]) in words().fields or _by_parts(text)[0] is not None


def is_own(header: Sequence[str]) -> bool:
    """Whether a file is written in finllm's own form, in which a name near one of ours is taken for a mistake."""
    return set(REQUIRED) <= set(header)


def understand(table: Table, mapping: Map) -> list[Column]:
    """Every column of a table, by the map, by its name, else by what its cells hold; the rest are tags.

    Errors: InputError for a column that appears twice, that the map names and the file lacks, or a misspelt own one.
    """
    if problems := _problems(table.header, mapping):
        raise InputError("\n".join(f"{table.path}: row {table.header_row}: {text}" for text in problems),
                         fix="correct the header, or the map")  # fmt: skip
    named = [_by_name(table, at, name, mapping) for at, name in enumerate(table.header)]
    named = _amounts_beside(table, named)
    found = {one.field for one in named if one.field}
    return [one if one.field or one.name in mapping.columns else _by_cells(table, one, found) for one in named]


def _problems(header: Sequence[str], mapping: Map) -> list[str]:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    problems = [f"column {name!r} appears twice" for name in twice]
    problems += [
        f"the map names a column {name!r}, which the file lacks" for name in mapping.columns if name not in header
    ]
    if is_own(header):
        for name in header:
            near = difflib.get_close_matches(name.strip().lower(), OWN, 1, NEAR)
            known = name in OWN or name in mapping.columns or plain(_bare(name)[0]) in words().fields
            if name and near and not known and near[0] not in header:
                problems.append(f"column {name!r} may be {near[0]!r} or a tag of your own; rename it, or say which by "
                                f"'finllm portfolio check FILE --map MAP.yaml'")  # fmt: skip
    return problems


def _by_name(table: Table, at: int, name: str, mapping: Map) -> Column:
    if name in mapping.columns:
        field = mapping.columns[name]
        bare, unit, scale, percent = _bare(name)
        return Column(at, name, field, "by the map", unit, scale, percent)
    if name in OWN:
        return Column(at, name, name, "finllm's own column")
    levels = [line[at] for line in table.levels] if len(table.levels) > 1 else []
    for text in [name, *reversed(levels)]:
        bare, unit, scale, percent = _bare(text)
        field, rank = words().fields.get(plain(text)) or words().fields.get(plain(bare)) or _by_parts(bare)
        if field is None or (percent and FIELDS[field].percent_from is None):
            continue
        if field not in SIZES:
            return Column(at, name, field, "by its name", percent=percent, rank=rank)
        why = "by its name" + (f", in {unit}" if unit else "") + (f", in units of {scale:,.0f}" if scale != 1 else "")
        return Column(at, name, field, why, unit, scale, rank=rank)
    return Column(at, name, None, "kept as a tag" if name else "has no name: not read")


def _by_parts(text: str) -> tuple[str | None, int]:
    """The field of a name in two parts that mean one thing, such as `Qty (Quantity)` or `Shares/Par`."""
    parts = [plain(part) for part in re.split(r"[/()\[\]]", text) if part.strip()]
    found = [words().fields.get(part) for part in parts]
    if len(parts) < 2 or len({one and one[0] for one in found}) != 1 or found[0] is None:
        return None, 0
    return found[0]


def _bare(text: str) -> tuple[str, str | None, float, bool]:
    """A name without its unit: the rest, the currency and the scale that it states, and whether it says percent."""
    scale = 1000.0 if _THOUSANDS.search(text) else 1e6 if _MILLIONS.search(text) else 1.0
    rest = _MILLIONS.sub("", _THOUSANDS.sub("", text)).strip() if scale != 1 else text.strip()
    unit = None
    match = _UNITS.match(rest)
    if match and match["name"].strip(" _([") and match["code"] in words().currencies:
        rest, unit = match["name"].strip(" _(["), match["code"]
    percent = "%" in rest or bool(re.search(r"\b(?:pct|percent|prozent)\b", rest, re.IGNORECASE))
    return rest, unit, scale, percent


def _amounts_beside(table: Table, named: Sequence[Column]) -> list[Column]:
    """The columns, where one named as a size holds currencies and the one beside it, without a name, the amounts, as in
    Degiro's list."""
    found = list(named)
    for one, beside in pairwise(named):
        if one.field not in SIZES or beside.name:
            continue
        texts = list(islice((as_text(row[one.at]) for row in table.rows if not blank(row[one.at])), LOOK))
        if texts and sum(text in words().currencies for text in texts) >= MOST * len(texts):
            found[one.at] = Column(one.at, one.name, "currency", "its cells are currencies")
            found[beside.at] = Column(beside.at, one.name, one.field, f"the amounts beside {one.name!r}", rank=one.rank)
    return found


def _by_cells(table: Table, column: Column, found: set[str]) -> Column:
    """What the cells of a column alone tell: ISINs, CUSIPs, currencies, classes of assets. Figures tell nothing."""
    if not column.name and not any(row[column.at] is not None for row in table.rows[:LOOK]):
        return column
    texts = list(islice((as_text(row[column.at]) for row in table.rows if not blank(row[column.at])), LOOK))
    checks = (
        ("isin", "its cells are ISINs", is_isin), ("cusip", "its cells are CUSIPs", is_cusip),
        ("currency", "its cells are currencies", lambda text: text in words().currencies),
        ("asset_class", "its cells are classes of assets", lambda text: plain(text) in words().asset_classes),
    )  # fmt: skip
    for field, why, holds in checks:
        account = field == "asset_class" and {plain(text) for text in texts} <= {
            "cash",
            "margin",
        }  # its kind, not assets
        if field not in found and texts and not account and sum(map(holds, texts)) >= MOST * len(texts):
            found.add(field)
            return Column(column.at, column.name, field, why)
    return column


def by_field(columns: Sequence[Column]) -> dict[str, list[Column]]:
    """The columns of each field, the preferred one first."""
    found: dict[str, list[Column]] = {}
    for column in columns:
        if column.field is not None:
            found.setdefault(column.field, []).append(column)
    return {field: sorted(some, key=lambda one: one.rank) for field, some in found.items()}
