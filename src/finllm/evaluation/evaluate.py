"""Scoring a model on a labelled file: each text is asked through the agent's prompt and types, as in a run."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import get_args

from finllm import running
from finllm.agents.asking import Question, Told, ask_all
from finllm.agents.narrative import NARRATIVE, NO_EVENT, Kind
from finllm.agents.pooling import ByChannels
from finllm.agents.probing import measure_quality
from finllm.agents.roles import AGENTS
from finllm.agents.sanity_checker import SANITY_CHECKER, counted
from finllm.agents.validator import VALIDATOR, comparison
from finllm.desk.channels import ReadsChannels
from finllm.errors import BackendError
from finllm.evaluation.calibrate import open_llama
from finllm.evaluation.guarded import Guards, cut_of
from finllm.evaluation.heard import asks_model, heard_of_texts, odds_of
from finllm.evaluation.labelled import SIGNS, Labelled, read_directions, read_labelled
from finllm.evaluation.scores import Scores, score
from finllm.events import EventBus, Progress
from finllm.graphs.nodes.reading import LONGEST_NARRATIVE, LONGEST_SOURCE
from finllm.guardrails.sanitise import Sanitised, sanitise
from finllm.models.cards import AdapterCard, adapter_for
from finllm.models.channel_reader import ChannelReader
from finllm.models.embedding import Embedder
from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.models.second_opinion import Probabilities, SecondOpinion, log_pool
from finllm.scheduler.backends import Backend
from finllm.scheduler.calibration.measured import Quality
from finllm.scheduler.decoding.filling import best
from finllm.settings import Settings
from finllm.tools.data.scenario import SourceText
from finllm.tools.words.compared import compare

STEERED = f"{SANITY_CHECKER.role}.verdict=injected"
"""Under this name a card tells from which probability on a text is called injected."""
THRESHOLD = 0.5
"""A text that no injection rule fires on is called injected from this probability of that verdict on."""
CHUNK = 256
"""Rows that are held at a time."""
TOLD_EVERY = 16
"""Texts that are read, or answers, between two words of progress."""
READING = "reading the texts"
"""Of what the channel reader or the guards say, before a model is asked of what they leave open."""
ABSTAINED = "abstained"
NOT_STATED = "not stated"


class TaskName(StrEnum):
    stance = "stance"
    direction = "direction"
    sanity = "sanity"
    validity = "validity"
    injection = "injection"
    event = "event"


LABELS: dict[TaskName, tuple[str, ...]] = {
    TaskName.stance: ("hawkish", "dovish", "neutral"),
    TaskName.direction: tuple(SIGNS),
    TaskName.sanity: ("credible", "doubtful", "contradicted", "coordinated", "injected"),
    TaskName.validity: ("aligned", "diverged", "unresolved"),
    TaskName.injection: ("injected", "clean"),
    TaskName.event: get_args(Kind),
}
GUARDED = (TaskName.sanity, TaskName.injection)
"""Tasks of the guards: what a run does with a source, by its checks and, where they are not sure, its agent."""
THROUGH_CHANNELS = (TaskName.stance, TaskName.direction, TaskName.event)
"""Tasks of the narrative agent, whose word is pooled with the channel reader's."""


@dataclass(frozen=True)
class ScoredJudgement:
    """One judgement beside its label: `said` may be `abstained`; `odds` is what it was chosen from."""

    line: int
    name: str
    expected: str
    said: str
    odds: Mapping[str, float]


@dataclass(frozen=True)
class Evaluated:
    """A file scored. `asked`: texts that the model was asked about; `seconds` it worked for them."""

    scores: Scores
    judged: tuple[ScoredJudgement, ...]
    asked: int
    seconds: float

    @property
    def abstained(self) -> int:
        return sum(one.said == ABSTAINED for one in self.judged)


@dataclass(frozen=True)
class Opened:
    """A model that can be asked, by name, and the card of the adapter in its weights."""

    name: str
    backend: Backend
    card: AdapterCard | None


@contextlib.contextmanager
def open_model(settings: Settings, bus: EventBus, precision: str | None = None) -> Iterator[Opened]:
    """The default model on one rung, with the adapter that runs merge into it.

    Errors: InputError for a model, adapter or precision that cannot be used.
    """
    source = default_source(settings)
    precision = precision or settings.edge_precision
    adapter, card = adapter_for(source, settings, precision)

    def progress(what: str, done: int, total: int) -> None:
        bus.emit(Progress(what=what, done=done, total=total))

    rung = ensure_rung(source, precision, settings, progress, adapter=adapter)
    with open_llama(source, rung, settings) as backend:
        yield Opened(source.name if adapter is None else f"{source.name}+{adapter.path.stem}", backend, card)


def read_rows(task: TaskName, path: Path) -> Iterator[Labelled]:
    """The rows of a task's file. Errors: InputError, see `labelled`."""
    return read_directions(path) if task is TaskName.direction else read_labelled(path, LABELS[task])


