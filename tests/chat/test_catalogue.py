"""The whole catalogue, answered: no figure without a row, and each sentence through the guard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finllm.chat.catalogue import NONE, answerable, catalogue
from finllm.chat.chat import Chat
from finllm.chat.intent import IntentCard
from finllm.chat.known import glossary
from finllm.chat.readers import READERS
from finllm.chat.slots import SLOTS
from finllm.chat.table import LEFT_OUT
from finllm.guardrails.grounding import NAMES, ungrounded
from finllm.tools.evidence import EvidenceTable

ROOT = Path(__file__).resolve().parents[2]
SLOT_VALUES = {
    "factor": ["OIL_WTI"], "position": ["XOM"], "source": ["hrz-navy-1"], "row": ["E61"], "sector": ["Energy"],
    "agent": ["validator"], "move": ["+60%"], "episode": ["lehman-2008"], "term": ["VIX"], "loss": ["500000"],
    "run": ["run-hawkish"], "when": ["today"],
}  # fmt: skip
_REFERENCE = re.compile(r"\[\[(\w+)(?:\.entity|\.id)?\]\]")


def test_at_least_forty_kinds_each_with_a_reader_and_many_forms() -> None:
    kinds = answerable()
    assert len(kinds) >= 40
    assert {kind.id for kind in kinds} == set(READERS)
    assert all(len(kind.forms) >= 12 for kind in kinds)
    assert all(set(kind.needs) <= set(kind.slots) <= {*SLOTS, "words"} for kind in kinds)
    assert NONE in catalogue()


def test_no_sentence_of_the_catalogue_holds_a_digit() -> None:
    for kind in answerable():
        for sentence in kind.answers.values():
            bare = _REFERENCE.sub("", sentence)
            for name in NAMES:
                bare = bare.replace(name, "")
            assert not any(one.isnumeric() for one in bare), (kind.id, sentence)


@pytest.mark.parametrize("kind", [kind.id for kind in answerable()])
@pytest.mark.parametrize("named", [True, False])
def test_every_figure_of_every_answer_is_that_of_a_row(chat: Chat, kind: str, *, named: bool) -> None:
    wanted = {slot: SLOT_VALUES[slot] for slot in catalogue()[kind].slots if slot in SLOT_VALUES} if named else {}
    reply = chat.tell(kind, wanted, confirmed=True)
    assert reply.lines
    assert reply.command
    known = {row.id for row in chat.table.rows}
    for line in reply.lines:
        assert line != LEFT_OUT
        assert _figures_without_a_row(line, chat.table.rows) == ()
    assert {id for id in re.findall(r"\[(E[0-9]+)\]", " ".join(reply.lines))
            if f"[{id}]" not in _quoted(reply.lines)} <= {row.id for row in reply.rows} <= known  # fmt: skip


def _figures_without_a_row(line: str, rows: EvidenceTable) -> tuple[object, ...]:
    return ungrounded(line, rows)


def _quoted(lines: tuple[str, ...]) -> str:
    return " ".join(re.findall(r"«[^»]*»", " ".join(lines)))


def test_the_glossary_is_the_page_s_word_for_word() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", page, re.MULTILINE))
    rows.pop("word", None)
    rows.pop("---", None)
    missing = {word for word, means in rows.items() if glossary().get(word) != means.replace("`", "")}
    assert not missing


def test_the_head_knows_the_kinds_of_the_catalogue() -> None:
    card = IntentCard.model_validate_json((ROOT / "src/finllm/chat/intent.json").read_bytes())
    assert card.kinds == tuple(catalogue()), "train it again: python -m training.chat_intent"
    assert 0 < card.answers <= card.sure < 1
