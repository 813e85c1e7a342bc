"""The servers that `finllm nodes add` joined to this home: `nodes.json`, checked as it is read, replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from finllm.errors import BackendError, InputError
from finllm.files import exclusive, write_atomically
from finllm.scheduler.backends.offer import Scores
from finllm.scheduler.money.tariff import Tariff
from finllm.scheduler.placement.task import PRECISIONS, Tier
from finllm.settings import Settings

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Joined(BaseModel):
    """A server. `name`: of its backend. `api_key_env`: the variable that holds its key, which is written nowhere.

    `usd_per_mtok`: USD per million tokens of prompt and of output. `context`: tokens, where the server does not tell.
    `scores`: how its probabilities came about when it was joined. `votes`: answers counted where they are votes.
    `power`, `network`: the domains that it fails with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,127}$")
    kind: str
    url: str
    model: str | None = None
    tier: Tier = "deep"
    precision: str = "BF16"
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    usd_per_mtok: tuple[Price, Price] | None = None
    context: int | None = Field(default=None, ge=256)
    scores: Scores | None = None
    votes: int = Field(default=9, ge=3, le=99)
    power: str = Field(default="", max_length=64)
    network: str = Field(default="", max_length=64)

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL such as 'http://localhost:8080'")
        if "@" in parts.netloc or parts.query:
            raise ValueError("a URL must hold no password; put the key into a variable and name it with --api-key-env")
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("precision")
    @classmethod
    def _is_precision(cls, precision: str) -> str:
        if precision not in PRECISIONS:
            raise ValueError(f"{precision!r} is not one of {', '.join(PRECISIONS)}")
        return precision

    @property
    def tariff(self) -> Tariff | None:
        return None if self.usd_per_mtok is None else Tariff(None, *self.usd_per_mtok)

    @property
    def netloc(self) -> str:
        return urlsplit(self.url).netloc

    def key(self, environ: Mapping[str, str] = os.environ) -> SecretStr | None:
        """The key that the server asks for. Errors: BackendError where its variable is not set."""
        if self.api_key_env is None:
            return None
        if not environ.get(self.api_key_env):
            raise BackendError(f"the key of {self.name!r} is not set", fix=f"set {self.api_key_env} to it")
        return SecretStr(environ[self.api_key_env])


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[Joined, ...] = ()


def joined(settings: Settings, kind: str | None = None) -> tuple[Joined, ...]:
    """The servers of this home, or those of a kind. Errors: InputError naming the field, for a file that is wrong."""
    path = settings.nodes_path
    try:
        found = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise InputError(
            f"{str(path)!r}: {first_problem(error)}", fix="correct it there, or remove the file"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="correct or remove the file") from error
    return tuple(one for one in found.nodes if kind in (None, one.kind))


def join(settings: Settings, node: Joined) -> bool:
    """Keep a server, in place of one of that name; whether that changed anything.

    Errors: InputError for a server and model that are here under another name, or a file that cannot be written.
    """
    for one in joined(settings):
        if one.name != node.name and (one.url, one.model) == (node.url, node.model):
            raise InputError(f"{node.url} is here already, as {one.name!r}", fix=f"finllm nodes remove {one.name}")
    return _rewrite(settings, node.name, node)


def leave(settings: Settings, name: str) -> None:
    """Forget a server. Errors: InputError for one that was not joined."""
    names = [one.name for one in joined(settings)]
    if name not in names:
        told = ", ".join(map(repr, names)) or "none"
        raise InputError(f"no node {name!r} was added (known: {told})",
                         fix="'finllm nodes' lists them; servers of FINLLM_VLLM_URLS leave with that variable"
                         )  # fmt: skip
    _rewrite(settings, name, None)


def first_problem(error: ValidationError) -> str:
    """What is wrong first, with its field."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _rewrite(settings: Settings, name: str, node: Joined | None) -> bool:
    try:
        with exclusive(settings.nodes_path.with_suffix(".lock")):
            before = joined(settings)
            after = [one for one in before if one.name != name]
            if node is not None:
                after.insert(next((at for at, one in enumerate(before) if one.name == name), len(after)), node)
            if tuple(after) == before:
                return False
            rows = [one.model_dump(mode="json", exclude_none=True) for one in after]
            write_atomically(settings.nodes_path, json.dumps({"nodes": rows}, indent=2, ensure_ascii=False) + "\n")
            return True
    except OSError as error:
        raise InputError(f"cannot write {str(settings.nodes_path)!r}: {error}",
                         fix="give FINLLM_HOME a folder that you may write to") from error  # fmt: skip
