"""A long time of the same: memory and open descriptors stay as they were."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.faults.forge import start
from tests.faults.lab import Lab, clear
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part
from tests.faults.votes import Client, serve

N_READINGS = 10
WARM = 3
"""Readings before memory is settled."""
MAX_GROWTH = 0.05
"""Of the resident memory between the first settled reading and the last."""

Reading = tuple[int, int]
"""Resident bytes and open descriptors."""


def measure(pid: int) -> Reading:
    """Return what a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def judge(readings: list[Reading], what: str) -> Try:
    """Compare the last reading with the first settled one."""
    settled, last = readings[WARM], readings[-1]
    told = f"{what}: {settled[0] / 1e6:.1f} MB and {settled[1]} descriptors, then "
    told += f"{last[0] / 1e6:.1f} MB and {last[1]}"
    grew = last[0] > settled[0] * (1 + MAX_GROWTH) or last[1] > settled[1] + 2
    return Try(Outcome.lost if grew else Outcome.harmless, told)


def load_samples(archive: str, n: int, answers: Connection) -> None:
    """In a child: take samples from the loader, and measure now and then."""
    from ecofm.tiles.archive import open_archives
    from ecofm.tiles.loader import PairLoader

    opened, _ = open_archives([Path(archive)])
    batch_size = 128
    loader = iter(PairLoader(opened, batch_size=batch_size, seed=0, crop_px=16, threads=2))
    every = max(1, n // batch_size // N_READINGS)
    for _ in range(N_READINGS):
        for _ in range(every):
            next(loader)
        answers.send(measure(os.getpid()))
    answers.send(None)
    os._exit(0)


def soak_loader(lab: Lab, n: int, random: Random, work: Path) -> Iterator[Try]:
    """So many samples from the loader."""
    ours, theirs = Pipe()
    process = start(load_samples, str(lab.root / "archive"), n, theirs)
    theirs.close()
    readings = []
    while (found := ours.recv()) is not None:
        readings.append(found)
    process.join()
    yield judge(readings, f"{n} samples")


def soak_server(n: int, random: Random, work: Path) -> Iterator[Try]:
    """So many requests over four connections."""
    with serve(clear(work) / "votes") as nursery:
        clients = [Client(number, nursery.port, 0) for number in range(4)]
        for client in clients:
            client.enter()
        readings = []
        for _ in range(N_READINGS):
            share = n // N_READINGS // len(clients)
            asking = [threading.Thread(target=ask, args=(client, share)) for client in clients]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            readings.append(measure(nursery.server))
        for client in clients:
            client.close()
    yield judge(readings, f"{n} requests")


def ask(client: Client, n: int) -> None:
    ways: list[Callable[[], object]] = [
        lambda: client.insist("GET", "/api/pair"),
        lambda: client.ask("GET", "/api/nothing"),
    ]
    for number in range(n):
        ways[number % len(ways)]()


def parts(lab: Lab, scale: float) -> dict[str, Part]:
    """Return a million samples and 100,000 requests, or a share of them."""
    return {
        "loader": partial(soak_loader, lab, int(1_000_000 * scale)),
        "requests": partial(soak_server, int(100_000 * scale)),
    }
