"""The tools of the protocol, by the package's own client: the same figures as the command line, and nothing written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mcp import Client, StdioServerParameters, stdio_client

import finllm
from finllm.chat.catalogue import answerable
from finllm.chat.serving import open_server
from finllm.chat.table import Table
from finllm.desk import desk
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.graphs.test_flow import READS_WELL
from tests.warm import Warm

T = TypeVar("T")


def asked(home: Path, talk: Callable[[Client], Awaitable[T]], *, allow_runs: bool = False) -> T:
    async def within() -> T:
        async with Client(open_server(Settings(home=home), allow_runs=allow_runs)) as client:
            return await asyncio.wait_for(talk(client), 120)

    return asyncio.run(within())


def test_the_catalogue_is_the_list_of_tools_and_all_but_run_only_read(chat_home: Path) -> None:
    tools = asked(chat_home, lambda client: client.list_tools()).tools
    assert {one.name for one in tools} == {*(kind.id for kind in answerable()), "ask", "stress"}
    assert all(one.annotations and one.annotations.read_only_hint for one in tools)
    by_name = {one.name: one for one in tools}
    assert by_name["source_said"].input_schema["required"] == ["source"]
    assert by_name["position"].input_schema["properties"]["position"]["type"] == "array"
    allowed = asked(chat_home, lambda client: client.list_tools(), allow_runs=True).tools
    assert {one.name for one in allowed if not (one.annotations and one.annotations.read_only_hint)} == \
        {"run", "session_open", "session_edit", "session_undo", "session_compare"}  # fmt: skip


def test_the_command_lists_its_tools_as_json(
    chat_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finllm.cli.main import main

    monkeypatch.setenv("FINLLM_HOME", str(chat_home))
    assert main(["mcp", "--json"]) == 0
    tools = json.loads(capsys.readouterr().out)["tools"]
    assert {"total", "ask", "stress"} <= {one["name"] for one in tools}
    assert "run" not in {one["name"] for one in tools}


def test_a_tool_gives_the_report_s_figure_with_its_row(chat_home: Path, table: Table) -> None:
    result = asked(chat_home, lambda client: client.call_tool("total", {"run": "run-hormuz"}))
    found = result.structured_content
    assert found is not None
    total = table.report.total
    assert total.cited in found["answer"][0]
    assert next(row for row in found["rows"] if row["id"] == total.evidence)["value"] == total.value
    said = asked(chat_home, lambda client: client.call_tool("source_said", {"source": ["hrz-navy-1"]}))
    assert "Minesweepers" in " ".join(said.structured_content["answer"])  # pyright: ignore[reportOptionalSubscript]


def test_a_stress_is_that_of_the_command_line(
    chat_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finllm.cli.main import main

    monkeypatch.setenv("FINLLM_HOME", str(chat_home))
    wanted: dict[str, Any] = {"shocks": ["EQUITY_US=-10%"], "as_of": "2022-06-30"}
    found = asked(chat_home, lambda client: client.call_tool("stress", wanted)).structured_content
    assert main(["stress", "--shock", "EQUITY_US=-10%", "--as-of", "2022-06-30", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert found is not None
    assert {name: found[name] for name in ("total", "by_factor", "by_position", "breaches")} == \
        {name: said[name] for name in ("total", "by_factor", "by_position", "breaches")}  # fmt: skip


def test_resources_are_runs_and_scenarios(chat_home: Path, table: Table) -> None:
    async def read(client: Client) -> list[Any]:
        return [(await client.read_resource(uri)).contents[0] for uri in
                ("finllm://runs", "finllm://runs/run-hormuz", "finllm://scenarios/hormuz-blockade")]  # fmt: skip

    runs, report, scenario = asked(chat_home, read)
    assert {one["id"] for one in json.loads(runs.text)} == {"run-hormuz", "run-hawkish"}
    assert json.loads(report.text)["total"]["value"] == table.report.total.value
    assert scenario.text.splitlines()[1].startswith("title: Hormuz")


def test_an_unknown_run_is_an_error_with_its_mend(chat_home: Path) -> None:
    result = asked(chat_home, lambda client: client.call_tool("total", {"run": "run-none"}))
    assert result.is_error
    assert "finllm runs list" in str(result.content)


def test_a_session_over_the_protocol_has_the_figures_of_the_command_line(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finllm.cli.main import main

    home = warm.home(tmp_path / "home")
    warm.open_here(monkeypatch)
    monkeypatch.setattr(desk, "open_backends", lambda _opening: [ScriptedBackend([READS_WELL], name="edge")])
    monkeypatch.setenv("FINLLM_HOME", str(home))
    edit = 'shock OIL_WTI +60% because "two lanes are mined"'

    async def talk(client: Client) -> list[Any]:
        opened = (await client.call_tool("session_open", {"start": "non-event"})).structured_content
        assert opened is not None
        of = {"session": opened["session"]}
        edited = (await client.call_tool("session_edit", {**of, "line": edit})).structured_content
        compared = (await client.call_tool("session_compare", {**of, "version": "v1"})).structured_content
        undone = (await client.call_tool("session_undo", of)).structured_content
        shown = (await client.call_tool("session_show", of)).structured_content
        refused = [await client.call_tool(name, given) for name, given in (
            ("session_edit", {**of, "line": "shock OIL_WTI +5%"}), ("session_edit", {**of, "line": "undo"}),
            ("session_edit", {**of, "line": "limits /etc/passwd"}), ("session_open", {"start": "/etc/passwd"}),
            ("session_edit", {**of, "line": "source add /etc/passwd"}))]  # fmt: skip
        return [opened, edited, compared, undone, shown, refused]

    opened, edited, compared, undone, shown, refused = asked(home, talk, allow_runs=True)
    script = tmp_path / "script.txt"
    script.write_text(f"{edit}\nundo\n", encoding="utf-8")
    assert main(["session", "non-event", "--script", str(script), "--json", "--quiet"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    figures = ("total", "by_factor", "interval", "compliance", "breaches")
    for found, said in zip((opened, edited, undone), rows, strict=True):
        assert {name: found[name] for name in figures} == {name: said[name] for name in figures}
    assert edited["base"]["total"] == opened["total"] == shown["total"]
    assert any(row["value"] == edited["total"] for row in edited["rows"])
    assert "v1 against v2" in compared["said"][0]
    assert all(one.is_error for one in refused)
    assert "because" in str(refused[0].content)
    assert all("for a program" in str(one.content) for one in refused[2:])


@pytest.mark.slow
def test_over_stdio_a_client_lists_and_calls(chat_home: Path) -> None:
    env = {**os.environ, "FINLLM_HOME": str(chat_home), "PYTHONPATH": str(Path(finllm.__file__).parents[1])}
    code = "import sys; from finllm.cli.main import main; sys.exit(main())"
    server = StdioServerParameters(command=sys.executable, args=["-c", code, "mcp"], env=env)

    async def within() -> Any:
        async with Client(stdio_client(server)) as client:
            await client.list_tools()
            return (await client.call_tool("horizon", {})).structured_content

    found = asyncio.run(asyncio.wait_for(within(), 120))
    assert "20 days" in found["answer"][0]


@pytest.mark.slow
def test_over_http_it_listens_on_the_loopback_and_refuses_another_host(chat_home: Path) -> None:
    import httpx

    env = {**os.environ, "FINLLM_HOME": str(chat_home), "PYTHONPATH": str(Path(finllm.__file__).parents[1])}
    code = "import sys; from finllm.cli.main import main; sys.exit(main())"
    port = _free_port()
    with subprocess.Popen([sys.executable, "-c", code, "mcp", "--transport", "http", "--port", str(port)], env=env,
                          stderr=subprocess.PIPE) as child:  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}/mcp"

            async def within() -> Any:
                for _ in range(240):
                    try:
                        async with Client(url) as client:
                            return (await client.call_tool("as_of", {})).structured_content
                    except Exception:  # noqa: BLE001  it is not up yet
                        await asyncio.sleep(0.25)
                raise AssertionError("the server did not come up")

            found = asyncio.run(within())
            assert "2022-06-30" in found["answer"][0]
            assert httpx.post(url, headers={"Host": "evil.example"}, json={}).status_code in (403, 421)
        finally:
            child.terminate()
            child.wait(30)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
