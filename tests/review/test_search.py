"""Words are found in traces and sources, with their run and place; what is sought is never a query of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.desk.desk import Desk
from finllm.errors import InputError
from finllm.review.search import LONGEST, query_of, search
from tests.desks import request_for, run
from tests.graphs.test_flow import READS_WELL

MakeDesk = Callable[..., Desk]


def test_words_are_found_in_sources_and_in_the_trace_and_the_newest_run_is_named(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    request = request_for("hormuz-blockade")
    for name in ("first", "second"):
        run(request, desk, name)
    ledger, settings = desk.ledger, desk.settings
    told = search("minesweepers", ledger, settings)
    (source,) = [one for one in told.found if one.kind == "source"]
    assert (source.run, source.place, source.also) == ("second", "source hrz-navy-1", 1)
    assert [piece.text.lower() for piece in source.words if piece.hit] == ["minesweepers"]
    assert {one.kind for one in search("OIL_WTI", ledger, settings, 100).found} >= {"claims", "judged-narrative"}
    assert any(one.kind == "blocked" for one in search('"ignore previous instructions"', ledger, settings).found)
    assert not search("minesweepers nowhereatall", ledger, settings).found
    assert search("minesw*", ledger, settings).found
    settings.search_path.write_bytes(b"no database at all, and long enough to be read as one" * 40)
    assert search("minesweepers", ledger, settings).found == told.found


@given(st.text(max_size=LONGEST))
def test_what_is_sought_is_words_and_never_a_query(text: str) -> None:
    try:
        query = query_of(text)
    except InputError:
        return
    outside = "".join(query.split('"')[::2])
    assert set(outside.replace("AND", "")) <= {" ", "*"}


def test_nothing_to_seek_and_too_much_of_it_are_refused_with_their_mend() -> None:
    for text in ("", '"" *', "x" * (LONGEST + 1), "a " * 100):
        with pytest.raises(InputError) as refused:
            query_of(text)
        assert refused.value.fix
