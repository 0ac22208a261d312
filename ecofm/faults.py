"""How a command ends: the exit code and the one sentence of whatever stopped it.

What the user can mend (wrong usage, bad data, a full disk) is told in a sentence. Anything else is
a fault of ecofm itself: its traceback goes into a file that the sentence names, and the exit code
is 70, EX_SOFTWARE of sysexits.h.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ecofm.disk import FULL, describe_refusal, find_refusal
from ecofm.errors import EcofmError, UsageError
from ecofm.escaping import for_terminal

BAD_DATA, WRONG_USAGE, OWN_FAULT, INTERRUPTED, NO_READER = 1, 2, 70, 130, 141
"""The last two are what a shell reports of SIGINT and SIGPIPE."""

SECRET = r"token|secret|passw|credential|authorization|signature|subscription|api.?key|access.?key"
MIN_SECRET = 8
"""Shorter values of variables with such names are no secrets: 1, true, none."""


@contextmanager
def door(
    command: Sequence[str] | None = None, usage: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """End the process as it should when anything is raised inside; SystemExit goes through.

    `command` is the command line, the process's own if None; `usage` are the exceptions of an
    argument parser.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit as ended:
        # Lightning turns Ctrl-C into this.
        if ended.code == 1 and isinstance(ended.__context__, KeyboardInterrupt):
            _leave(*explain(ended.__context__))
        raise
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, usage):
            _leave(WRONG_USAGE, " ".join(str(error).split()))
        if isinstance(error, BrokenPipeError) and _lost_its_reader():
            sys.exit(NO_READER)
        _leave(*explain(error, command))


def explain(error: BaseException, command: Sequence[str] | None = None) -> tuple[int, str]:
    """Return the exit code and the sentence of an exception; a fault of ours is written down."""
    if isinstance(error, UsageError):
        return WRONG_USAGE, str(error)
    if isinstance(error, EcofmError):
        return BAD_DATA, str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; the same command continues or starts anew."
    if _is_out_of_memory(error):
        return BAD_DATA, (
            "there is not enough memory; give fewer workers or a smaller batch, or use a machine "
            "with more."
        )
    if refused := find_refusal(error):
        place = os.fsdecode(refused.filename) if refused.filename else os.getcwd()
        if isinstance(error, OSError) or refused.errno in FULL:
            return BAD_DATA, describe_refusal(Path(place), refused)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return BAD_DATA, (
            f"{place}{error.strerror or error}; check the path, its rights and the disk."
        )
    return OWN_FAULT, describe_fault(error, command)


def describe_fault(error: BaseException, command: Sequence[str] | None = None) -> str:
    """Write a fault of ours down, and return the sentence that names the file."""
    path = write_fault(error, command)
    kind = type(error).__name__
    if path is None:
        with suppress(OSError):
            traceback.print_exception(error)
        return f"this is a fault of ecofm, not of your data ({kind}); please report what is above."
    return (
        f"this is a fault of ecofm, not of your data ({kind}); please report it with {path}, "
        "which holds the traceback, the versions and the command."
    )


def write_fault(error: BaseException, command: Sequence[str] | None = None) -> Path | None:
    """Write what a report needs into a file of its own and return its path.

    It lies in the user's folder for logs, or where that cannot be written in the one for temporary
    files; None where neither can.
    """
    from platformdirs import user_log_path

    text = hide_secrets(describe(error, sys.argv if command is None else command))
    name = f"fault-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    for is_temporary in (False, True):
        with suppress(OSError):
            folder = Path(tempfile.gettempdir()) if is_temporary else user_log_path("ecofm")
            folder.mkdir(parents=True, exist_ok=True)
            return _write(folder, name, text)
    return None


def _write(folder: Path, name: str, text: str) -> Path:
    """Write a new file that only its owner reads, whole or not at all."""
    handle, beside = tempfile.mkstemp(prefix=f".{name}-", suffix=".partial", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        # The random part keeps two faults of one second apart.
        target = folder / f"ecofm-{Path(beside).stem.removeprefix('.')}.txt"
        os.replace(beside, target)
    except OSError:
        os.unlink(beside)
        raise
    return target


def describe(error: BaseException, command: Sequence[str]) -> str:
    """Return what a report needs: versions, machine, command and traceback."""
    from ecofm import __version__

    packages = " ".join(f"{name}=={version}" for name, version in _find_versions())
    return "\n".join(
        [
            f"ecofm {__version__}",
            f"time: {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC",
            f"command: {_quote(command)}",
            f"folder: {_try(os.getcwd)}",
            f"python: {sys.version}",
            f"platform: {platform.platform()}, {os.cpu_count()} processors",
            f"packages: {packages}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )


def _quote(command: Sequence[str]) -> str:
    """Return a command line, the values of options that hold secrets left out."""
    words = []
    for before, word in zip(["", *command], command, strict=False):
        is_secret = re.fullmatch(f"-[^=]*({SECRET})[^=]*", before, re.IGNORECASE)
        words.append("***" if is_secret else repr(word))
    return " ".join(words)


def hide_secrets(text: str) -> str:
    """Return a text without what looks like a password, a token or a signed address."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET and re.search(f"{SECRET}|key$|_pass$|_pat$", name, re.I):
            text = text.replace(value, "***")
    # user:password@, and all that follows ? or #, where signatures and invitations stand.
    text = re.sub(r"(\w+://)[^\s/@'\"]+@", r"\1***@", text)
    text = re.sub(r"(\w+://[^\s?#'\"<>]*)[?#][^\s'\"<>]*", r"\1?***", text)
    secret = rf"([\w.-]*(?:{SECRET})[\w.-]*['\"]?\s*[=:]\s*)(?:bearer\s+|basic\s+)?"
    return re.sub(secret + r"('[^'\n]*'|\"[^\"\n]*\"|[^\s,;)}\]]+)", r"\1***", text, flags=re.I)


def _find_versions() -> Iterator[tuple[str, str]]:
    """Yield the installed versions of what ecofm depends on."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for needed in importlib.metadata.requires("ecofm") or []:
            name = re.split(r"[^\w.-]", needed, maxsplit=1)[0]
            with suppress(importlib.metadata.PackageNotFoundError):
                yield name, importlib.metadata.version(name)


def _try(ask: Any) -> str:
    try:
        return str(ask())
    except OSError as error:  # a folder that was deleted under us
        return f"unknown ({error.strerror})"


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's own is a RuntimeError, and importing torch takes seconds.
    of_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and of_torch)


def _lost_its_reader() -> bool:
    """Return whether nobody reads what is printed, as in `ecofm show DIR | head`."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _leave(code: int, sentence: str) -> None:
    with suppress(OSError):
        print(f"error: {for_terminal(sentence)}", file=sys.stderr)
    sys.exit(code)


def keep_serving(app: Any) -> Any:
    """Return an ASGI application that reports its own faults in a sentence each and goes on."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            print(f"error: {for_terminal(explain(error)[1])}", file=sys.stderr, flush=True)

    return guarded
