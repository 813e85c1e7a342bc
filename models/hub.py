"""Pulling a model file from a Hugging Face hub: resumed where it broke off, and kept only if its digest is right."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from finllm.errors import FinllmError, InputError
from finllm.files import exclusive, sha256_of_file, sync
from finllm.models import licence
from finllm.models.registry import PulledFrom
from finllm.settings import Settings

DEFAULT_ENDPOINT = "https://huggingface.co"
ATTEMPTS = 5
"""Failures in a row, none of which brought a byte, before a download gives up."""
BACKOFF = 0.5
"""Wait after the first such failure, s; each further one doubles it."""
TIMEOUT = 30.0
"""Longest silence of the hub, s."""
_STEP = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
BY_HAND = "fetch the GGUF file some other way and run 'finllm models add NAME FILE'"

OnProgress = Callable[[int, int], None]
"""`progress(done, total)` in bytes; `total` is 0 where the hub does not say."""


class DigestMismatch(InputError):
    """A file that came whole and is not the one that was promised; it is not kept."""


@dataclass(frozen=True)
class Remote:
    """A file on a hub at one commit. `sha256`: as the hub states it, None where it does not."""

    origin: PulledFrom
    licence: str
    location: str
    etag: str
    size: int | None
    sha256: str | None


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_ENDPOINT


def find_file(repository: str, file: str | None, revision: str | None = None, at: str | None = None) -> Remote:
    """Ask the hub at `at` (else HF_ENDPOINT) for a file; without a name, the only GGUF file of the repository.

    Errors: InputError for a repository or file that is not there; FinllmError where the hub cannot be reached.
    """
    at = at or endpoint()
    with _explained(at, repository):
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.file_download import get_hf_file_metadata

        info = HfApi(endpoint=at, library_name="finllm").model_info(repository, revision=revision, timeout=TIMEOUT)
        chosen = _choose([sibling.rfilename for sibling in info.siblings or ()], file, repository)
        commit = info.sha or revision or "main"
        url = hf_hub_url(repository, chosen, revision=commit, endpoint=at)
        meta = get_hf_file_metadata(url, timeout=TIMEOUT)
    etag = meta.etag or ""
    card: Any = info.card_data
    return Remote(
        origin=PulledFrom(endpoint=at, repository=repository, file=chosen, revision=commit),
        licence=licence.stated(str(card.get("license") or "") if card is not None else ""),
        location=meta.location,
        etag=etag,
        size=meta.size,
        sha256=etag if _SHA256.fullmatch(etag) else None,
    )


def fetch(remote: Remote, settings: Settings, progress: OnProgress | None = None, *, sha256: str | None = None) -> Path:
    """Bring the file under `models_dir`; what an earlier attempt left is continued. Returns its path.

    `sha256`: what it has to be, beside what the hub states. Errors: DigestMismatch; FinllmError where the connection
    fails for good (what came is kept) or the disk is full.
    """
    origin = remote.origin
    path = settings.models_dir / "pulled" / origin.repository / origin.file
    expected = {digest for digest in (sha256, remote.sha256) if digest is not None}
    try:
        with exclusive(path.with_name(f".{path.name}.lock")):
            if expected and path.is_file() and {sha256_of_file(path)} == expected:
                return path
            tag = re.sub(r"[^A-Za-z0-9]", "", remote.etag)[:32] or origin.revision[:32]
            partial = path.with_name(f".{path.name}.{tag}.partial")
            for other in path.parent.glob(f".{path.name}.*.partial"):
                if other != partial:
                    other.unlink(missing_ok=True)
            _download(remote, partial, progress)
            _check(partial, expected, remote)
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    except OSError as error:
        raise FinllmError(
            f"cannot write {str(path)!r}: {error}", fix="free some space there, or set FINLLM_HOME to another disk"
        ) from error
    return path


def _check(partial: Path, expected: set[str], remote: Remote) -> None:
    digest = sha256_of_file(partial)
    if expected - {digest}:
        partial.unlink()
        raise DigestMismatch(
            f"{remote.origin.url!r} came with sha256 {digest}, promised was {' and '.join(sorted(expected))}; "
            "the file is not kept",
            fix="pull it again; if that happens twice, the hub or a proxy serves another file: ask its publisher",
        )


def _download(remote: Remote, partial: Path, progress: OnProgress | None) -> None:
    import httpx

    failures = 0
    with partial.open("ab") as file, httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        while remote.size is None or file.tell() != remote.size:
            before = file.tell()
            try:
                _continue(client, remote, file, progress)
                if remote.size is None:
                    return
                why = f"it ended at {file.tell()} of {remote.size} bytes"
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            failures = 0 if file.tell() > before else failures + 1
            if failures >= ATTEMPTS or (remote.size is not None and file.tell() > remote.size):
                if remote.size is not None and file.tell() > remote.size:
                    file.truncate(0)
                raise FinllmError(
                    f"the download of {remote.origin.url!r} stopped: {why}",
                    fix=f"run the same command again, it goes on from there; or {BY_HAND}",
                )
            if failures:
                time.sleep(BACKOFF * 2 ** (failures - 1))


def _continue(client: Any, remote: Remote, file: Any, progress: OnProgress | None) -> None:
    """One request for what is missing, written as it comes. Errors: httpx.TransportError; InputError on a refusal."""
    headers = _headers(remote) | {"Accept-Encoding": "identity"}
    if file.tell():
        headers["Range"] = f"bytes={file.tell()}-"
    with client.stream("GET", remote.location, headers=headers) as response:
        if response.status_code == 416 or (response.status_code == 200 and file.tell()):
            file.truncate(0)  # the hub does not continue files, or has a shorter one: from the start
        if response.status_code == 416:
            return
        if response.status_code not in (200, 206):
            raise InputError(
                f"the hub answered {response.status_code} for {remote.origin.url!r}", fix=f"try later, or {BY_HAND}"
            )
        shown = -1
        for chunk in response.iter_raw():  # as it comes: a larger buffer would be lost with the connection
            file.write(chunk)
            done = file.tell()
            if progress is not None and (done // _STEP != shown or done == remote.size):
                shown = done // _STEP
                progress(done, remote.size or 0)
        file.flush()


def _headers(remote: Remote) -> dict[str, str]:
    """The user's token goes to the hub alone, not to the store that it may point to."""
    from huggingface_hub.utils import build_hf_headers

    _say_nothing_else()
    headers = {name: str(value) for name, value in build_hf_headers(library_name="finllm").items()}
    if urlsplit(remote.location).netloc != urlsplit(remote.origin.endpoint).netloc:
        headers.pop("authorization", None)
    return headers


