"""The doctor's checks: each looks at one thing, loads no model here and never raises."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finllm import running
from finllm.errors import FinllmError
from finllm.files import check_folder, looser_than
from finllm.settings import ENV_PREFIX, Settings, load_settings

if TYPE_CHECKING:
    from finllm.scheduler.backends.kind import Site

Status = Literal["ok", "warning", "missing", "failed"]

TIGHT_DISK = 2 << 30
"""Bytes free below which a ladder, a knowledge base and some runs may not fit."""
CHILD_TIMEOUT = 20.0
"""Longest wait for llama.cpp to say how it was built, s."""
_SYSTEM_INFO = "import sys, llama_cpp; sys.stdout.buffer.write(llama_cpp.llama_print_system_info())"
_NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
_REINSTALL = "run 'make install' where finllm was cloned, or 'pip install --force-reinstall {}'"
NOWHERE = Path(os.devnull) / ".finllm"
"""A home in which nothing can be written, where none is known."""


@dataclass(frozen=True)
class Check:
    """One row. `fix` mends what is missing or warned of."""

    name: str
    status: Status
    detail: str
    fix: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)


def all_checks() -> list[Check]:
    settings, configured = _settings()
    return [
        _python(),
        *_dependencies(),
        _llama_build(),
        configured,
        _home(settings),
        _signing_key(settings),
        _disk(settings),
        *_model(settings),
        _embedding(),
        _second_opinion(),
        _channel_reader(),
        _ledger(settings),
        _knowledge(settings),
        *_backends(settings),
    ]


def _settings() -> tuple[Settings, Check]:
    """The settings, or the defaults where those cannot be read."""
    try:
        loaded = load_settings()
    except FinllmError as error:
        home = Path(os.path.expanduser(os.environ.get(f"{ENV_PREFIX}HOME", "~/.finllm")))
        home = NOWHERE if home.parts[0].startswith("~") else home.absolute()
        return Settings.model_validate({"home": home}), Check("settings", "missing", error.message, error.fix)
    changed = [f"{name} from {origin}" for name, origin in loaded.origins.items() if origin != "default"]
    return loaded.settings, Check("settings", "ok", ", ".join(changed) or "all are defaults")


def _python() -> Check:
    return Check("Python", "ok", platform.python_version())


def _dependencies() -> Iterator[Check]:
    for requirement in metadata.requires("finllm") or ():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is None or "extra ==" in requirement:
            continue
        try:
            yield Check(name[0], "ok", metadata.version(name[0]))
        except metadata.PackageNotFoundError:
            wanted = requirement.split(";")[0].strip()
            yield Check(name[0], "missing", f"not installed; {wanted} is needed", _REINSTALL.format(f"'{wanted}'"))


def _llama_build() -> Check:
    """How llama.cpp was built, asked in a child process: a build for another CPU kills the one that imports it."""
    name, reinstall = "llama.cpp build", _REINSTALL.format("--no-binary :all: llama-cpp-python")
    try:
        child = subprocess.run([sys.executable, "-c", _SYSTEM_INFO], capture_output=True, timeout=CHILD_TIMEOUT,
                               check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check(name, "warning", f"did not import within {CHILD_TIMEOUT:.0f} s", "run finllm doctor again")
    if child.returncode != 0:
        last = (child.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return Check(name, "missing", f"does not import: {last}", reinstall)
    features = re.findall(rb"([A-Z0-9_]+) = 1", child.stdout)
    detail = " ".join(feature.decode() for feature in features) or "no CPU features reported"
    if b"AMX_INT8" in features:
        return Check(name, "warning", f"{detail}; AMX kernels of GCC 12 crash, so finllm avoids them and is slower",
                     f"reinstall llama-cpp-python with CFLAGS='{_NO_AMX}': make install")  # fmt: skip
    return Check(name, "ok", detail)


def _home(settings: Settings) -> Check:
    try:
        check_folder(settings.home, "FINLLM_HOME")
    except FinllmError as error:
        return Check("FINLLM_HOME", "missing", error.message, error.fix)
    if settings.home.exists() and looser_than(settings.home, 0o700):
        mend = f"chmod 700 {shlex.quote(str(settings.home))}"
        told = f"{settings.home}: others may look into it, and runs hold portfolios"
        return Check("FINLLM_HOME", "warning", told, mend)
    return Check("FINLLM_HOME", "ok", f"{settings.home}" + ("" if settings.home.exists() else ", made on first use"))


def _signing_key(settings: Settings) -> Check:
    from finllm.guardrails.audit import LogReader
    from finllm.guardrails.audit.keys import keyring
    from finllm.guardrails.audit.rotating import fit

    by = "FINLLM_AUDIT_KEY" if settings.audit_key is not None else str(settings.audit_key_file or "")
    if not by and not settings.default_audit_key_file.exists():
        return Check("signing key", "ok", "made in the home on first use")
    where = by or f"{settings.default_audit_key_file}"
    try:
        if not settings.audit_dir.exists():
            keyring(settings)
            return Check("signing key", "ok", where)
        found = fit(settings, LogReader(settings.audit_dir))
    except FinllmError as error:
        return Check("signing key", "failed", error.message, error.fix)
    status = "failed" if not found.signs else "warning" if found.fix else "ok"
    return Check("signing key", status, f"{where}: {found.detail}", found.fix)


def _disk(settings: Settings) -> Check:
    existing = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / (1 << 30):.1f} GiB free at {existing}"
    if free < TIGHT_DISK:
        return Check("disk", "warning", detail, "free some space, or set FINLLM_HOME to another disk")
    return Check("disk", "ok", detail)


def _model(settings: Settings) -> Iterator[Check]:
    """The source file with its digest, the adapter, and the rungs derived from both."""
    from finllm.models.cards import adapter_for
    from finllm.models.ladder import PRECISIONS, PRUNED, derived_rungs
    from finllm.models.registry import default_source

    try:
        source = default_source(settings)
    except FinllmError as error:
        yield Check("model source", "missing", error.message, error.fix)
        return
    size = source.path.stat().st_size / (1 << 20)
    yield Check("model source", "ok", f"{source.name}, {size:.0f} MiB, {source.licence}, sha256 {source.sha256[:12]}")
    try:
        adapter, card = adapter_for(source, settings, settings.deep_precision)
    except FinllmError as error:
        yield Check("adapter", "missing", error.message, error.fix)
        return
    if adapter is None:
        yield Check("adapter", "ok", "none for this model")
    else:
        told = f"calibrates {', '.join(card.prompts)}" if card else "without a card, so not calibrated"
        yield Check("adapter", "ok", f"{adapter.path.stem}, sha256 {adapter.sha256[:12]}, {told}")
    derived = {(rung.precision, rung.adapter_sha256): rung for rung in derived_rungs(source.sha256, settings)}
    for precision in dict.fromkeys((settings.edge_precision, settings.deep_precision)):
        name = f"rung {precision}"
        if precision not in PRECISIONS:
            yield Check(name, "missing", "cannot be derived", f"use one of {', '.join(PRECISIONS)}")
            continue
        merged, _card = adapter_for(source, settings, precision)
        rung = derived.get((precision, None if merged is None else merged.sha256))
        if rung is not None:
            yield Check(name, "ok", f"derived, {rung.bytes / (1 << 20):.0f} MiB")
        elif precision == PRUNED and (merged is None or merged.layers is None):
            yield Check(name, "missing", "no adapter of fewer layers for this model", "set FINLLM_ADAPTER=auto")
        else:
            yield Check(name, "ok", "derived on first use")


def _embedding() -> Check:
    from finllm.models.embedding import EMBEDDING_NAME, Embedder

    try:
        return Check("embedding model", "ok", f"{EMBEDDING_NAME} in {Embedder().folder}")
    except FinllmError as error:
        return Check("embedding model", "missing", error.message, error.fix)


def _second_opinion() -> Check:
    from finllm.models.embedding import Embedder
    from finllm.models.second_opinion import SecondOpinion

    try:
        card = SecondOpinion(Embedder()).card
        return Check("second opinion", "ok", f"sha256 {card.sha256[:12]}, fitted on corpus {card.corpus_sha256[:12]}")
    except FinllmError as error:
        return Check("second opinion", "missing", error.message, error.fix)


def _channel_reader() -> Check:
    """Which encoder reads channels; it is joined when it first reads, not here."""
    from finllm.models.embedding import EMBEDDING_NAME
    from finllm.models.encoder import ENCODER_NAME, ENCODER_SHA256, INSTALL, installed

    if installed():
        return Check("channel reader", "ok", f"{ENCODER_NAME}, sha256 {ENCODER_SHA256[:12]}, packed by a third party")
    return Check("channel reader", "warning", f"{EMBEDDING_NAME}, which reads worse than {ENCODER_NAME}", INSTALL)


def _ledger(settings: Settings) -> Check:
    from finllm.guardrails.audit.reading import open_reading

    if not settings.ledger_path.exists():
        return Check("ledger", "ok", "made on first use")
    try:
        with open_reading(settings) as ledger:
            schema = ledger.schema
    except FinllmError as error:
        return Check("ledger", "missing", error.message, error.fix)
    return Check("ledger", "ok", f"opens, schema {schema}")


def _knowledge(settings: Settings) -> Check:
    if not settings.knowledge_dir.exists():
        return Check("knowledge base", "ok", "filled on first use")
    try:
        check_folder(settings.knowledge_dir, "FINLLM_HOME")
    except FinllmError as error:
        return Check("knowledge base", "missing", error.message, error.fix)
    return Check("knowledge base", "ok", str(settings.knowledge_dir))


def _backends(settings: Settings) -> Iterator[Check]:
    """Every backend; those behind a URL are asked a typed question, since a hung engine still answers every other."""
    from finllm.scheduler.backends.registry import KINDS, sites

    told: set[str] = set()
    for kind in KINDS:
        try:
            found = list(sites(settings, [kind]))
        except FinllmError as error:
            if error.message not in told:
                yield Check("backends", "missing", error.message, error.fix)
            told.add(error.message)
            continue
        for site in found:
            if site.offer.where == "remote":
                yield _asked(settings, site)
            else:
                yield Check(f"{site.offer.tier} node", "ok", f"{site.offer.name}, {site.place}; answers on first use")


def _asked(settings: Settings, site: Site) -> Check:
    """A server, by its answer to one typed question: `failed` where that is none."""
    import contextlib

    from finllm.events import EventBus
    from finllm.scheduler.backends import TellsLoad
    from finllm.scheduler.backends.kind import Opening
    from finllm.scheduler.health.question import examined

    name = f"{site.offer.kind} at {site.place}"
    with contextlib.ExitStack() as closing:
        try:
            backend = site.open(Opening(settings, EventBus(), closing))
        except FinllmError as error:
            return Check(name, "missing", error.message, error.fix)
        try:
            found = running.run(examined(backend))
            load = running.run(backend.load_words()) if isinstance(backend, TellsLoad) else None
        except FinllmError as error:
            return Check(name, "failed", error.message, error.fix)
        offer = backend.offer
        scored = f"shares of {offer.votes} answers" if offer.votes else "its own log-probabilities"
        told = [f"{offer.name}, {offer.build}, {offer.context} tokens of context", f"probabilities are {scored}",
                found.words, *([load] if load else [])]  # fmt: skip
        return Check(name, "ok", "; ".join(told))
