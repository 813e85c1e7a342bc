"""Text hidden from a reader's eye: look-alike letters, encoded blobs, and shifted alphabets."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһӏкмтвнзАВЕКМНОРСТХІЈЅαορνιτκΑΒΕΖΗΙΚΜΝΟΡΤΥΧɡıⅼ",
    "aeopcyxijsdhlkmtbh3ABEKMHOPCTXIJSaopvitkABEZHIKMNOPTYXgil",
)
_LEET = str.maketrans("013457@$", "oieastas")
_SPACED = re.compile(r"(?<!\w)(?:[A-Za-z][ .\-_]){4,}[A-Za-z](?!\w)")
_LEETED = re.compile(r"(?<![\w.,$%@])(?=[\w@$]*[a-z])(?=[\w@$]*[013457@$])[a-z013457@$]{4,}(?![\w%])", re.IGNORECASE)

_BASE64 = re.compile(r"(?<![\w+/=])[A-Za-z0-9+/]{24,}={0,2}(?![\w+/=])")
_HEX = re.compile(r"(?<!\w)(?:[0-9A-Fa-f]{2}[ :]?){12,}(?!\w)")
_BINARY = re.compile(r"(?<!\w)(?:[01]{8} ?){4,}(?!\w)")
_MORSE = re.compile(r"(?<!\S)'?(?:[.\-]{1,6}(?: / | |/)){6,}[.\-]{1,6}")
_SENTENCE = re.compile(r"[^.!?\n]{12,}")
_COMMON = re.compile(
    r"\b(?:the|a|an|of|to|in|and|is|are|was|for|on|by|at|as|it|with|from|that|or|this|de|la|el|le|les|der|die|das|und|y|e|o|que)\b",
    re.IGNORECASE,
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Blob:
    """Characters `start` to `end` that decode to text; `kind` is the encoding, `reading` what they say."""

    start: int
    end: int
    kind: str
    reading: str


def folded(text: str) -> str:
    """The text with look-alike letters, digits inside words and letters set apart read as Latin; length is kept."""
    latin = text.translate(_LOOK_ALIKES) if not text.isascii() else text
    latin = _LEETED.sub(lambda match: match[0].translate(_LEET), latin)
    return _SPACED.sub(lambda match: re.sub(r"[ .\-_]", "", match[0]).ljust(len(match[0])), latin)


def blobs(text: str) -> Iterator[Blob]:
    """Encoded runs that decode to readable text. Digests, keys and identifiers decode to noise and are left alone."""
    for kind, pattern in (("base64", _BASE64), ("hex", _HEX), ("binary", _BINARY), ("morse", _MORSE)):
        for match in pattern.finditer(text):
            reading = _decode(kind, match[0])
            if reading is not None:
                yield Blob(match.start(), match.end(), kind, reading)


def shifted(text: str) -> Iterator[tuple[int, int, list[str]]]:
    """Sentences of Latin words with no common word in them, with those shifted readings that have some."""
    for match in _SENTENCE.finditer(text):
        sentence = match[0]
        words = re.findall(r"[A-Za-z]+", sentence)
        if len(words) < 4 or _COMMON.search(sentence):
            continue
        readings = [_shift(sentence.strip(), by) for by in range(1, 26)]
        yield match.start(), match.end(), [reading for reading in readings if _COMMON.search(reading)]


def _shift(text: str, by: int) -> str:
    moved = _ALPHABET[by:] + _ALPHABET[:by]
    return text.translate(str.maketrans(_ALPHABET + _ALPHABET.upper(), moved + moved.upper()))


def _decode(kind: str, run: str) -> str | None:
    """What the run says, or None where that is not readable. Morse is known by its form, unlike a ruled line."""
    try:
        if kind == "morse":
            return run if len(set(run.split())) >= 4 else None
        if kind == "base64":
            data = base64.b64decode(run + "=" * (-len(run) % 4), validate=True)
        elif kind == "hex":
            data = bytes.fromhex(re.sub(r"[ :]", "", run))
        else:
            data = bytes(int(byte, 2) for byte in re.findall(r"[01]{8}", run))
        reading = data.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    readable = sum(character.isalpha() or character in " .,'!?" for character in reading)
    return reading if reading.isprintable() and readable >= 0.8 * len(reading) else None
