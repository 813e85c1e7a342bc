"""Every error finllm raises, one class per reaction of the caller.

FinllmError                 exit 1   something failed; the message says what mends it
├── InputError              exit 2   fix the input: scenario, portfolio, option or configuration
│   └── LookAheadError      exit 2   the input asks for data from after `as_of`
├── BackendError            exit 1   degrade: a backend could not answer; retry elsewhere or abstain
├── BudgetExceeded          exit 1   degrade: the rest of a budget does not reach; abstain, or stop and say so
├── GroundingError          exit 1   stop: a sentence carries a number that no evidence row carries
├── RecordError             exit 1   stop: the ledger cannot be written or read, so nothing may be decided
│   └── RecordAltered       exit 1   stop: what is on record is not what the audit log says was recorded
├── AccessRefused           exit 1   sign in again, or ask somebody who may: who this is, or what they may do
├── ReviewRefused           exit 1   a rule of reviews says no; `rule` names it, and nothing was changed
├── RunHeld                 exit 1   wait: another process has the run, or took it over from this one
├── ReplayRefused           exit 1   stop: what a run stood on, or its record, is not what it was; the cause is named
├── HumanNeeded             exit 1   wait: a person has to answer before the run goes on
├── Unexpected              exit 1   report it: something failed that nobody foresaw
└── Cancelled               exit 130 the person at the keyboard stopped the run; it can be resumed
"""

from __future__ import annotations

import errno
import resource

from finllm.plain_text import clean


class FinllmError(Exception):
    """A failure with its mend: `message` says what was wrong and where, `fix` the command or edit that mends it."""

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}"

    def to_json(self) -> dict[str, dict[str, str]]:
        """The one JSON object that `--json` prints for an error."""
        return {"error": {"kind": self.kind, "message": self.message, "fix": self.fix}}


class InputError(FinllmError):
    kind = "bad_input"
    exit_code = 2


class LookAheadError(InputError):
    kind = "look_ahead"


class BackendError(FinllmError):
    kind = "backend_failed"


class BudgetExceeded(FinllmError):
    """`short`: how much of which limit is spent, in a few words."""

    kind = "budget_exceeded"

    def __init__(self, message: str, *, fix: str, short: str = "") -> None:
        super().__init__(message, fix=fix)
        self.short = short


class GroundingError(FinllmError):
    kind = "ungrounded_number"


class RecordError(FinllmError):
    kind = "record_failed"


class RecordAltered(RecordError):
    kind = "record_altered"


class AccessRefused(FinllmError):
    kind = "access_refused"


class ReviewRefused(FinllmError):
    """`rule`: one word for the rule that refused, such as `four-eyes`."""

    kind = "review_refused"

    def __init__(self, message: str, *, fix: str, rule: str) -> None:
        super().__init__(message, fix=fix)
        self.rule = rule

    def to_json(self) -> dict[str, dict[str, str]]:
        found = super().to_json()
        return {"error": {**found["error"], "rule": self.rule}}


class RunHeld(FinllmError):
    kind = "run_held"


class ReplayRefused(FinllmError):
    kind = "replay_refused"


class HumanNeeded(FinllmError):
    kind = "human_needed"


class Unexpected(FinllmError):
    kind = "internal"


class Cancelled(FinllmError):
    kind = "cancelled"
    exit_code = 130


OPEN_FILES = 64
"""How many a run is promised to get along with; twice what one has open."""
_REFUSED_MEMORY = ("allocate memory", "memory allocation", "bad_alloc", "out of memory", "failed to map segment",
                   "can't start new thread")  # fmt: skip
"""How the libraries that are used, and the loader, say that the system gave them no memory."""


def lacking(error: BaseException) -> str | None:
    """The mend where a process was refused memory or open files, by whatever library, or by what that failed because
    of; None for any other failure."""
    told, number = str(error).lower(), getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in told for words in _REFUSED_MEMORY):
        return "free some memory, or raise the limit that 'ulimit -v' or the container sets, and run it again"
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    hidden = "unable to open database file" in told and files < OPEN_FILES  # SQLite does not say why it cannot
    if number in (errno.EMFILE, errno.ENFILE) or "too many open files" in told or hidden:
        return f"raise the limit of open files, now {files}, with 'ulimit -n', and run it again"
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None if behind is None else lacking(behind)


def as_finllm_error(error: BaseException) -> FinllmError:
    """The error itself, or the one that stands for it: an interrupt, the system's refusal, or something unforeseen."""
    if isinstance(error, FinllmError):
        mend = lacking(error.__cause__) if error.__cause__ is not None else None
        if mend is not None:  # what the step that failed says to mend was not what it failed of
            _, go_on, how = error.fix.partition("; go on with: ")
            error.fix = f"{mend}{go_on}{how}"
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("interrupted", fix="run the command again")
    notes = [note for note in getattr(error, "__notes__", ()) if "finllm" in note]  # others' are of no use to a user
    if (mend := lacking(error)) is not None:
        said = clean(str(error)) or "it was refused memory"
        return FinllmError(f"this process has reached a limit: {said}", fix="; ".join([mend, *notes]))
    if isinstance(error, OSError):
        refusal = f"the operating system refused: {clean(str(error))}"
        return FinllmError(refusal, fix="; ".join(["mend that and run the command again", *notes]))
    what = clean(f"{type(error).__name__}: {error}")
    mends = ["run it again with FINLLM_DEBUG=1 set, and report the traceback that it prints", *notes]
    return Unexpected(f"finllm failed unexpectedly: {what}", fix="; ".join(mends))
