"""Finds hearsay: claims of secret knowledge that nobody can check, by three kinds of wording."""

from __future__ import annotations

import re

_WAYS: dict[str, re.Pattern[str]] = {
    way: re.compile(rf"\b(?:{'|'.join(patterns)})", re.IGNORECASE)
    for way, patterns in {
        "it is kept secret": (
            r"secret(?:ly)?\b",
            r"(?:may|can|could|must|will|do|did)(?: not|n['’]t|not) "
            r"(?:print|name|say(?! (?:whether|when|how|what))|show you|want you to know|tell you)",
            r"held back until",
            r"told to keep (?:quiet|silent)",
            r"(?:will|won['’]t)(?: not)? (?:read|see|hear) (?:this|it|that) (?:in|on|from) ",
            r"before (?:it is|they|it gets) (?:taken down|deleted?|take it down|delete it)",
            r"delete after reading",
            r"no ?(?:one|body) (?:will|dares to) (?:tell|say|print|report)",
            r"hush(?:ed)? up|cover(?:ed)?[- ]up",
        ),
        "somebody unnamed knows it": (
            r"(?:my|our) (?:own )?(?:source|mate|cousin|brother|sister|uncle|dentist|barber|contact|guy|friend)s?\b",
            r"(?:source|insider|somebody|someone|guy)s? (?:inside|high up|in the know|at the top)",
            r"people close to people",
            r"(?:who|which) (?:may|can|could)(?: ?not|n['’]t) be named",
            r"i (?:have|saw|hold|held|have seen|was shown|was told|know)(?: the| a| from)? "
            r"(?:paper|document|memo|proof|evidence|insider|screenshot)s?",
            r"(?:document|paper|memo|tape|list)s? (?:that )?(?:we|i) (?:were|was|have been) shown",
            r"leaked (?:order|list|memo|document|tape|paper|email|minutes)",
            r"trust me\b",
        ),
        "act before others know": (
            r"not (?:financial )?advice",
            r"loading up|load up",
            r"(?:get|go|sell|buy|be) (?:short|long|out|everything|all) (?:now|today|tonight|before)",
            r"wiped out",
            r"(?:check|watch) your (?:screens?|account)",
            r"(?:retweet|share this|spread the word|pass it on|copy this)",
            r"do the math",
            r"remember (?:who|where you) (?:told|read|heard)",
            r"still (?:short|long) (?:at|by|on|when) ",
            r"\d+x leverage",
        ),
    }.items()
}
ENOUGH = 2
"""Ways that make hearsay: reporting uses one of them now and then."""


def hearsay(text: str) -> dict[str, str]:
    """What the text says in each way, as it stands there; hearsay from `ENOUGH` of them on.

    English only.
    """
    return {way: match[0].strip() for way, pattern in _WAYS.items() if (match := pattern.search(text)) is not None}
