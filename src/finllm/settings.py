"""Settings: defaults, then `$FINLLM_HOME/config.toml`, then `FINLLM_*` variables; each value knows its origin."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from finllm.errors import InputError
from finllm.files import check_secret

ENV_PREFIX = "FINLLM_"
DEFAULT_HOME = Path("~/.finllm")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that are this machine: what goes there is read by nobody on the way."""


class Settings(BaseModel):
    """One value per thing that a user may tune. Units stand in the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default=DEFAULT_HOME, description="folder of models, ledger, knowledge base and runs")
    model: Path | None = Field(
        default=None, description="registered name or GGUF file of the ladder; unset: the embedded one"
    )
    adapter: str = Field(
        default="auto", description="LoRA adapter merged into the ladder: auto (the shipped one), none, or a GGUF file"
    )
    encoder_cache: Path | None = Field(
        default=None, description="folder of the joined encoder, 440 MB, which homes may share; unset: in the home"
    )
    edge_precision: str = Field(default="Q4_0", description="ladder rung of the edge backend")
    deep_precision: str = Field(default="F16", description="ladder rung of the deep backend")
    escalate: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="ask a doubtful judgement again, finer: auto where finer was measured better, always, or never",
    )
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256, description="threads per backend")
    context: int = Field(default=4096, ge=512, le=131072, description="context length of a backend, tokens")
    slots: int = Field(
        default=8, ge=1, le=256, description="calls side by side on a backend; 1: the same bits for the same call"
    )
    prefix_cache: int = Field(default=256, ge=0, le=65536, description="saved prompts of a backend, MiB")
    call_timeout: float = Field(default=120.0, gt=0, le=3600, description="longest wait for one model call, s")
    seed: int = Field(default=0, ge=0, description="seed recorded with every model call")
    cluster: str | None = Field(
        default=None, description="address of the cluster whose nodes answer, or 'here'; needs finllm[cluster]"
    )
    vllm_urls: tuple[str, ...] = Field(
        default=(), description="vLLM servers of the deep tier, asked before the local rung; in a variable, by commas"
    )
    vllm_model: str | None = Field(default=None, description="model or adapter to ask there; unset: the first served")
    vllm_precision: str = Field(default="BF16", description="precision of the served weights, which vLLM does not tell")
    vllm_folder: Path | None = Field(
        default=None, description="weights that vLLM serves inside this process; needs finllm[gpu]"
    )
    vllm_api_key: SecretStr | None = Field(default=None, description="key that the vLLM servers ask for")
    vllm_usd_per_mtok: str | None = Field(
        default=None, description="what they charge per million tokens of prompt and output, USD, such as 0.15,0.60"
    )
    usd_per_kwh: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="price of this machine's energy, USD/kWh"
    )
    currency: str = Field(default="USD", description="currency of results, such as EUR")
    carbon: str | None = Field(
        default=None, description="grid intensity, gCO₂e/kWh: a number, or a CSV file by time; unset: none is told"
    )
    zone: str | None = Field(default=None, description="grid zone of this machine, where the file holds several")
    carbon_kind: Literal["average", "marginal"] = Field(default="average", description="which intensity that is")
    carbon_accounting: Literal["lca", "direct"] = Field(
        default="lca", description="column of an Electricity Maps export: life cycle, or direct emissions"
    )
    coverage_least: float = Field(
        default=0.95, gt=0, le=1, description="share of the book under which a result's headline is what is missing"
    )
    coverage_stand_ins: float = Field(
        default=0.10, ge=0, le=1, description="share of the book that stand-ins may count for, at most"
    )
    coverage_history: int = Field(
        default=61, ge=61, le=504, description="days shared with the index from which a beta counts as a position's own"
    )
    coverage_age: int = Field(
        default=30, ge=0, le=400, description="age from which a price, a valuation or a history is a stand-in, days"
    )
    coverage_block: bool = Field(default=False, description="compliance blocks an incomplete result, not only flags it")
    text_longest: int = Field(
        default=100_000, ge=1000, le=10_000_000, description="longest text of a source once its signs are plain (NFKC)"
    )
    table_bytes: int = Field(default=134_217_728, ge=1000, description="largest file of a book or of prices, bytes")
    table_unpacked: int = Field(default=536_870_912, ge=1000, description="what such a file may unpack to, bytes")
    table_rows: int = Field(default=1_000_000, ge=1, description="most rows of such a file")
    table_columns: int = Field(default=10_000, ge=1, description="most columns of such a file")
    table_cells: int = Field(default=12_000_000, ge=1, description="most cells of such a file")
    tenant: str = Field(default="default", min_length=1, max_length=64, description="on whose account runs are")
    tenant_budget: str | None = Field(
        default=None, description="what all runs of the tenant may spend in a day (UTC), such as 100000tokens,50kJ"
    )
    calibration_days: float = Field(
        default=30.0, gt=0, allow_inf_nan=False, description="age beyond which a calibration is stale, days"
    )
    stall: float = Field(
        default=20.0, gt=0, le=3600, description="longest time without a token before a backend is taken to hang, s"
    )

    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="serve Prometheus metrics at 127.0.0.1 there; needs finllm[telemetry]"
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="send OpenTelemetry spans to this URL (OTLP over HTTP); needs finllm[telemetry]",
    )

    ledger_wait: float = Field(
        default=10.0, ge=0, le=3600, description="longest wait for a ledger that another process has locked, s"
    )
    lease: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="time without a sign of life after which another process may take over a run, s",
    )

    review_signatures: int = Field(default=1, ge=1, le=9, description="signatures that approve a version")
    review_signatures_grave: int = Field(
        default=2, ge=1, le=9, description="the same where a limit is breached, a rule blocks or a person judged"
    )
    review_claim: float = Field(
        default=1800.0, gt=0, le=604_800, description="how long a claimed review stays with its reviewer, s"
    )
    review_audit_every: int = Field(
        default=20, ge=0, le=10_000, description="one of so many approved versions is audited blind; 0: none"
    )

    oidc_issuer: str | None = Field(
        default=None, description="OpenID provider that people may sign in with at the desk, such as https://id.example"
    )
    oidc_client_id: str | None = Field(default=None, description="name by which that provider knows the desk")
    oidc_client_secret: SecretStr | None = Field(default=None, description="secret that it shares with the desk")
    oidc_client_secret_file: Path | None = Field(default=None, description="file of that secret, for its owner alone")
    oidc_only: bool = Field(default=False, description="pass phrases open nothing; only the provider's word does")

    audit_key: SecretStr | None = Field(
        default=None, description="key that signs the audit log: 32 bytes in base64; others behind it"
    )
    audit_key_file: Path | None = Field(
        default=None, description="file of such keys, one a line; unset: one in the home"
    )

    audit_witness: Path | None = Field(
        default=None, description="the witness's folder, or a checkpoint of it, that the record's page is held against"
    )

    @field_validator("vllm_urls", mode="before")
    @classmethod
    def _by_commas(cls, value: object) -> object:
        return tuple(url.strip() for url in value.split(",") if url.strip()) if isinstance(value, str) else value

    @field_validator("vllm_urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is not a URL such as 'http://localhost:8000'")
            if "@" in parts.netloc:
                raise ValueError("a URL must hold no password; set FINLLM_VLLM_API_KEY")
        if len(set(urls)) != len(urls):
            raise ValueError("a server is named twice")
        return urls

    @field_validator("oidc_issuer")
    @classmethod
    def _is_issuer(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if not safe or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"{url!r} is no issuer, such as 'https://id.example.com/realms/desk'")
        return url

    @property
    def data_dir(self) -> Path:
        """Market data that was imported, and series files put there."""
        return self.home / "data"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def encoder_dir(self) -> Path:
        return self.encoder_cache or self.home / "cache"

    @property
    def ledger_path(self) -> Path:
        return self.home / "ledger.sqlite"

    @property
    def users_path(self) -> Path:
        """Pass phrases as hashes, who is signed in, and what an exercise hides: nothing that goes on record."""
        return self.home / "users.sqlite"

    @property
    def checkpoints_path(self) -> Path:
        return self.home / "checkpoints.sqlite"

    @property
    def vectors_path(self) -> Path:
        """What encoders made of texts, remembered by content."""
        return self.home / "vectors.sqlite"

    @property
    def drawn_dir(self) -> Path:
        """Charts that were drawn before."""
        return self.home / "drawn"

    @property
    def knowledge_dir(self) -> Path:
        return self.home / "knowledge"

    @property
    def calibrations_dir(self) -> Path:
        return self.home / "calibrations"

    @property
    def engine_calibration_path(self) -> Path:
        return self.home / "engine-calibration.json"

    @property
    def values_path(self) -> Path:
        return self.home / "values.json"

    @property
    def texts_dir(self) -> Path:
        """Source texts, each under its sha256."""
        return self.home / "texts"

    @property
    def search_path(self) -> Path:
        """What is searched: words of traces and texts. Made again from the ledger wherever it lacks."""
        return self.home / "search.sqlite"

    @property
    def audit_dir(self) -> Path:
        return self.home / "audit"

    @property
    def default_audit_key_file(self) -> Path:
        return self.home / "audit.key"

    @property
    def status_dir(self) -> Path:
        return self.home / "status"

    @property
    def cluster_dir(self) -> Path:
        return self.home / "cluster"

    @property
    def nodes_path(self) -> Path:
        return self.home / "nodes.json"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"


_SECRETS = {name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)}


@dataclass(frozen=True)
class LoadedSettings:
    """Settings and, for each field, where its value came from: `default`, the config file's path, or the variable."""

    settings: Settings
    origins: dict[str, str]