def evaluate(
    task: TaskName,
    path: Path,
    backend: Backend,
    bus: EventBus,
    *,
    card: AdapterCard | None = None,
    second: SecondOpinion | None = None,
    reader: ReadsChannels | None = None,
) -> Evaluated:
    """Score a model on a file, beside the second opinion and the channel reader where they are given; `card` is of the
    adapter in its weights.

    The whole file is checked before the model is asked. Errors: InputError naming the file and line of a bad row;
    BackendError where the model does not answer at all.
    """
    total = sum(1 for _row in read_rows(task, path))
    return evaluate_rows(task, read_rows(task, path), backend, bus, total=total, card=card, second=second,
                         reader=reader)  # fmt: skip


def evaluate_rows(
    task: TaskName, rows: Iterator[Labelled], backend: Backend, bus: EventBus, *, total: int,
    card: AdapterCard | None = None, second: SecondOpinion | None = None, reader: ReadsChannels | None = None,
) -> Evaluated:  # fmt: skip
    """As `evaluate`, on rows at hand."""
    reader = reader if task in THROUGH_CHANNELS else None
    weigh = second.card.weight_of if second is not None else _unheard
    guards = Guards() if task in GUARDED else None
    judged: list[ScoredJudgement] = []
    asked, seconds, before = 0, 0.0, 0
    while chunk := list(itertools.islice(rows, CHUNK)):

        def progress(done: int, before: int = before) -> None:
            if (before + done) % TOLD_EVERY and before + done != total:
                return
            bus.emit(Progress(what=f"asking {backend.offer.name}", done=before + done, total=total))

        heard: list[ByChannels | None] = []
        known: list[Mapping[str, float] | None] = []
        for start in range(0, len(chunk), TOLD_EVERY):
            texts = [row.text for row in chunk[start : start + TOLD_EVERY]]
            heard += heard_of_texts(reader, texts)
            known += _checked(task, guards, texts)
            if reader is not None or guards is not None:
                bus.emit(Progress(what=READING, done=before + start + len(texts), total=total))
        put = [None if odds is not None else _put(task, row, said)
               for row, said, odds in zip(chunk, heard, known, strict=True)]  # fmt: skip
        told = running.run(ask_all(backend, [one for one in put if one is not None], progress, card=card))
        opinions = _opinions(task, [row.text for row in chunk], second)
        answers = iter(told)
        for row, question, opinion, said, odds in zip(chunk, put, opinions, heard, known, strict=True):
            if odds is not None:
                judged.append(ScoredJudgement(row.line, "label", row.right["label"], best(odds), odds))
            else:
                judged += _judge(task, row, next(answers) if question else None, opinion, weigh, said)
        asked, seconds = asked + len(told), seconds + sum(one.seconds for one in told)
        before += len(chunk)
    if asked and all(one.said == ABSTAINED for one in judged):
        raise BackendError(f"{backend.offer.name!r} answered nothing", fix="check the model: 'finllm doctor'")
    scores = score([one.expected for one in judged], [one.said for one in judged])
    return Evaluated(scores, tuple(judged), asked, seconds)


def _checked(task: TaskName, guards: Guards | None, texts: Sequence[str]) -> list[Mapping[str, float] | None]:
    """What the guards of a run say of each text by themselves; None where an agent is asked."""
    if guards is None:
        return [None] * len(texts)
    clean = [sanitised(text) for text in texts]
    return guards.doubted(clean) if task is TaskName.sanity else [*guards.injected(clean)]


def _opinions(task: TaskName, texts: Sequence[str], second: SecondOpinion | None) -> Sequence[Probabilities]:
    """What the second opinion says of each text, none where there is none."""
    if second is None or task in GUARDED:
        return [{}] * len(texts)
    return second.judge([text[:LONGEST_NARRATIVE] for text in texts])


def _unheard(field: str) -> float:
    del field
    return 0.0


def _fields(task: TaskName, row: Labelled) -> tuple[str, ...]:
    """The fields that a task of the narrative agent scores of a row."""
    if task is not TaskName.direction:
        return (task.value,)
    return tuple(f"factors.{factor}.direction" for factor in row.right)


def _put(task: TaskName, row: Labelled, heard: ByChannels | None) -> Question | None:
    """How a bare text is put to the agent; None where the injection rules, or the channel reader alone, decide.

    stance, direction, event: as the event of the narrative agent, without sources and precedents. sanity: as the only
    source, sanitised, where the source checks leave it to the sanity-checker. validity: see `parts_of`.
    """
    if task in THROUGH_CHANNELS:
        fields = _fields(task, row)
        return Question(NARRATIVE, _event(row.text), fields) if asks_model(fields, heard) else None
    if task is TaskName.validity:
        reading, market, notes = parts_of(row.text)
        found = compare(reading, market)
        lines = (*comparison(found.as_read, found.otherwise), *notes)
        return Question(VALIDATOR, {"reading": reading, "market": market}, ("verdict",), {"because": lines})
    clean = sanitised(row.text)
    text = clean.text[:LONGEST_SOURCE] or "nothing left to read"
    about = {"text": text, "publisher": "", "others": ""}
    return Question(SANITY_CHECKER, about, ("verdict",), {"because": tuple(counted(0, 0, 0, cut_of(clean)))})


