"""A warmed parent that forks one process a run, kills some at random, and says how each ended.

Imports are paid once. The parent stays single-threaded and lets torch compute nothing, so that a
fork is safe. Jobs come pickled on stdin: (archive, out, config, run, kill), where kill is None or
(step, seconds): SIGKILL comes that long after the step was reported.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any


class Forge:
    """The parent, from outside."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(
        self, archive: Path, out: Path, config: Any, run: Any, kill: tuple[int, float] | None = None
    ) -> int:
        """Run one process and return its exit code, or minus the signal that ended it."""
        assert self.process.stdin and self.process.stdout
        pickle.dump((archive, out, config, run, kill), self.process.stdin)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the forge is gone"
        return int(answer)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def child(job: Any, report: int) -> None:
    """Carry out a run and report each step."""
    from ecofm.pretrain.run import pretrain

    archive, out, config, run, _ = job
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pretrain([archive], out, config, run, progress=lambda done, _: os.write(report, b"%d\n" % done))


def carry_out(job: Any) -> int:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            child(job, writing)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    kill = job[4]
    with os.fdopen(reading, "rb", buffering=0) as steps:
        for line in steps:
            if kill and int(line) >= kill[0]:
                # Steps that are reported meanwhile do not matter; the pipe holds them.
                select.select([], [], [], kill[1])
                os.kill(pid, signal.SIGKILL)
                break
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def serve() -> None:
    """Fork for each job that comes in."""
    import lightly.loss
    import timm
    import torch
    import torch._dynamo

    import ecofm.pretrain.run  # noqa: F401

    assert lightly and timm
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)
        print(carry_out(job), file=answers, flush=True)


if __name__ == "__main__":
    serve()