def load_settings(environ: dict[str, str] | None = None) -> LoadedSettings:
    """Read the settings.

    An empty variable counts as unset. Errors: InputError for an unreadable config file, one with a secret that others
    may read, an unknown key or a bad value, naming the origin.
    """
    env = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
    home = _home(env.get(f"{ENV_PREFIX}HOME", str(DEFAULT_HOME)))
    path = home / "config.toml"
    values: dict[str, Any] = {"home": home}
    origins = dict.fromkeys(Settings.model_fields, "default")
    if f"{ENV_PREFIX}HOME" in env:
        origins["home"] = f"{ENV_PREFIX}HOME"
    for name, value in _read_config(path).items():
        if name in _SECRETS:
            check_secret(path, f"the file that sets {name!r}")
        values[name] = value
        origins[name] = str(path)
    for name, value in _read_served(served_path(home)).items():
        values[name] = value
        origins[name] = str(served_path(home))
    for name in Settings.model_fields:
        variable = f"{ENV_PREFIX}{name.upper()}"
        if name != "home" and variable in env:
            values[name] = env[variable]
            origins[name] = variable
    try:
        settings = Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InputError(
            f"setting {name!r} from {origins.get(name, str(path))}: {first['msg']}",
            fix="correct it there; 'finllm config show' lists every setting with its origin",
        ) from error
    return LoadedSettings(settings, origins)


def served_path(home: Path) -> Path:
    """The file of `finllm deploy`: the model and adapter that were promoted stand above the config file's."""
    return home / "served.json"


def _read_served(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("served") if path.exists() else None
        return {} if found is None else {"model": found["model"], "adapter": found["adapter"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="move it away, and deploy again") from error


def _home(value: str) -> Path:
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(
            f"setting 'home': cannot expand {value!r}: {_homeless(value) or error}", fix="set FINLLM_HOME to a folder"
        ) from error


def _homeless(value: str) -> str | None:
    """That this user has no home folder, where `value` is under it: so in containers without an entry for the user."""
    own = value == "~" or value.startswith("~/")
    return f"HOME is not set, and the system knows no home of user {os.getuid()}" if own else None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="correct or remove the file") from error
    if "home" in values:
        raise InputError(f"{str(path)!r} sets 'home', which says where that file is", fix="set FINLLM_HOME instead")
    return values
