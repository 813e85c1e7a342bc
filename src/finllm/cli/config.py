"""`finllm config show`: every setting with its value and where that comes from."""

from __future__ import annotations

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.settings import Settings, load_settings


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The settings: defaults, then $FINLLM_HOME/config.toml, then FINLLM_* variables.",
        epilog=examples("finllm config show", "FINLLM_THREADS=4 finllm config show --json"),
    )
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("show")(show)
    app.add_typer(group, name="config")


def show(as_json: JsonFlag = False) -> None:
    """Show each setting with its value, its origin (default, the config file or a variable) and its meaning."""
    loaded = load_settings()
    values = loaded.settings.model_dump(mode="json")
    rows = [
        {"name": name, "value": values[name], "origin": loaded.origins[name], "meaning": field.description or ""}
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        print_json({"settings": rows})
        return
    from finllm.cli.display.report import table

    out_console().print(table(
        ("setting", "value", "origin", "meaning"),
        [(row["name"], "-" if row["value"] is None else str(row["value"]),
          row["origin"].replace(str(loaded.settings.home), "$FINLLM_HOME"), row["meaning"]) for row in rows],
    ))  # fmt: skip
