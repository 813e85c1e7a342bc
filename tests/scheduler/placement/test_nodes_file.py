"""The nodes file: what it gives, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.scheduler.placement.nodes_file import grid_of, read_nodes, specs_of

SHIPPED = sorted((Path(__file__).parents[3] / "scenarios" / "nodes").glob("*.yaml"))
PROFILE = "{prefill: 100, decode: {1: 10}, prefill_joules: 0.1, decode_joules: {1: 0.2}}"


def nodes(tmp_path: Path, backend: str, zone: str = "{grams_per_kwh: 100.0}") -> Path:
    path = tmp_path / "nodes.yaml"
    path.write_text(f"zones: {{here: {zone}}}\nnodes: [{{name: box, zone: here, backends: [{backend}]}}]\n")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_hold_both_tiers(path: Path) -> None:
    specs = specs_of(read_nodes(path))
    assert {spec.tier for spec in specs} == {"edge", "deep"}
    assert len(specs) == {"edge-deep": 2, "four-mixed": 4, "thirty-two-mixed": 32}[path.stem]


def test_copies_and_factors(tmp_path: Path) -> None:
    path = nodes(tmp_path, f"{{name: e, tier: edge, precision: Q4_0, copies: 2, speed: 2, profile: {PROFILE}}}")
    file = read_nodes(path)
    specs = specs_of(file)
    assert [spec.name for spec in specs] == ["e-1", "e-2"]
    assert specs[0].profile.prefill == 200
    grid = grid_of(file, specs)
    assert grid is not None
    assert grid(0.0).tolist() == [100.0, 100.0]


@pytest.mark.parametrize(
    ("backend", "zone", "said"),
    [
        (f"{{name: e, tier: edge, precision: Q3, profile: {PROFILE}}}", "{}", "unknown precision 'Q3'"),
        (f"{{name: e, tier: cloud, precision: F16, profile: {PROFILE}}}", "{}", "nodes.0.backends.0.tier"),
        ("{name: e, tier: edge, precision: Q4_0, profile: mine}", "{}", "asks for the profile 'mine'"),
        (
            f"{{name: e, tier: edge, precision: Q4_0, profile: {PROFILE}}}",
            "{grams_per_kwh: -5.0}",
            "-5.0 g CO₂e per kWh",
        ),
        (f"{{name: e, tier: edge, precision: Q4_0, slots: 0, profile: {PROFILE}}}", "{}", "slots"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, backend: str, zone: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        specs_of(read_nodes(nodes(tmp_path, backend, zone)))


def test_an_unknown_zone_is_named(tmp_path: Path) -> None:
    path = nodes(tmp_path, f"{{name: e, tier: edge, precision: Q4_0, profile: {PROFILE}}}")
    path.write_text(path.read_text().replace("zone: here", "zone: there"))
    with pytest.raises(InputError, match="unknown zone 'there'"):
        read_nodes(path)


def test_two_backends_of_one_name_are_refused(tmp_path: Path) -> None:
    one = f"{{name: e, tier: edge, precision: Q4_0, profile: {PROFILE}}}"
    with pytest.raises(InputError, match="two backends are named 'e'"):
        specs_of(read_nodes(nodes(tmp_path, f"{one}, {one}")))
