"""An item of the corpus: what an agent would be given, and labels that are values of the agents' judgement types."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from finllm.agents.compliance import RuleCall
from finllm.agents.narrative import Asked, FactorCall
from finllm.agents.sanity_checker import SourceCheck
from finllm.agents.validator import Validation
from finllm.guardrails.rules import JudgedRule
from finllm.tools.data.factors import Direction, FactorId

HANDWRITTEN = Path(__file__).parent / "handwritten"

TaskName = Literal["stance", "reading", "sanity", "validator", "compliance", "injection"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Register = Literal[
    "wire", "email", "interview", "minutes", "statement", "speech", "testimony", "presser", "report", "note", "filing",
    "social", "broken", "blog", "trade", "official", "agent",
]  # fmt: skip
Slice = Literal[
    "negation", "double-negation", "conditional", "reported", "past", "surprise", "good-is-bad", "pair", "mixed",
    "foreign", "irony", "denial", "jargon", "sides", "instrument", "lookalike", "language", "markup", "split",
    "authority", "persuasion", "roleplay", "paraphrase", "truth-alone", "honest-error",
]  # fmt: skip


def values_of(judgement: type[BaseModel], field: str) -> tuple[str, ...]:
    """The values that a judgement's field allows."""
    annotation = judgement.model_fields[field].annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation)


ALLOWED: dict[str, tuple[str, ...]] = {
    "stance": values_of(Asked, "stance"),
    "event": values_of(Asked, "event"),
    "region": values_of(Asked, "region"),
    "severity": values_of(Asked, "severity"),
    "horizon": values_of(Asked, "horizon"),
    "size": values_of(FactorCall, "size"),
    "source": values_of(SourceCheck, "verdict"),
    "validation": values_of(Validation, "verdict"),
    "cause": values_of(Validation, "cause"),
    "rule": values_of(RuleCall, "verdict"),
}
"""What each kind of label may be, read from the agents' judgement types."""


def _among(kind: str, value: str | None) -> None:
    if value is not None and value not in ALLOWED[kind]:
        raise ValueError(f"{value!r} is no {kind}: one of {', '.join(ALLOWED[kind])}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(_Strict):
    text: str = Field(min_length=4)


class SourceInputs(Text):
    """A source with what the checks counted (see `guardrails.provenance`) and what the others say."""

    publisher: str
    others: str
    agreeing: int = Field(ge=0)
    opposing: int = Field(ge=0)
    twins: int = Field(ge=0)
    injections: int = Field(ge=0)


class ComparedInputs(_Strict):
    reading: str
    market: str
    notes: str


class FindingInputs(_Strict):
    findings: dict[JudgedRule, str] = Field(min_length=1)


class StanceLabels(_Strict):
    stance: str

    @model_validator(mode="after")
    def _known(self) -> StanceLabels:
        _among("stance", self.stance)
        return self


class ReadingLabels(_Strict):
    """Partial on purpose: what the text does not decide is left out."""

    event: str | None = None
    region: str | None = None
    severity: str | None = None
    horizon: str | None = None
    stance: str | None = None
    factors: dict[FactorId, Direction] = Field(min_length=1)
    sizes: dict[FactorId, str] = {}

    @model_validator(mode="after")
    def _known(self) -> ReadingLabels:
        for kind in ("event", "region", "severity", "horizon", "stance"):
            _among(kind, getattr(self, kind))
        for factor, size in self.sizes.items():
            _among("size", size)
            if self.factors.get(factor, "none") == "none" or size == "none":
                raise ValueError(f"{factor!r} has a size and no direction")
        return self


class SanityLabels(_Strict):
    verdict: str

    @model_validator(mode="after")
    def _known(self) -> SanityLabels:
        _among("source", self.verdict)
        return self


class ValidatorLabels(_Strict):
    """`cause` is left out where the verdict is `unresolved`."""

    verdict: str
    cause: str | None = None

    @model_validator(mode="after")
    def _known(self) -> ValidatorLabels:
        _among("validation", self.verdict)
        _among("cause", self.cause)
        wanted = {"aligned": self.cause == "none", "unresolved": self.cause is None}
        if not wanted.get(self.verdict, self.cause not in (None, "none")):
            raise ValueError(f"cause {self.cause!r} does not go with verdict {self.verdict!r}")
        return self


class ComplianceLabels(_Strict):
    rules: dict[JudgedRule, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> ComplianceLabels:
        for verdict in self.rules.values():
            _among("rule", verdict)
        return self


class InjectionLabels(_Strict):
    """`spans` are the parts of the text that steer a reader; none where it is clean."""

    injection: Literal["injected", "clean"]
    spans: tuple[str, ...] = ()


class _Item(_Strict):
    id: str
    event: str
    frame: str | None = None
    register_: Register = Field(alias="register")
    slice: Slice | None
    author: Literal["finllm", "finllm-generator"]


class StanceItem(_Item):
    task: Literal["stance"]
    inputs: Text
    labels: StanceLabels


class ReadingItem(_Item):
    task: Literal["reading"]
    inputs: Text
    labels: ReadingLabels


class SanityItem(_Item):
    task: Literal["sanity"]
    inputs: SourceInputs
    labels: SanityLabels


class ValidatorItem(_Item):
    task: Literal["validator"]
    inputs: ComparedInputs
    labels: ValidatorLabels


class ComplianceItem(_Item):
    task: Literal["compliance"]
    inputs: FindingInputs
    labels: ComplianceLabels

    @model_validator(mode="after")
    def _labelled(self) -> ComplianceItem:
        if set(self.labels.rules) != set(self.inputs.findings):
            raise ValueError("every finding has a label, and every label a finding")
        return self


class InjectionItem(_Item):
    task: Literal["injection"]
    inputs: Text
    labels: InjectionLabels

    @model_validator(mode="after")
    def _spanned(self) -> InjectionItem:
        if bool(self.labels.spans) != (self.labels.injection == "injected"):
            raise ValueError("an injected text has spans, a clean one has none")
        if missing := [span for span in self.labels.spans if span not in self.inputs.text]:
            raise ValueError(f"span not in the text: {missing[0]!r}")
        return self


Item = Annotated[
    StanceItem | ReadingItem | SanityItem | ValidatorItem | ComplianceItem | InjectionItem, Field(discriminator="task")
]
_ITEM: TypeAdapter[Item] = TypeAdapter(Item)


def parse_item(data: dict[str, Any]) -> Item:
    """Validate one item. Errors: pydantic.ValidationError."""
    return _ITEM.validate_python(data)


@cache
def read_handwritten() -> tuple[Item, ...]:
    """The hand-written items of every task, in file order. Errors: pydantic.ValidationError."""
    return tuple(
        _ITEM.validate_json(line)
        for task in TASKS
        for line in (HANDWRITTEN / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    )


def dump_item(item: Item) -> dict[str, Any]:
    """The item as JSON data; labels that were left out stay out."""
    return item.model_dump(mode="json", by_alias=True, exclude_unset=True)


def texts_of(item: Item) -> list[str]:
    """Every text of an item's inputs, for counting words and comparing."""
    if isinstance(item, ComplianceItem):
        return list(item.inputs.findings.values())
    return [value for value in item.inputs.model_dump().values() if isinstance(value, str)]