def _say_nothing_else() -> None:
    """Keep the hub's client from asking huggingface.co about its caller, whichever hub is named."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def _choose(files: list[str], wanted: str | None, repository: str) -> str:
    models = sorted(name for name in files if name.endswith(".gguf") and _is_inside(name))
    if wanted is not None and wanted in models:
        return wanted
    if wanted is None and len(models) == 1:
        return models[0]
    what = f"no GGUF file {wanted!r}" if wanted else f"{len(models)} GGUF files"
    raise InputError(
        f"{repository!r} has {what}",
        fix=f"name one of: {', '.join(models)}" if models else "choose a repository with GGUF files",
    )


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


@contextmanager
def _explained(at: str, repository: str) -> Iterator[None]:
    """What the hub's client raises, as an error with its mend."""
    from huggingface_hub import errors

    _say_nothing_else()
    try:
        yield
    except FinllmError:
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise InputError(
            f"{at} has no {repository!r} that may be read: {str(error).splitlines()[0]}",
            fix="check the name and the revision; for a private or gated repository set HF_TOKEN",
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"{repository!r} is no repository: {error}", fix="write it as OWNER/NAME") from error
    except errors.OfflineModeIsEnabled as error:
        raise FinllmError("HF_HUB_OFFLINE is set, so nothing is pulled", fix=f"unset it; or {BY_HAND}") from error
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise FinllmError(
            f"the hub {at} cannot be reached: {type(error).__name__}: {why}",
            fix=f"go online, or set HF_ENDPOINT to a mirror; offline, {BY_HAND}",
        ) from error
