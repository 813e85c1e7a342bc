"""A tariff: what energy or tokens cost, in USD, and what a call is charged by it."""

from __future__ import annotations

from dataclasses import dataclass

from finllm.errors import InputError
from finllm.scheduler.money.amount import JOULES_PER_KWH, Amount


@dataclass(frozen=True)
class Tariff:
    """USD per kWh of energy, and per million tokens of prompt and of output. None: not priced that way."""

    per_kwh: float | None = None
    per_million_prompt: float | None = None
    per_million_output: float | None = None

    def of(self, joules: Amount, prompt: float, output: float) -> Amount | None:
        """USD of a call; None where nothing of it is priced."""
        if self.per_million_prompt is not None or self.per_million_output is not None:
            price = (self.per_million_prompt or 0.0, self.per_million_output or 0.0)
            value = (prompt * price[0] + output * price[1]) / 1e6
            return Amount(value, "table", f"{price[0]:g} and {price[1]:g} USD per million tokens of prompt and output")
        if self.per_kwh is not None:
            return joules.times(self.per_kwh / JOULES_PER_KWH, "table", f"{self.per_kwh:g} USD/kWh")
        return None


def token_prices(text: str | None, name: str) -> Tariff | None:
    """The tariff behind `0.15,0.60`: USD per million tokens of prompt and of output. None of None.

    `name`: of the setting or option, for the message. Errors: InputError for anything but two figures from 0 up.
    """
    if text is None:
        return None
    try:
        prompt, output = (float(part) for part in text.split(","))
        if not (0 <= prompt < float("inf") and 0 <= output < float("inf")):
            raise ValueError
    except ValueError as error:
        raise InputError(f"{name} is {text!r}", fix="write the prices of prompt and output tokens such as 0.15,0.60"
                         ) from error  # fmt: skip
    return Tariff(None, prompt, output)
