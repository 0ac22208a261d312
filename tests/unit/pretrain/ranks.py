"""Two processes of one distributed run, as torchrun would start them.

They are forked by a server that imports once and computes nothing. The process of the tests has
run threads by then, and a fork of it may hang or crash.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 240
ROOT = str(Path(__file__).parents[3])


def torchrun(rank: int, port: int) -> dict[str, str]:
    """Return the environment of one of two processes."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def serve(rank: int, port: int, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call the target in this process as one of torchrun's two."""
    import torch

    faulthandler.enable()
    os.environ |= torchrun(rank, port)
    torch.set_num_threads(1)
    target(rank, *arguments)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def run_ranks(target: Callable[..., None], *arguments: Any) -> None:
    """Call target(rank, *arguments) in two processes; what either raises stands in stderr."""
    if ROOT not in sys.path:  # the processes import the test's module by its name
        sys.path.append(ROOT)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ecofm.pretrain.run", "lightly.loss", "timm"])
    port = free_port()
    ranks = [context.Process(target=serve, args=(n, port, target, arguments)) for n in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(SECONDS)
        process.kill()
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
