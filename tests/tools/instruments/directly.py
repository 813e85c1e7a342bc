"""Options priced by QuantLib the plain way: dates, curves, a process, an engine."""

from collections.abc import Callable
from typing import Any

from finllm.tools.instruments.options import quantlib

ql: Any = quantlib()
Terms = dict[str, Any]
"""call, spot, strike, days, volatility, rate and dividend of one option."""


def priced(one: Terms, engine_of: Callable[[Any], Any], *, american: bool) -> float:
    """The price by the engine that is made of the option's process."""
    with ql.SavedSettings():
        today, count = ql.Date(30, 6, 2022), ql.Actual365Fixed()
        ql.Settings.instance().evaluationDate = today
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(ql.SimpleQuote(one["spot"])),
            ql.YieldTermStructureHandle(ql.FlatForward(today, one["dividend"], count)),
            ql.YieldTermStructureHandle(ql.FlatForward(today, one["rate"], count)),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), one["volatility"], count)),
        )  # fmt: skip
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if one["call"] else ql.Option.Put, one["strike"])
        end = today + one["days"]
        option = ql.VanillaOption(payoff, ql.AmericanExercise(today, end) if american else ql.EuropeanExercise(end))
        option.setPricingEngine(engine_of(process))
        return float(option.NPV())
