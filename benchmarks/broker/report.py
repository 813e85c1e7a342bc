"""The broker's figures as sections of a page, each with its bars, and the plot beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.broker.carbon import Saved
from benchmarks.broker.cells import DAY, LOADS, SIZES, Cell, traces
from benchmarks.broker.energy import Energy
from benchmarks.broker.escalation import Escalation
from benchmarks.broker.faults import Fault
from benchmarks.broker.faults import met as faults_met
from benchmarks.broker.faults import table as faults_table
from benchmarks.broker.live import Validity
from benchmarks.broker.occasions import Occasion
from benchmarks.broker.quality import MOST_DEEP, SHOWN_FROM, Gap, Quality
from benchmarks.broker.rivals import OURS, POLICIES
from benchmarks.broker.speed import BARS, Speed
from benchmarks.broker.terms import Diversity, Earned, Faults, Foresight
from benchmarks.broker.windows import LOAD, TASKS, Window, share_of_best
from benchmarks.intervals import interval
from finllm.scheduler.simulation.achieved import Metrics

PLOT = Path(__file__).resolve().parents[2] / "docs" / "broker-goodput.svg"
PATIENT = "weighted, refusing nothing"


@dataclass(frozen=True)
class Section:
    """A part of the page; `points` are what the plot shows: node set, trace, load, policy, goodput."""

    text: str
    met: bool = True
    points: Sequence[tuple[str, str, float, str, float]] = field(default=())


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _bar(met: bool) -> str:
    return "met" if met else "MISSED"


def speed(found: Sequence[Speed]) -> Section:
    """One decision's time against its bar and LiteLLM's."""
    rows = [
        (one.backends, f"{one.one * 1e6:.0f} µs", f"≤ {BARS[one.backends] * 1e6:.0f} µs",
         _bar(one.one <= BARS[one.backends]), f"{one.sixteen * 1e6:.0f} µs", f"{one.litellm * 1e6:.0f} µs",
         f"{one.litellm / one.one:.1f}")
        for one in found
    ]  # fmt: skip
    heads = ("backends", "a decision", "bar", "", "of 16 waiting", "LiteLLM least-busy", "ratio")
    text = "**A decision**, the change of the last one taken in, median:\n\n" + _table(heads, rows)
    return Section(text, all(one.one <= BARS[one.backends] for one in found))


def quality(measured: Sequence[Gap], escalation: Escalation | None, supposed: Sequence[Quality]) -> Section:
    """The measured gap of the configured tiers first; then the pruned rung's, and what escalation does about it."""
    first = "**The measured gap between edge and deep, by agent**: " + (
        "; ".join(f"{one.agent} {one.edge:.2f} → {one.deep:.2f}" for one in measured)
        or "not measured here; run `finllm calibrate`"
    )
    shown = [one.agent for one in measured if one.shown]
    told = (
        f". It is {SHOWN_FROM * 100:.0f} points or more for {', '.join(shown)}."
        if shown
        else f". Nowhere {SHOWN_FROM * 100:.0f} points: quality is **not shown** by these models."
    )
    rows = [
        (f"{one.edge:.2f} / {one.deep:.2f}", one.signal, f"{one.kept:.3f}", f"{one.escalated.deep_share:.2f}",
         f"{one.routed.quality / one.always_deep.quality:.3f}", f"{one.routed.deep_share:.2f}",
         _bar(one.kept >= 0.95 and one.escalated.deep_share <= MOST_DEEP))
        for one in supposed
    ]  # fmt: skip
    heads = ("edge / deep right", "signal, sd", "escalating: share of always-deep's quality", "deep tokens",
             "deciding beforehand", "deep tokens ", "bar ≥ 0.95 at ≤ 0.35")  # fmt: skip
    more = "\n\nOn supposed tiers (a latent difficulty for each task, confidence with that signal; not measured):\n\n"
    if escalation is None:
        return Section(first + told + more + _table(heads, rows))
    one = escalation
    share, least, most = one.kept
    kept, equal = share >= 0.95 and one.deep_tokens <= MOST_DEEP, most >= 1
    by_agent, by_vote = (
        "; ".join(f"{gap.agent} {gap.edge:.2f} → {gap.deep:.2f} (n {gap.items})" for gap in of)
        for of in (one.gaps, one.votes)
    )
    real = (
        f"\n\n**The pruned rung as edge, full depth as deep**, on unseen items of the corpus: {by_agent}. Votes at "
        f"full depth: {by_vote}. Full depth is asked where the edge is far enough under what full depth has right, for "
        f"the length of the prompt (fitted on validation); at once, where that is to be expected of it: "
        f"{one.escalated:.3f} of fields right, edge alone {one.edge:.3f}, always deep {one.deep:.3f}, a router by the "
        f"text at the same share {one.routed:.3f}. That is {share:.3f} of always deep (95 % {least:.3f}–{most:.3f}) at "
        f"{one.deep_tokens:.2f} of its tokens, {one.at_once:.2f} at once (bar ≥ 0.95 at ≤ 0.35: {_bar(kept)}). Both "
        f"asked so in one go, {one.saved:+.0%} of its joules ({one.basis}) and {one.quicker:+.0%} of its seconds are "
        f"saved (bar ≥ 30 % of joules: {_bar(one.saved >= 0.3)}; at a quality that the interval does not tell from "
        f"always deep's: {_bar(equal)})."
    )
    prices = [
        (f"{point.price:g}", "{:.3f} ({:.3f}–{:.3f})".format(*point.kept), f"{point.deep_tokens:.2f}",
         f"{point.saved:+.0%}")
        for point in one.frontier
    ]  # fmt: skip
    frontier = "\n\nThe same rule at other prices of full depth, the savings reckoned by text:\n\n" + _table(
        ("times the card's", "of always-deep's quality (95 %)", "deep tokens", "saved"), prices
    )
    return Section(first + told + real + frontier + more + _table(heads, rows), kept)


