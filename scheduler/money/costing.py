"""The cost of a call: joules as its backend tells or a calibrated rate says, grams by the grid, dollars by a tariff."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from finllm.errors import InputError
from finllm.scheduler.backends import Generation, Offer
from finllm.scheduler.calibration.measured import Speed
from finllm.scheduler.money.account import Spent
from finllm.scheduler.money.amount import Amount, Provenance
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.money.carbon import Intensity, ZoneIntensity
from finllm.scheduler.money.meter import Used
from finllm.scheduler.money.tariff import Tariff


@dataclass(frozen=True)
class Rates:
    """J per token of prompt and of output."""

    prompt: float
    output: float
    provenance: Provenance
    basis: str

    @classmethod
    def of(cls, speed: Speed, batch: int = 1) -> Rates:
        """A rung's calibrated rates, of output as `batch` are decoded together; modelled, also where RAPL measured."""
        decode = speed.decode_at(batch)
        basis = f"calibrated J per token at batch {decode.batch} ({speed.energy_basis})"
        return cls(speed.prefill_joules_per_token, decode.joules_per_token, "modelled", basis)

    def joules(self, prompt: float, output: float) -> Amount:
        return Amount(prompt * self.prompt + output * self.output, self.provenance, self.basis)


PUBLISHED = Rates(0.0455, 0.455, "table", "ML.ENERGY v3, Llama-3.1-8B on one H100 at batch 8; prompts at a tenth")
"""Where neither the backend tells its joules nor a calibration their rate."""
RECKONED = "tokens reckoned from characters"
"""Said of figures of a backend that does not count its tokens."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass
class Costing:
    """How calls are charged. `rates` and `tariffs` by the backend's name; `now` gives the time in UTC.

    Where the grid's series ends while calls go on, the last intensity stands, and its basis says so.
    """

    grid: ZoneIntensity | None = None
    rates: Mapping[str, Rates] = field(default_factory=dict[str, Rates])
    tariffs: Mapping[str, Tariff] = field(default_factory=dict[str, Tariff])
    now: Callable[[], dt.datetime] = _now
    _last: Intensity | None = field(default=None, init=False)

    def of(self, offer: Offer, done: Generation) -> Spent:
        """What an answered call costs."""
        return self._spent(offer, done.prompt_tokens, done.output_tokens, done.seconds, done.joules)

    def so_far(self, offer: Offer, used: Used, prompt: float) -> Spent:
        """What a call that goes on, or failed, has cost; `prompt`: about how many tokens its prompt has."""
        read = min(prompt, used.tokens)
        return self._spent(offer, read, used.tokens - read, used.seconds, used.joules)

    def most(self, offer: Offer, tokens: float) -> Spent:
        """More than a call of at most so many tokens should cost, were all of them output of a batch of one."""
        rates = self.rates.get(offer.name)
        return self._spent(offer, 0.0, tokens if rates else 0.0, 0.0, None)

    def check(self, budget: Budget, offers: tuple[Offer, ...]) -> None:
        """Errors: InputError for a budget in grams or USD that nothing here can be counted against."""
        if budget.grams is not None and self.grid is None:
            raise InputError(
                "a budget in gCO₂e needs the grid's intensity", fix="set FINLLM_CARBON, or leave the grams out"
            )
        for offer in offers if budget.usd is not None else ():
            if self.tariffs.get(offer.name, Tariff()) == Tariff():
                raise InputError(
                    f"a budget in USD needs the price of {offer.name!r}",
                    fix="set FINLLM_USD_PER_KWH, and the token prices of servers ('finllm nodes add --usd-per-mtok', "
                    "FINLLM_VLLM_USD_PER_MTOK); or leave the USD out",
                )

    def _spent(self, offer: Offer, prompt: float, output: float, seconds: float, told: Amount | None) -> Spent:
        tokens = math.ceil(prompt + output)
        joules = told or self.rates.get(offer.name, PUBLISHED).joules(prompt, output)
        if not offer.counts_tokens:
            joules = replace(joules, provenance="table", basis=f"{joules.basis}; {RECKONED}")
        intensity = self._intensity()
        if intensity is not None and offer.where == "remote":
            intensity = replace(intensity, basis=f"{intensity.basis}, taken for a server elsewhere too")
        grams = None if intensity is None else intensity.of(joules)
        usd = self.tariffs.get(offer.name, Tariff()).of(joules, prompt, output)
        return Spent(seconds, tokens, tokens if offer.tier == "deep" else 0, joules, grams, usd)

    def _intensity(self) -> Intensity | None:
        if self.grid is None:
            return None
        try:
            self._last = self.grid.at(self.now())
        except InputError:
            if self._last is None:
                raise
            held = self._last.basis.removesuffix(", the last known")
            self._last = Intensity(self._last.value, self._last.kind, f"{held}, the last known")
        return self._last
