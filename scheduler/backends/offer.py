"""What a backend says of itself. Nobody guesses any of it from a name, a build or a type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from finllm.scheduler.money.tariff import Tariff
from finllm.scheduler.placement.task import Tier

Where = Literal["local", "remote"]
"""`local`: in processes of finllm, on this machine's energy. `remote`: behind a URL, on energy nobody here meters."""

Scores = Literal["logprobs", "votes"]
"""How probabilities come about: `logprobs` are the model's own at each choice, `votes` shares of sampled answers."""

SLOTS = 64
"""Calls that a backend is handed at once where nothing else is said; its engine orders those that wait there."""

_IDENTITY = ("name", "tier", "precision", "weights_sha256", "build", "context")
_BEFORE: Mapping[str, Mapping[str, Any]] = {"vllm": {"kind": "vllm", "where": "remote", "stronger": True}}
"""What the first word of `build` meant while offers on record did not yet name their kind; all others were local."""


def uncarded(offers: Iterable[Offer]) -> frozenset[str]:
    """Digests of the weights that the shipped adapter's card does not tell how to read, beside some that it does; none
    where no offer says that it is in its weights, as in records from before offers said so."""
    told = tuple(offers)
    carded = {one.weights_sha256 for one in told if one.carded}
    return frozenset(one.weights_sha256 for one in told if one.weights_sha256 not in carded) if carded else frozenset()


@dataclass(frozen=True)
class Offer:
    """What a backend offers: enough to place a task on it, to price and read its answers, and to key them.

    `kind`: its name in the registry. `link`: s there and back, None where nothing lies between. `tariff`: what its
    owner charges; None: not told. `counts_tokens`: its token counts are the tokeniser's; else they are reckoned from
    characters. `votes`: answers that are counted where it scores by votes, else 0. `slots`: calls that it is handed at
    once. `calibratable`: `finllm calibrate` measures it here. `carded`: the shipped adapter is in its weights, so that
    its card calibrates the scores. `stronger`: a model of its own, taken to be better than any rung of the ladder.
    `weights_file`: where its weights lie, if in one file. `power`, `network`: the domains that it fails with, empty
    where nobody told.
    """

    name: str
    tier: Tier
    precision: str
    weights_sha256: str
    build: str
    context: int
    kind: str = "llama_cpp"
    where: Where = "local"
    link: float | None = None
    tariff: Tariff | None = None
    counts_tokens: bool = True
    scores: Scores = "logprobs"
    votes: int = 0
    slots: int = SLOTS
    calibratable: bool = False
    carded: bool = False
    stronger: bool = False
    weights_file: str | None = None
    power: str = ""
    network: str = ""

    def identity(self) -> dict[str, Any]:
        """What tells two backends apart in the ledger's keys. It never grows: keys of earlier runs are made of it."""
        return {name: getattr(self, name) for name in _IDENTITY}

    @classmethod
    def from_record(cls, row: Mapping[str, Any]) -> Offer:
        """The offer that `dataclasses.asdict` made a row of, also by a version with fewer fields or with more."""
        known = {field.name for field in fields(cls)}
        told = {name: value for name, value in row.items() if name in known}
        if "kind" not in told:
            told |= _BEFORE.get(str(row["build"]).split(" ")[0], {})
        if told.get("tariff") is not None:
            told["tariff"] = Tariff(**told["tariff"])
        return cls(**told)
