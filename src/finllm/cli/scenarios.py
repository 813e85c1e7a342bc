"""`finllm scenarios list`: the scenarios and portfolios that come with finllm."""

from __future__ import annotations

import typer

from finllm.cli.display.terminal import LISTED_WIDTH, out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.sessions.requests import shipped_scenarios


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="The scenarios that come with finllm.", epilog=examples("finllm scenarios list"))
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("list")(list_scenarios)
    app.add_typer(group, name="scenarios")


def list_scenarios(as_json: JsonFlag = False) -> None:
    """List the shipped scenarios: name, title, horizon in trading days, as-of day, sources and user shocks."""
    from finllm.tools.data.scenario import load_scenario

    rows = []
    for name, path in shipped_scenarios().items():
        story = load_scenario(path)
        rows.append({
            "name": name, "title": story.title, "horizon": story.horizon, "as_of": story.as_of.isoformat(),
            "sources": len(story.sources),
            "shocks": {entry.factor: entry.move for entry in story.shocks},
            "replay": story.replay.model_dump(mode="json") if story.replay else None, "path": str(path),
        })  # fmt: skip
    portfolios = [str(path) for path in sorted(PORTFOLIOS_DIR.glob("*.csv"))]
    if as_json:
        print_json({"scenarios": rows, "portfolios": portfolios, "limits": str(PORTFOLIOS_DIR / "limits.yaml")})
        return
    from finllm.cli.display.report import listing, text

    def shocks(row: dict[str, object]) -> str:
        replay = row["replay"]
        given = row["shocks"]
        assert isinstance(given, dict)
        said = [f"{factor} {move}" for factor, move in given.items()]
        return ", ".join(said + ([f"replay {replay['start']} to {replay['end']}"] if isinstance(replay, dict) else []))

    console = out_console(LISTED_WIDTH)
    listed = [
        (f"{row['name']}: {row['title']}",
         [f"as of {row['as_of']}, {row['horizon']} days, {row['sources']} sources", *filter(None, [shocks(row)])])
        for row in rows
    ]  # fmt: skip
    console.print(listing(listed), crop=False)
    console.print(text(f"scenario files are in {SCENARIOS_DIR}", "dim"))
    console.print(text(f"portfolios and limits are in {PORTFOLIOS_DIR}", "dim"))
