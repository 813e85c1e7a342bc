"""The nodes file: machines, their zones and the backends that they offer, as YAML or JSON, checked as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import InputError
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.scheduler.placement.fleet import BackendSpec, Floats, Profile
from finllm.scheduler.placement.task import PRECISIONS, Tier


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfileEntry(_Strict):
    """Speed in tokens/s and energy in J per token; `decode` by batch: tokens/s of all sequences together."""

    prefill: float = Field(gt=0)
    decode: dict[int, float]
    prefill_joules: float = Field(ge=0)
    decode_joules: dict[int, float]

    def profile(self) -> Profile:
        return Profile(self.prefill, self.decode, self.prefill_joules, self.decode_joules, "table")


class BackendEntry(_Strict):
    """A backend of a node. `profile`: its own figures, a name under `profiles`, or a precision calibrated here.

    `copies`: as many backends alike. `speed`, `joules`: factors on the profile.
    """

    name: str
    tier: Tier
    precision: str
    profile: ProfileEntry | str
    slots: int = Field(default=8, ge=1, le=1024)
    kv_tokens: int = Field(default=32_768, ge=1)
    context: int = Field(default=4_096, ge=1)
    family: str = "default"
    link: float = Field(default=0.0, ge=0)
    usd_per_token: float = Field(default=0.0, ge=0)
    quality: dict[str, float] = {}
    wake: float = Field(default=0.0, ge=0)
    asleep_after: float = Field(default=float("inf"), gt=0)
    copies: int = Field(default=1, ge=1, le=1000)
    speed: float = Field(default=1.0, gt=0)
    joules: float = Field(default=1.0, gt=0)


class NodeEntry(_Strict):
    """A machine. `shared`: its backends compute on the same processors. `power`, `network`: domains that fail
    as one."""

    name: str
    zone: str
    backends: tuple[BackendEntry, ...] = Field(min_length=1)
    shared: bool = False
    power: str = ""
    network: str = ""


class ZoneEntry(_Strict):
    """A zone's grid: g CO₂e per kWh, a constant or a CSV's path."""

    grams_per_kwh: float | Path | None = None
    kind: Literal["average", "marginal"] = "average"


class NodesFile(_Strict):
    """What a nodes file holds."""

    zones: dict[str, ZoneEntry] = {}
    profiles: dict[str, ProfileEntry] = {}
    nodes: tuple[NodeEntry, ...] = Field(min_length=1)


def read_nodes(path: Path) -> NodesFile:
    """Errors: InputError naming the field, for a file that cannot be read, an unknown zone or precision, a negative
    intensity, or two backends of one name."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        file = NodesFile.model_validate(loaded)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="name a nodes file in YAML") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{str(path)!r}, {where}: {first['msg']}", fix="correct it there") from error
    for node in file.nodes:
        if node.zone not in file.zones:
            known = ", ".join(sorted(file.zones)) or "none"
            raise InputError(f"{str(path)!r}: node {node.name!r} is in the unknown zone {node.zone!r} (known: {known})",
                             fix="add it under 'zones'")  # fmt: skip
        for backend in node.backends:
            if backend.precision not in PRECISIONS:
                raise InputError(f"{str(path)!r}: {backend.name!r} has the unknown precision {backend.precision!r}",
                                 fix=f"one of {', '.join(PRECISIONS)}")  # fmt: skip
    for name, zone in file.zones.items():
        if isinstance(zone.grams_per_kwh, float) and not 0 <= zone.grams_per_kwh < float("inf"):
            raise InputError(f"{str(path)!r}: zone {name!r} has {zone.grams_per_kwh} g CO₂e per kWh",
                             fix="an intensity is finite and not negative")  # fmt: skip
    return file


def specs_of(file: NodesFile, calibrations: Sequence[RungCalibration] = ()) -> list[BackendSpec]:
    """The backends of a nodes file. `calibrations`: what was measured on this machine.

    Errors: InputError for a profile that is neither in the file nor calibrated, or a name given twice.
    """
    specs: list[BackendSpec] = []
    for node in file.nodes:
        for entry in node.backends:
            profile, quality = _profile(entry, file, calibrations)
            profile = profile.faster(entry.speed, entry.joules)
            for copy in range(entry.copies):
                specs.append(
                    BackendSpec(
                        entry.name if entry.copies == 1 else f"{entry.name}-{copy + 1}", entry.tier, entry.precision,
                        profile, entry.slots, entry.kv_tokens, entry.context, node.name, node.zone, entry.family,
                        entry.link, entry.usd_per_token, {**quality, **entry.quality}, entry.wake,
                        entry.asleep_after, node.shared, power=node.power, network=node.network,
                    )
                )  # fmt: skip
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two backends are named {twice!r}", fix="give each a name of its own")
    return specs


def _profile(
    entry: BackendEntry, file: NodesFile, calibrations: Sequence[RungCalibration]
) -> tuple[Profile, Mapping[str, float]]:
    if isinstance(entry.profile, ProfileEntry):
        return entry.profile.profile(), {}
    if entry.profile in file.profiles:
        return file.profiles[entry.profile].profile(), {}
    taken = [one for one in calibrations if one.precision == entry.profile]
    if not taken:
        known = ", ".join(sorted({*file.profiles, *(one.precision for one in calibrations)})) or "none"
        raise InputError(f"the backend {entry.name!r} asks for the profile {entry.profile!r} (known: {known})",
                         fix="give it under 'profiles', or measure it with 'finllm calibrate'")  # fmt: skip
    latest = max(taken, key=lambda one: one.taken_at)
    return Profile.of(latest.speed), {agent: found.lower for agent, found in latest.quality.items()}


def grid_of(file: NodesFile, specs: Sequence[BackendSpec]) -> Callable[[float], Floats] | None:
    """The grid's intensity by backend at a time, g CO₂e per kWh, (B,); None where no zone tells a constant one.

    A zone that tells none counts as 0.
    """
    given = {name: zone.grams_per_kwh for name, zone in file.zones.items()}
    grams = np.array([found if isinstance(found := given[spec.zone], float) else 0.0 for spec in specs])
    return (lambda _time: grams) if grams.any() else None
