"""What may be typed in a session: each verb with its form, an example and whether it needs a reason; and its parts."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from finllm.errors import InputError
from finllm.plain_text import clean

LONGEST = 20_000
"""Characters of a line."""


@dataclass(frozen=True)
class Verb:
    """`kind`: an `edit` makes a version, a `move` takes another into hand, a `question` changes nothing."""

    name: str
    form: str
    says: str
    example: str
    kind: str
    reason: bool = False


VERBS: dict[str, Verb] = {
    one.name: one
    for one in (
        Verb("story", "story TEXT", "tell the event otherwise", "story The strait is open again", "edit"),
        Verb("source", "source ID on|off|mute because \"…\" · source add FILE", "leave a source out, mute or add one",
             'source off hrz-blog-1 because "unconfirmed"', "edit"),
        Verb("shock", "shock FACTOR MOVE|none because \"…\"", "set a factor's move",
             'shock OIL_WTI +60% because "two lanes are mined"', "edit", reason=True),
        Verb("read", "read FACTOR up|down|none [SIZE] because \"…\"", "read a factor otherwise than the agents",
             'read EQUITY_US down large because "no relief in sight"', "edit", reason=True),
        Verb("accept", "accept FACTOR because \"…\"", "let a read shock through against the checks",
             'accept GOLD because "the wire says so"', "edit", reason=True),
        Verb("withhold", "withhold FACTOR because \"…\"", "keep a read shock out",
             'withhold VIX because "it has moved already"', "edit", reason=True),
        Verb("horizon", "horizon N", "trading days that the shocks take", "horizon 40", "edit"),
        Verb("level", "level N", "probability that the band holds, per cent or share", "level 99", "edit"),
        Verb("hold", "hold", "factors without a shock stand still", "hold", "edit"),
        Verb("complete", "complete", "factors without a shock move with the others", "complete", "edit"),
        Verb("currency", "currency CODE", "the currency of the results", "currency EUR", "edit"),
        Verb("limits", "limits FILE", "hold the book to other limits", "limits limits.yaml", "edit"),
        Verb("trade", "trade ID QTY [yes] [because \"…\"]", "buy so much more, negative to sell", "trade AAPL -1000",
             "edit"),
        Verb("replay", "replay EPISODE|START:END|off", "let a past window happen again", "replay lehman-2008", "edit"),
        Verb("undo", "undo", "back to the version that this one was made of", "undo", "move"),
        Verb("redo", "redo", "forth again", "redo", "move"),
        Verb("goto", "goto V", "take another version into hand; an edit there forks", "goto v2", "move"),
        Verb("name", "name V TEXT", "give a version a name", "name v3 worst case", "question"),
        Verb("compare", "compare V [V]", "what differs, and what that did", "compare v1", "question"),
        Verb("drives", "drives", "what moves the book, and on which judgement", "drives", "question"),
        Verb("flip", "flip", "what would turn the result round", "flip", "question"),
        Verb("hedge", "hedge [LIMIT|LOSS]", "the cheapest trades that keep a limit", "hedge 5%", "question"),
        Verb("reverse", "reverse LOSS", "the nearest shocks that lose so much", "reverse 10%", "question"),
        Verb("show", "show", "the version in hand", "show", "question"),
        Verb("versions", "versions", "the tree of versions", "versions", "question"),
        Verb("save", "save FILE", "write the version as a scenario file", "save hormuz-v3.yaml", "question"),
        Verb("review", "review \"…\"", "put the version to review", 'review "for Thursday\'s committee"', "question"),
        Verb("minutes", "minutes FILE", "write what was done here, .md or .html", "minutes session.md", "question"),
        Verb("evidence", "E<n>", "open a number down to its source", "E61", "question"),
        Verb("help", "?", "what may be typed here", "? shock", "question"),
    )
}  # fmt: skip
ALIASES = {"?": "help", "propagate": "complete", "diff": "compare", "tree": "versions", "list": "versions",
           "why": "drives", "export": "minutes", "fork": "goto"}  # fmt: skip
_EVIDENCE = re.compile(r"[eE]([0-9]{1,6})")
_BECAUSE = re.compile(r"\s+because\s+", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "„": "“"}


@dataclass(frozen=True)
class Line:
    """A line understood: the verb, its words, the text behind it as it is, and the reason."""

    verb: Verb
    words: tuple[str, ...]
    text: str
    because: str | None
    typed: str


def parse(typed: str) -> Line:
    """Understand a line. Errors: InputError for an unknown verb, with the nearest, or where the reason is missing."""
    text = typed.strip()
    if not text:
        raise InputError("nothing was typed", fix="'?' shows what may be typed")
    if len(text) > LONGEST:
        raise InputError(f"a line of {len(text):,} characters", fix=f"at most {LONGEST:,} are read")
    if match := _EVIDENCE.fullmatch(text):
        return Line(VERBS["evidence"], (f"E{match[1]}",), text, None, text)
    first, _, rest = text.partition(" ") if not text.startswith("?") else ("?", "", text[1:])
    first, rest = (first, rest) if "\n" not in first else text.split(None, 1)
    verb = _verb(first)
    rest = rest.strip()
    if verb.name in ("story", "name", "help", "review"):
        body = unquoted(rest) if verb.name in ("story", "review") else rest
        because = body if verb.name == "review" else None
        return Line(verb, tuple(rest.split()), body, because, text)
    head, because = _split(rest)
    if verb.reason and not because:
        raise needs_reason(verb)
    words = tuple(head.split())
    if verb.name == "complete" and words in (("off",), ("on",)):  # propagate on|off
        verb = VERBS["hold" if words == ("off",) else "complete"]
        words = ()
    return Line(verb, words, head, because, text)


def needs_reason(verb: Verb) -> InputError:
    return InputError(f"'{verb.name}' needs a reason", fix=f"write it as {verb.example}")


def misused(verb: Verb) -> InputError:
    return InputError(f"'{verb.name}' is not written so", fix=f"write it as {verb.form}, such as {verb.example}")


def unquoted(text: str) -> str:
    """A text without the quotes around it."""
    text = text.strip()
    if text.startswith('"""') and text.endswith('"""') and len(text) >= 6:
        return text[3:-3].strip()
    if len(text) >= 2 and _QUOTES.get(text[0]) == text[-1]:
        return text[1:-1].strip()
    return text


def nearest(name: str, known: list[str] | tuple[str, ...], n: int = 3) -> list[str]:
    """Names that may have been meant, whatever the case."""
    folded = {one.casefold(): one for one in known}
    name = name.casefold()
    close = difflib.get_close_matches(name, folded, n=n, cutoff=0.5)
    close += [one for one in folded if name and name in one and one not in close]
    return [folded[one] for one in close[:n]]


def _verb(first: str) -> Verb:
    name = ALIASES.get(first.casefold(), first.casefold())
    if name in VERBS and name != "evidence":
        return VERBS[name]
    near = nearest(first, [*VERBS, *ALIASES])
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise InputError(f"no verb {clean(first)[:40]!r}", fix=f"{hint}'?' shows what may be typed")


def _split(rest: str) -> tuple[str, str | None]:
    """What stands before `because`, and the reason."""
    parts = _BECAUSE.split(f" {rest}", maxsplit=1)
    if len(parts) == 1:
        return rest, None
    return parts[0].strip(), " ".join(unquoted(parts[1]).split())[:500] or None


def help_lines(about: str = "") -> list[str]:
    """What may be typed, or one verb with its example."""
    if about:
        verb = _verb(about)
        return [verb.form, f"  {verb.says}", f"  such as: {verb.example}"]
    wide = 44
    lines = ["edits, each a version on record:"]
    for kind, said in (("edit", ""), ("move", "to and fro:"), ("question", "questions, and what is kept:")):
        lines += [said] if said else []
        for one in VERBS.values():
            if one.kind == kind:
                form = one.form.replace(' because "…"', " because …")
                head = [f"  {form}"] if len(form) > wide else []
                lines += [*head, f"  {'' if head else form:<{wide}} {one.says}"]
    return [*lines, "'? VERB' shows an example; 'quit' leaves, and everything is kept."]