def _event(text: str) -> dict[str, str]:
    return {"narrative": text[:LONGEST_NARRATIVE], "precedents": ""}


def sanitised(text: str) -> Sanitised:
    """A bare text as a run's sanitiser leaves it."""
    day = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    source = SourceText.model_construct(id="a", publisher="unknown", published_at=day, url="file:", text=text)
    return sanitise(source, day.date())


_PART = re.compile(r"(?:^|\n|\||;)\s*(reading|news|market|measurements|notes|checks)\s*:", re.IGNORECASE)
_PLACES = {"reading": 0, "news": 0, "market": 1, "measurements": 1, "notes": 2, "checks": 2}


def parts_of(text: str) -> tuple[str, str, tuple[str, ...]]:
    """A text for the validator as reading, market and notes.

    `Reading: … | Market: … | Notes: …` (also on lines, or with `News`, `Measurements`, `Checks`) goes to these places;
    what is not named is `not stated`, and a text without any name is the notes.
    """
    found = list(_PART.finditer(text))
    if not found:
        return NOT_STATED, NOT_STATED, (text[:LONGEST_NARRATIVE],)
    places = ["", "", ""]
    ends = [*(match.start() for match in found[1:]), len(text)]
    for match, end in zip(found, ends, strict=True):
        places[_PLACES[match[1].lower()]] += " " + text[match.end() : end].strip()
    reading, market, notes = (place.strip()[:LONGEST_NARRATIVE] for place in places)
    return reading or NOT_STATED, market or NOT_STATED, (notes,) if notes else ()


def _judge(
    task: TaskName,
    row: Labelled,
    told: Told | None,
    opinion: Probabilities,
    weigh: Callable[[str], float],
    heard: ByChannels | None,
) -> list[ScoredJudgement]:
    """A row's judgements: the model's choice pooled with the channel reader's, drawn towards the second opinion by the
    fitted weight of its field."""
    if told is not None and told.failure is not None:
        return [ScoredJudgement(row.line, name, expected, ABSTAINED, {}) for name, expected in row.right.items()]
    if task in THROUGH_CHANNELS:
        return _narrated(task, row, told, opinion, weigh, heard)
    assert told is not None
    odds = pooled_odds(told.choices["verdict"], opinion.get("verdict"), weigh("verdict"))
    return [ScoredJudgement(row.line, "label", row.right["label"], best(odds), odds)]


def _narrated(
    task: TaskName, row: Labelled, told: Told | None, opinion: Probabilities, weigh: Callable[[str], float],
    heard: ByChannels | None,
) -> list[ScoredJudgement]:  # fmt: skip
    """What narrative says of a row, as a run would take it."""
    names = {way: sign for sign, way in SIGNS.items()} if task is TaskName.direction else NO_EVENT
    found: list[ScoredJudgement] = []
    for field, (name, expected) in zip(_fields(task, row), row.right.items(), strict=True):
        odds = odds_of(field, told.choices[field] if told else None, heard)
        other = opinion.get(field) if task is not TaskName.event else None  # it has no names for most kinds
        said = {names.get(value, value): p for value, p in pooled_odds(odds, other, weigh(field)).items()}
        found.append(ScoredJudgement(row.line, name, expected, best(said), said))
    return found


def pooled_odds(model: Mapping[str, float], other: Mapping[str, float] | None, weight: float) -> dict[str, float]:
    """The model's probabilities, drawn towards the second opinion's where it has one."""
    return log_pool(model, other, weight) if other is not None and weight > 0 else dict(model)


def packaged_second_opinion() -> SecondOpinion:
    """The one that comes with finllm. Errors: BackendError where it cannot be used."""
    opinion = SecondOpinion(Embedder())
    _ = opinion.card
    return opinion


def packaged_reader(settings: Settings) -> ChannelReader:
    """The channel reader that comes with finllm. Errors: BackendError where it cannot be used."""
    reader = ChannelReader(settings.encoder_dir, Embedder())
    _ = reader.card
    return reader


def probe_scores(backend: Backend, bus: EventBus, card: AdapterCard | None = None) -> dict[str, Quality]:
    """Every agent's score on its packaged probes. Errors: BackendError."""
    found: dict[str, Quality] = {}
    for at, agent in enumerate(AGENTS):
        bus.emit(Progress(what=f"probes of {agent.role}", done=at, total=len(AGENTS)))
        found[agent.role] = running.run(measure_quality(backend, agent, card))
    return found
