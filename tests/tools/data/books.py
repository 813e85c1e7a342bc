"""Books as people have them, and what of a book that was read the tests look at."""

from __future__ import annotations

from pathlib import Path

from finllm.tools.data.books.load import ReadBook, read_book
from finllm.tools.data.books.mapping import Map
from finllm.tools.data.books.position import Position

FLEX = (
    '"ClientAccountID","CurrencyPrimary","FXRateToBase","AssetClass","SubCategory","Symbol","Description","ISIN",'
    '"UnderlyingSymbol","Multiplier","Strike","Expiry","Put/Call","ReportDate","Quantity","MarkPrice","PositionValue",'
    '"CostBasisPrice","PercentOfNAV","Side"'
)
FLEX_ROWS = (
    '"U1","USD","1","STK","COMMON","KO","COCA-COLA","US1912161007","","1","","","","20260529","500","70.5","35250","60",'
    '"10","Long"',
    '"U1","EUR","1.16","STK","COMMON","SIE","SIEMENS","DE0007236101","","1","","","","20260529","-100","250","-25000",'
    '"200","8","Short"',
    '"U1","USD","1","STK","ETF","AGG","CORE BOND ETF","US4642872265","","1","","","","20260529","40","100","4000","99",'
    '"1","Long"',
    '"U1","USD","1","OPT","P","SPY   261218P00640000","SPY 18DEC26 640 P","","SPY","100","640","20261218","P",'
    '"20260529","20","6.35","12700","9","1","Long"',
    '"U1","EUR","1.16","FUT","","FESXU6","STOXX SEP26","","ESTX50","10","","20260918","","20260529","-3","5400",'
    '"-162000","5300","20","Short"',
    '"U1","USD","1","BOND","Govt","T 4 1/4 11/15/34","US TREASURY N/B","US91282CLW90","","1","","20341115","",'
    '"20260529","250000","100.21875","250546.88","99","30","Long"',
    '"U1","EUR","1.16","CASH","","EUR","CASH","","","1","","","","20260529","1000.5","1","1000.5","","1","Long"',
)


GERMAN = (
    "Depotauszug;;;;;\nStand;29.05.2026;;;;\n\n"
    "Bezeichnung;ISIN;Stück;Kurs;Währung;Marktwert;Gattung;Fälligkeit;Kupon;Rendite\n"
    "Siemens;DE0007236101;1.000;250,50;EUR;250.500,00;Aktie;;;\n"
    "Bund 34;DE000BU2Z031;50.000;99,80;EUR;49.900,00;Anleihe;15.08.2034;2,6 %;2,63 %\n"
)


def book_of(tmp_path: Path, *lines: str, map: Map | None = None, name: str = "book.csv") -> ReadBook:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_book(path, map)


def positions_of(read: ReadBook) -> dict[str, Position]:
    return {one.id: one for one in read.portfolio.positions}


def fields_of(read: ReadBook) -> dict[str, str | None]:
    return {one.column: one.field for one in read.portfolio.columns}


def said(read: ReadBook) -> str:
    return "\n".join(read.portfolio.notes)