def goodput(found: Sequence[tuple[Cell, str, Metrics]]) -> Section:
    """Tasks in time: by cell and policy, ours against the best rival, with the bars on lateness and fairness."""
    by: dict[tuple[str, str, float], dict[str, list[Metrics]]] = {}
    for cell, policy, one in found:
        by.setdefault((cell.nodes, cell.trace, cell.load), {}).setdefault(policy, []).append(one)
    rivals = [policy for policy in POLICIES if policy not in (OURS, PATIENT)]
    heads = ("nodes", "trace", "load", "weighted", "95 %", "refused", "refusing nothing", "best rival", "its", "ratio",
             "fcfs", "late p99: ours / best's", "ahead")  # fmt: skip
    rows: list[Sequence[object]] = []
    failed: list[str] = []
    points: list[tuple[str, str, float, str, float]] = []
    ahead_of = late_ok = judged = 0
    for (nodes, trace, load), policies in by.items():
        mean = {policy: interval([one.goodput for one in each]) for policy, each in policies.items()}
        best = max(rivals, key=lambda policy: mean[policy][0])
        ours, fcfs = mean[OURS], mean["fcfs"][0]
        late = {policy: float(np.mean([one.late_p99 for one in policies[policy]])) for policy in (OURS, best)}
        must = fcfs < 0.9
        ahead = ours[0] > mean[best][0]
        judged += must
        ahead_of += must and ahead
        late_ok += must and late[OURS] <= late[best]
        rows.append((nodes, trace, load, f"{ours[0]:.3f}", f"{ours[1]:.3f}–{ours[2]:.3f}",
                     f"{np.mean([one.refused for one in policies[OURS]]):.2f}", f"{mean[PATIENT][0]:.3f}", best,
                     f"{mean[best][0]:.3f}", f"{ours[0] / mean[best][0]:.2f}", f"{fcfs:.3f}",
                     f"{late[OURS]:.1f} / {late[best]:.1f} s", "yes" if ahead else "no"))  # fmt: skip
        if trace == DAY and load == 0.9:
            ratio = ours[0] / mean[best][0]
            failed.append(f"{nodes}: {ratio:.2f} ({_bar(ratio >= 1.3)}; the best rival keeps {mean[best][0]:.2f})")
        points += [(nodes, trace, load, policy, mean[policy][0]) for policy in mean]
    gaps = [one.gap / one.gap_bound for _, policy, one in found if policy in (OURS, PATIENT)]
    bars = [
        ("ahead of every rival where FCFS is under 90 %", f"{ahead_of} of {judged} cells", ahead_of == judged),
        ("p99 lateness no worse than the best rival's, there", f"{late_ok} of {judged} cells", late_ok == judged),
        ("service gap of tenants with work waiting / VTC's bound, worst", f"{max(gaps):.2f}", max(gaps) <= 1),
    ]
    lines = [
        "**Tasks in time**, five seeds; each policy at the best of eight settings on another hour:",
        "", _table(heads, rows), "",
        "Trading day at load 0.9, ours / the best rival (bar ≥ 1.3): " + "; ".join(failed) + ".",
        "", _table(("bar", "measured", ""), [(name, value, _bar(met)) for name, value, met in bars]), "",
        "![tasks in time by policy](broker-goodput.svg)",
    ]  # fmt: skip
    met = all(met for _, _, met in bars) and not any("MISSED" in one for one in failed)
    return Section("\n".join(lines), met, points)


def windows(found: Sequence[Window]) -> Section:
    """The policy beside the optimum's bound."""
    share = share_of_best(found)
    edf = sum(one.edf for one in found) / sum(one.best.bound for one in found)
    proved = sum(one.best.proved for one in found)
    text = (
        f"**Beside the optimum**: {len(found)} windows of {TASKS} tasks at load {LOAD} in the fixed-batch model, "
        f"lengths known: {share:.3f} of the bound (bar ≥ 0.9: {_bar(share >= 0.9)}); earliest deadline first "
        f"{edf:.3f}. The solver proved {proved} of the windows optimal; elsewhere its upper bound stands."
    )
    return Section(text, share >= 0.9)


