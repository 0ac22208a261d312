"""Commands as forks of one warm process: what takes seconds to import is imported once.

The standard library's fork server is that process. It stays single-threaded and computes nothing,
so that a fork is safe; each child runs the real command line (`ecofm.cli.main`, or an entry point
of `train`) with its output in files, under limits, and dies at the moment that is asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LIMIT_S = 90.0
"""A command that takes longer hangs; unbroken ones take one or two seconds."""
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, and what happens to it."""

    tokens: tuple[str, ...]
    """Of `ecofm`, or of `python -m train.X` when the first begins with `train.`"""
    cwd: str
    kill_at: int | None = None
    """SIGKILL before the n-th change of the file system below `cwd`."""
    signal_after: tuple[int, float] | None = None
    """This signal after so many seconds."""
    max_file_bytes: int | None = None
    """Larger files fail with EFBIG, as on a full disk."""
    delay_s: float = 0.0
    """Begins so much later than it was started."""
    limit_s: float = LIMIT_S


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    """Exit code, or minus the signal; None: it hung and was killed."""
    said: str
    seconds: float
    changes: int
    """How often it changed the file system below its `cwd`."""

    @property
    def broke(self) -> bool:
        """Whether it ended in a traceback or a crash."""
        crashed = self.code is not None and self.code < 0
        return crashed or self.code == 70 or "Traceback (most recent call last)" in self.said

    @property
    def refused(self) -> bool:
        """Whether it ended in a sentence."""
        return self.code in (1, 2) and not self.broke and "error" in self.said.lower()

    @property
    def tail(self) -> str:
        """The last words."""
        return " ".join(self.said.split())[-300:]


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.warm"])
    return context


def start(function: Any, *args: Any) -> BaseProcess:
    """Start a function in a fork of the warm process."""
    process = _context().Process(target=function, args=args, daemon=True)
    process.start()
    found: BaseProcess = process
    return found


def run(command: Command) -> Ended:
    """Run one command to its end."""
    return run_together([command])[0]


def run_together(commands: Sequence[Command]) -> list[Ended]:
    """Run commands at once, each to its end."""
    with tempfile.TemporaryDirectory() as name:
        running = []
        for number, command in enumerate(commands):
            notes = Path(name) / str(number)
            running.append((start(carry_out, command, str(notes)), notes, time.monotonic()))
        for (process, _, _), command in zip(running, commands, strict=True):
            if command.signal_after:
                number, seconds = command.signal_after
                process.join(seconds)
                if process.is_alive():
                    os.kill(process.pid or 0, number)
        return [_wait(*one, c.limit_s) for one, c in zip(running, commands, strict=True)]


def _wait(process: BaseProcess, notes: Path, since: float, limit_s: float) -> Ended:
    process.join(max(0.0, since + limit_s - time.monotonic()))
    code: int | None = process.exitcode
    if process.is_alive():
        process.kill()
        process.join()
        code = None
    seconds = time.monotonic() - since
    said = notes.with_suffix(".said")
    text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
    changes = notes.with_suffix(".changes")
    return Ended(code, text, seconds, int(changes.read_text()) if changes.exists() else 0)


def carry_out(command: Command, notes: str) -> None:
    """In the child: run the command as the shell would, and leave at once."""
    said = os.open(f"{notes}.said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(said, number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    os.chdir(command.cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for sent in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(sent, signal.SIG_DFL)
    if command.max_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (command.max_file_bytes,) * 2)
    try:
        time.sleep(command.delay_s)
        n_changes = watch(command)
    except KeyboardInterrupt:  # before the command began
        os._exit(130)
    code = call(command.tokens)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    if command.max_file_bytes is None:
        Path(f"{notes}.changes").write_text(str(n_changes[0]))
    os._exit(code)


def call(tokens: Sequence[str]) -> int:
    """Return the exit code of a command line in this process."""
    try:
        if tokens[0].startswith("train."):
            sys.argv = list(tokens)
            runpy.run_module(tokens[0], run_name="__main__")
        else:
            from ecofm.cli import main

            main(list(tokens))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def watch(command: Command) -> list[int]:
    """Count changes of the file system below `cwd`, and die before the one that is asked for."""
    count = [0]

    def note(event: str, args: tuple[Any, ...]) -> None:
        is_change = event in CHANGES or (
            event == "open"
            and isinstance(args[2], int)
            and bool(args[2] & (os.O_WRONLY | os.O_RDWR))
        )
        if not is_change:
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes) else ""
        if path.startswith(command.cwd) or (path and not os.path.isabs(path)):
            count[0] += 1
            if count[0] == command.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    return count
