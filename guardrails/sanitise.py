"""Sanitising: what an agent may read of a source. Whatever is taken out is put on record, with its place."""

from __future__ import annotations

import datetime as dt
import html
import re
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.guardrails.edited_text import Traced
from finllm.guardrails.injection import RULES_PATH, find_injections
from finllm.guardrails.later_dates import later_dates
from finllm.made_by import made_by
from finllm.tools.data.scenario import SourceText

RemovalKind = Literal["control", "markup", "template", "injection", "lookahead"]
"""`control`: characters that a reader does not see; `markup`: HTML and links; `template`: tokens of chat templates;
`injection`: a sentence that speaks to a model instead of to a reader; `lookahead`: one about days after as_of."""


class Removal(BaseModel):
    """Something taken out: characters `start` to `end` of the source's own text, and by which rule."""

    model_config = ConfigDict(frozen=True)

    start: int
    end: int
    kind: RemovalKind
    rule: str
    excerpt: str


class Sanitised(BaseModel):
    """What an agent may read of source `id`. Where it is `refused`, that is nothing, and `refused` says why."""

    model_config = ConfigDict(frozen=True)

    id: str
    text: str
    removed: tuple[Removal, ...]
    refused: str | None = None


class SanitisedSource(BaseModel):
    """A source's text, and its names with what was taken out of each."""

    model_config = ConfigDict(frozen=True)

    text: Sanitised
    names: dict[str, tuple[str, tuple[Removal, ...]]]


