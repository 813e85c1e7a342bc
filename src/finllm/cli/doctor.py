"""`finllm doctor`: what is installed, which models and nodes answer, what is missing and how to mend it."""

from __future__ import annotations

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples


def add_to(app: typer.Typer) -> None:
    app.command("doctor", epilog=examples("finllm doctor", "finllm doctor --json"))(doctor)


def doctor(as_json: JsonFlag = False) -> None:
    """Check the installation without loading a model. Exits with 1 if something is missing or does not answer.

    Each server is asked one typed question; no local model is loaded.
    """
    from finllm.cli.doctor_checks import all_checks

    checks = all_checks()
    healthy = all(check.status in ("ok", "warning") for check in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [check.to_json() for check in checks]})
    else:
        from finllm.cli.display.report import table, verdict

        rows = [(check.name, verdict(check.status), check.detail, check.fix or "-") for check in checks]
        out_console().print(table(("what", "status", "detail", "mend"), rows))
    if not healthy:
        raise typer.Exit(1)