def joules(found: Sequence[Energy]) -> Section:
    """What is saved against the deep tier alone, under several tables."""
    met = found[0].saved[0] >= 0.3
    rows = [
        (one.figures, f"{one.saved[0]:+.1%}", f"{one.saved[1]:+.1%} to {one.saved[2]:+.1%}", " < ".join(one.ranking))
        for one in found
    ]
    text = (
        "**Joules saved against always-deep**, on the trading day, with joules dear (modelled, see docs/broker.md); "
        f"bar ≥ 30 % with the figures measured here: {_bar(met)}\n\n"
    )
    return Section(text + _table(("figures", "saved", "95 %", "ranking, least joules first"), rows), met)


def terms(
    earned: Sequence[Earned], met: Sequence[Occasion], foreseen: Sequence[Foresight], diverse: Sequence[Diversity],
    saved: Sequence[Saved],
) -> Section:  # fmt: skip
    """What each term of the objective earns, and the mechanisms beside it."""
    base = earned[0]
    rows = [
        (one.off, f"{one.goodput:.3f}", f"{one.goodput - base.goodput:+.3f}", f"{one.worth - base.worth:+.3f}",
         f"{one.late_p99:.1f}", f"{one.joules / base.joules - 1:+.1%}", f"{one.deep_share:.2f}", f"{one.gap:.0f}")
        for one in earned
    ]  # fmt: skip
    lines = [
        "**What each mechanism earns**: means over two node sets, all traces and five seeds at load 0.9, without it",
        "",
        _table(("off", "in time", "change", "by value", "late p99", "joules", "deep tokens", "gap"), rows),
        "",
        "Those that these traces hardly call for, where they are; means over seeds and the same node sets unless said:",
        "",
        _table(("mechanism", "occasion", "measure", "with", "without"),
               [(one.mechanism, one.occasion, one.measure, f"{one.on:.4g}", f"{one.off:.4g}") for one in met]),
        "",
        "**Foresight**: the trading day with a deep backend that sleeps after 60 s and wakes in 20 s",
        "",
        _table(("load", "with", "live tasks in time", "p99 s", "J"),
               [(one.load, one.name, f"{one.live:.3f}", f"{one.latency_p99:.1f}", f"{one.joules:.0f}")
                for one in foreseen]),
        "",
        "**Synchronised answers**: the commonest family's share of an event's answers, by the price on it (default 0)",
        "",
        _table(("price", "share", "in time"),
               [(one.price, f"{one.synchronised:.3f}", f"{one.goodput:.3f}") for one in diverse]),
        "",
        "**Carbon of the back-test**, which may wait four hours, in 2022's average intensities (life cycle): "
        + ("; ".join(f"{one.zone} {one.share:.1%} fewer grams, {one.kept:.0%} in time" for one in saved) or "no files")
        + ".",
    ]  # fmt: skip
    return Section("\n".join(lines))


def struck(simulated: Faults, live: Sequence[Fault]) -> Section:
    """What was lost, done twice and found late when backends died or stood still."""
    met = simulated.lost == simulated.doubles == 0 and simulated.slowest <= 5
    lines = [
        f"**Faults**: {simulated.injected} simulated: {simulated.lost} tasks lost, {simulated.doubles} answered twice, "
        f"{simulated.found} that stopped work found within {simulated.slowest:.1f} s (bar 5 s: {_bar(met)}). Live, the "
        f"engine's process struck under load ({_bar(faults_met(live))}):",
        "",
        *faults_table(live),
    ]
    return Section("\n".join(lines), met and faults_met(live))


def simulator(valid: Validity) -> Section:
    """Whether the simulator is right."""
    met = abs(valid.ratio - 1) <= 0.15
    return Section(f"**The simulator**: {valid.told} (bar within 15 %: {_bar(met)})", met)


def plot(sections: Sequence[Section]) -> None:
    """Tasks in time by load, a line a policy, a panel for each node set and trace."""
    import altair as alt
    import vl_convert

    rows: list[Mapping[str, object]] = [
        {"panel": f"{nodes}, {trace}", "load": load, "policy": policy, "in time": value}
        for section in sections
        for nodes, trace, load, policy, value in section.points
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("load:Q", scale=alt.Scale(domain=[min(LOADS), max(LOADS)]), axis=alt.Axis(values=list(LOADS))),
            y=alt.Y("in time:Q", axis=alt.Axis(format="%")),
            color=alt.Color("policy:N", sort=list(POLICIES), scale=alt.Scale(scheme="tableau20")),
            strokeWidth=alt.condition(alt.datum.policy == OURS, alt.value(4), alt.value(1.5)),
        )
        .properties(width=240, height=170)
        .facet(facet=alt.Facet("panel:N", title=None, sort=[f"{n}, {t}" for n in SIZES for t in traces()]), columns=3)
    )
    PLOT.write_text(vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[]), encoding="utf-8")