_EXCERPT = 200
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_TAGS = (
    r"a|abbr|address|article|aside|audio|b|base|blockquote|body|br|button|canvas|caption|center|cite|code|col|colgroup|dd|"
    r"del|details|dialog|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|h[1-6]|head|header|hr|html|i|"
    r"iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|math|meta|nav|noscript|object|ol|optgroup|option|p|param|"
    r"picture|pre|q|samp|script|section|select|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|"
    r"template|textarea|tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr"
)
_MARKUP: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("script", re.compile(r"<(script|style|template|noscript)\b[^>]*>.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)),
    ("comment", re.compile(r"<!--.*?(?:-->|\Z)|<!doctype[^>]*>|<\?xml[^>]*>", re.DOTALL | re.IGNORECASE)),
    ("tag", re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]{{0,2000}}=[^<>]{{0,2000}}|\s*)/?>", re.IGNORECASE)),
    (
        "link",
        re.compile(r"!?\[(?P<text>[^\[\]]{0,500})\]\(\s*<?[^()\s]{1,2000}>?(?:\s+[\"'][^\"']{0,500}[\"'])?\s*\)"),
    ),
)
_SHORT_TAG = 20
_BREAKS = "\r\x0b\x0c\x85\u2028\u2029"
_FILLERS = re.compile("[\u034f\u115f\u1160\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_ROLES = r"system|user|assistant|tool|developer|model"
_TEMPLATE = re.compile(
    rf"(?P<opens><\|(?:im_start|start_header_id|{_ROLES})\|>(?:\s*(?:{_ROLES})\b(?:<\|end_header_id\|>)?\s*:?)?"
    r"|\[(?:INST|SYS|SYSTEM|SYSTEM_PROMPT)\]|<<\s*SYS\s*>>|<start_of_turn>(?:\s*(?:user|model)\b)?"
    r"|^[ \t]*#{2,4}[ \t]*(?:system|instructions?|assistant|user|human|response|input)(?: (?:prompt|message))?[ \t]*:"
    r"|^[ \t]*(?:system|assistant|developer)(?: (?:prompt|message))?[ \t]*:(?=[ \t]*\S)"
    r"|<(?:system|assistant|developer|instructions?|system[_-]prompt|tool_call|function_call)>)"
    r"|<\|[A-Za-z0-9_ .-]{1,40}\|>|\[/(?:INST|SYS|SYSTEM|SYSTEM_PROMPT)\]|<<\s*/\s*SYS\s*>>|</?s>"
    r"|</(?:system|assistant|developer|instructions?|system[_-]prompt|tool_call|function_call)>"
    r"|\[\[\s*E\d+\s*\]\]"  # the report's own references to evidence
    r"|<(?:bos|eos|pad|unk|end_of_turn|/?think|/?tool_response)>",
    re.IGNORECASE | re.MULTILINE,
)
_SPACE = re.compile(r"[^\S\n]+|\n\s*\n\s*")
_SENTENCE_END = re.compile(r"(?:[.!?][\"'”’)\]]*(?=\s+[\"'“‘(\[]?[^\sa-z])|[。！？]|\n)\s*")


def sanitise(source: SourceText, as_of: dt.date, longest: int = 100_000) -> Sanitised:
    """What an agent may read of `source` on `as_of` (the end of that day, UTC).

    The text comes back in NFKC with white space collapsed, without invisible characters, markup, chat-template tokens,
    instruction-like sentences and those that tell of days after `as_of`. `removed` is ordered by place; its offsets are
    those of `source.text`. A text that is longer than `longest` in that form is refused.
    """
    if source.published_at.astimezone(dt.UTC).date() > as_of:
        return Sanitised(id=source.id, text="", removed=(), refused="published after as_of")
    grown = len(unicodedata.normalize("NFKC", source.text))
    if grown > longest:  # one sign may stand for eighteen, so that a short text is a long one to read
        why = f"{grown} characters once its signs are plain, and the setting text_longest allows {longest}"
        return Sanitised(id=source.id, text="", removed=(), refused=why)
    text, removed = _readable(source.text, as_of)
    return Sanitised(id=source.id, text=text, removed=removed, refused=None if text else "nothing left to read")


def read_traced(text: str, as_of: dt.date) -> tuple[Traced, tuple[Removal, ...]]:
    """What `sanitise` leaves of a source's text, each character with its place in the text, and what was taken out."""
    traced, removed = _cleaned(text, as_of)
    stripped = traced.text.strip()
    lead = len(traced.text) - len(traced.text.lstrip())
    end = lead + len(stripped)
    return Traced(stripped, traced.starts[lead:end], traced.ends[lead:end]), removed


def sanitise_name(name: str) -> tuple[str, tuple[Removal, ...]]:
    """What an agent may read of a name that came from outside, on one line, and what was taken out of it.

    A name that speaks to a model is all instruction, whatever else is in it: nothing of it is left.
    """
    text, removed = _readable(name)
    spoken = find_injections(" ".join(re.split(r"[\W_]+", name)))  # also where words are joined, as in an id
    if spoken and not any(item.kind == "injection" for item in removed):
        record = list(removed)
        _record(record, name, (0, len(name)), "injection", spoken[0].rule)
        removed = tuple(record)
    refused = any(item.kind in ("injection", "template") for item in removed)
    return ("" if refused else " ".join(text.split()), removed)


def sanitise_source(source: SourceText, as_of: dt.date, longest: int) -> SanitisedSource:
    """`sanitise` of its text, and `sanitise_name` of its publisher and id."""
    names = {"publisher": sanitise_name(source.publisher), "id": sanitise_name(source.id)}
    return SanitisedSource(text=sanitise(source, as_of, longest), names=names)


def _readable(original: str, as_of: dt.date | None = None) -> tuple[str, tuple[Removal, ...]]:
    """A text from outside without what no agent may read, and what was taken out; dates are looked at with `as_of`."""
    traced, removed = _cleaned(original, as_of)
    return traced.text.strip(), removed


def _cleaned(original: str, as_of: dt.date | None) -> tuple[Traced, tuple[Removal, ...]]:
    removed: list[Removal] = []
    traced = _without_controls(Traced.of(original), original, removed)
    traced = _without_controls(_unescaped(traced).nfkc(), original, removed)
    traced, turns = _without_templates(traced, original, removed)
    traced = _without_markup(traced, original, removed)
    traced = _without_injections(traced, turns, original, removed)
    if as_of is not None:
        traced = _without_later_dates(traced, as_of, original, removed)
    traced = traced.substitute(_SPACE, lambda match: "\n\n" if "\n" in match[0] else " ")
    return traced, tuple(sorted(removed, key=lambda item: (item.start, item.end, item.kind)))


def _record(removed: list[Removal], original: str, span: tuple[int, int], kind: RemovalKind, rule: str) -> None:
    start, end = span
    excerpt = "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in original[start:end])
    if len(excerpt) > _EXCERPT:
        excerpt = f"{excerpt[:_EXCERPT]}…"
    removed.append(Removal(start=start, end=end, kind=kind, rule=rule, excerpt=excerpt))


def _unescaped(traced: Traced) -> Traced:
    """HTML entities as the characters they stand for, to the third level of escaping."""
    for _ in range(3):
        unescaped = traced.substitute(_ENTITY, lambda match: html.unescape(match[0]))
        if unescaped is traced:
            break
        traced = unescaped
    return traced


def _without_controls(traced: Traced, original: str, removed: list[Removal]) -> Traced:
    """Drop control, zero-width, bidirectional and private-use characters; every line break becomes a newline."""
    edits: list[tuple[int, int, str]] = []
    i = 0
    while i < len(traced.text):
        j = i
        while j < len(traced.text) and _is_invisible(traced.text[j]):
            j += 1
        if j > i:
            edits.append((i, j, ""))
            _record(removed, original, traced.origin(i, j), "control", "invisible")
            i = j
            continue
        if traced.text[i] in _BREAKS:
            crlf = traced.text[i : i + 2] == "\r\n"
            edits.append((i, i + 1, "" if crlf else "\n"))
        i += 1
    return traced.replace(edits)


def _is_invisible(character: str) -> bool:
    if character in _BREAKS or character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Cn") or bool(_FILLERS.match(character))


def _without_templates(traced: Traced, original: str, removed: list[Removal]) -> tuple[Traced, list[tuple[int, int]]]:
    """Drop chat-template tokens; also the turns that they open, as spans of the original (empty: end not marked)."""
    turns: list[tuple[int, int]] = []
    edits: list[tuple[int, int, str]] = []
    for match in _TEMPLATE.finditer(traced.text):
        start, end = traced.origin(match.start(), match.end())
        rule = "evidence-reference" if match[0].startswith("[[") else "chat-template"
        _record(removed, original, (start, end), "template", rule)
        edits.append((match.start(), match.end(), " "))
        if turns and turns[-1][0] == turns[-1][1]:
            turns[-1] = (turns[-1][0], start)
        if match["opens"]:
            turns.append((end, end))
    return traced.replace(edits), turns


def _without_markup(traced: Traced, original: str, removed: list[Removal]) -> Traced:
    """Drop tags, scripts and comments, keep the text of links. Markup that hides an instruction is an injection."""
    for rule, pattern in _MARKUP:
        edits: list[tuple[int, int, str]] = []
        for match in pattern.finditer(traced.text):
            kept = match["text"] if rule == "link" else " "
            hits = find_injections(match[0].replace(kept, " ", 1)) if len(match[0]) > _SHORT_TAG else []
            kind: RemovalKind = "injection" if hits else "markup"
            span = traced.origin(match.start(), match.end())
            _record(removed, original, span, kind, hits[0].rule if hits else rule)
            edits.append((match.start(), match.end(), kept))
        traced = traced.replace(edits)
    return traced


def _without_injections(traced: Traced, turns: list[tuple[int, int]], original: str, removed: list[Removal]) -> Traced:
    """Drop every sentence in which a rule fires, and those that a chat-template token puts into somebody's mouth."""
    hits = find_injections(traced.text)
    edits: list[tuple[int, int, str]] = []
    for start, end in _sentences(traced.text):
        rules = [hit.rule for hit in hits if hit.start < end and hit.end > start]
        first, last = traced.origin(start, end)
        spoken = [turn for turn in turns if turn[0] < last and (first < turn[1] or turn[0] == turn[1])]
        turns = [turn for turn in turns if turn not in spoken or turn[0] != turn[1]]  # an open turn takes one sentence
        if rules or spoken:
            _record(removed, original, (first, last), "injection", rules[0] if rules else "chat-template")
            edits.append((start, end, ""))
    return traced.replace(edits)


def _without_later_dates(traced: Traced, as_of: dt.date, original: str, removed: list[Removal]) -> Traced:
    """Drop every sentence by whose dates it was written after as_of."""
    edits: list[tuple[int, int, str]] = []
    for start, end in _sentences(traced.text):
        if later := later_dates(traced.text[start:end], as_of):
            _record(removed, original, traced.origin(start, end), "lookahead", f"date after as_of: {later[0]}")
            edits.append((start, end, ""))
    return traced.replace(edits)


def _sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences and lines of `text`, without the white space around them."""
    bounds = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    spans = []
    for start, end in pairwise(bounds):
        sentence = text[start:end]
        if sentence.strip():
            lead, trail = len(sentence) - len(sentence.lstrip()), len(sentence) - len(sentence.rstrip())
            spans.append((start + lead, end - trail))
    return spans


@cache
def sanitising_digest() -> str:
    """What comes of a text follows from this beside the text: the rules and the code that applies them."""
    here = Path(__file__).parent
    return made_by([here, RULES_PATH])
