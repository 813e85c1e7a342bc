"""The language of a text and of its sentences, by py3langid (BSD, its model lies in its wheel), offline."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

ENGLISH = "en"
NAMES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "sv": "Swedish", "da": "Danish", "no": "Norwegian", "fi": "Finnish", "pl": "Polish",
    "cs": "Czech", "hu": "Hungarian", "ro": "Romanian", "tr": "Turkish", "el": "Greek",
    "ru": "Russian", "uk": "Ukrainian", "bg": "Bulgarian",
    "ar": "Arabic", "he": "Hebrew", "fa": "Persian", "hi": "Hindi", "bn": "Bengali", "th": "Thai", "vi": "Vietnamese",
    "id": "Indonesian", "ja": "Japanese", "zh": "Chinese", "ko": "Korean",
}  # fmt: skip
"""Those that are told apart, by ISO 639-1."""
SURE = 0.9
"""Probability from which on a text is taken to be in another language than English."""
LEAST = 5
"""Words below which Latin letters are not enough to tell a language by."""
LONGEST = 2000
"""Characters of a text by which its language is told."""
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_turn = threading.Lock()


def language_of(text: str, around: str = ENGLISH) -> str:
    """The ISO 639-1 code of a text's language; that of the text `around` it, where it is too short to tell.

    English wherever another language is not sure.
    """
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return around
    latin = sum(_LATIN.match(letter) is not None for letter in letters) / len(letters)
    with _turn:
        found, probability = _identifier().classify(text[:LONGEST])
    if latin <= 0.5:
        return str(found)
    if len(text.split()) < LEAST:
        return ENGLISH if found == ENGLISH else around
    return str(found) if probability >= SURE else ENGLISH


def name_of(code: str) -> str:
    return NAMES.get(code, code)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted(NAMES))
    return identifier
