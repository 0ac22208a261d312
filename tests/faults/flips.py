"""One flipped bit in an artifact, opened by the stage that reads it.

A warm worker process opens thousands, each as a copy under a name of its own, so that nothing that
is kept by path hides a flip. What is compared is what the reader makes of the artifact.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.faults.forge import LIMIT_S, start
from tests.faults.lab import Lab, clear
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part

NAMED = ("left out", "damaged", "another checksum", "warning")
"""Words by which a reader that goes on tells what it met."""


def read_embeddings(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.maps.scores import score

    return tell(score([copy], lab / "ranker", scratch / "out"))


def read_ranker(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.maps.scores import score

    return tell(score([lab / "embeddings"], copy, scratch / "out"))


def read_encoder(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.embed import embed

    return tell(embed([lab / "archive"], copy, scratch / "out"))


def read_archive(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.tiles.archive import TileError, open_archive

    archive = open_archive(copy)
    found = hashlib.sha256(archive.index.to_json().encode())
    found.update(repr(archive.contract).encode())
    for number in range(archive.n_tiles):
        try:
            for values in archive.read(number):
                found.update(values.tobytes())
        except TileError as error:
            print(f"left out: {error}")
    return found.hexdigest()


def read_clusters(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.compare.items import ExemplarSheets
    from ecofm.compare.members import read_members

    sheets = ExemplarSheets(copy)
    shown = b"".join(sheets.image(number)[0] for number in range(len(sheets.items)))
    return read_members(copy).to_csv() + hashlib.sha256(shown).hexdigest()


def read_scores(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.maps import change

    return str(change.read_scores(copy).to_json())


def read_shown(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.verbs.show import show

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        show(copy, out=scratch / "pictures")
    return said.getvalue().replace(str(copy), "") + tell(scratch / "pictures")


def read_store(copy: Path, lab: Path, scratch: Path) -> str:
    from ecofm.compare import export

    export(copy, scratch / "out.csv")
    return (scratch / "out.csv").read_text()


def read_checkpoint(copy: Path, lab: Path, scratch: Path) -> str:
    import torch

    from ecofm.pretrain.resume import newest_checkpoint

    path = newest_checkpoint(copy)
    if path is None:
        return ""
    state = torch.load(path, map_location="cpu", weights_only=True)
    tensors = state["state_dict"].items()
    found = hashlib.sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in tensors))
    return f"{path.name} {found.hexdigest()} {state['global_step']} {state['optimizer_states']!r}"


def tell(folder: Path) -> str:
    """Return the bytes of a folder's files; manifests name their inputs, which do differ."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        if path.is_file() and path.name != "manifest.json":
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


Reader = Callable[[Path, Path, Path], str]
READERS: dict[str, tuple[str, Reader]] = {
    "embeddings": ("embeddings", read_embeddings),
    "clusters": ("clusters", read_clusters),
    "ranker": ("ranker", read_ranker),
    "encoder": ("run/encoder", read_encoder),
    "scores": ("scores", read_scores),
    "change": ("change", read_shown),
    "report": ("report", read_shown),
    "archive": ("archive", read_archive),
    "store": ("store", read_store),
    "checkpoint": ("run/checkpoints", read_checkpoint),
}
"""Where each artifact lies in the lab, and who reads it."""

Flip = tuple[str, int, int]
"""File, byte and bit."""


def flip(lab: Lab, name: str, n: int, random: Random, work: Path) -> Iterator[Try]:
    """Flip one bit, `n` times; half of the files are drawn by their size."""
    source = lab.root / READERS[name][0]
    flips = [("", 0, 0), *(draw_flip(source, random) for _ in range(n))]
    whole = ""
    while flips:
        ours, theirs = Pipe()
        process = start(work_off, name, str(lab.root), str(clear(work)), flips, theirs)
        theirs.close()
        for answer in receive(ours, len(flips)):
            done, flips = flips[0], flips[1:]
            what = f"{name}, {done[0]} byte {done[1]} bit {done[2]}"
            if not done[0]:
                assert isinstance(answer, tuple) and answer[0] == 0, f"{name}: {answer}"
                whole = answer[2]
            elif answer is None:
                crashed = not process.is_alive()
                yield Try(Outcome.traceback if crashed else Outcome.hung, what)
                break
            else:
                yield classify(*answer, whole, what)
        process.kill()
        process.join()
        ours.close()


def receive(answers: Connection, n: int) -> Iterator[tuple[int, str, str] | None]:
    """Yield answers; the last is None where the worker crashed or hangs."""
    for _ in range(n):
        try:
            if not answers.poll(LIMIT_S):
                yield None
                return
            yield answers.recv()
        except EOFError:
            time.sleep(0.2)
            yield None
            return


def classify(code: int, said: str, made: str, whole: str, what: str) -> Try:
    if code == 70:
        return Try(Outcome.traceback, f"{what}: {said[-300:]}")
    if code:
        return Try(Outcome.noticed, what)
    if any(word in said for word in NAMED):
        return Try(Outcome.noticed, what)
    return Try(Outcome.harmless if made == whole else Outcome.silent, what)


def draw_flip(source: Path, random: Random) -> Flip:
    files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
    files = sorted(path for path in files if path.stat().st_size and path.suffix != ".png")
    sizes = [path.stat().st_size for path in files]
    path = random.choice(files) if random.random() < 0.5 else random.choices(files, sizes)[0]
    name = path.name if source.is_file() else path.relative_to(source).as_posix()
    return name, random.randrange(path.stat().st_size), random.randrange(8)


def work_off(name: str, root: str, work: str, flips: list[Flip], answers: Connection) -> None:
    """In the worker: open each damaged copy and send what came of it."""
    from ecofm.faults import explain

    place, reader = READERS[name]
    source = Path(root) / place
    for number, flipped in enumerate(flips):
        copy, scratch = Path(work) / f"copy{number}", clear(Path(work) / f"scratch{number}")
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy2(source, copy)
        if flipped[0]:
            damage(copy if copy.is_file() else copy / flipped[0], flipped)
        said = io.StringIO()
        code, made = 0, ""
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                made = reader(copy, Path(root), scratch)
            except (Exception, SystemExit) as error:
                code, sentence = explain(error)
                said.write(f"{sentence} {type(error).__name__}: {error}")
        answers.send((code, said.getvalue(), hashlib.sha256(made.encode()).hexdigest()))
        for path in (copy, scratch):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for beside in Path(work).glob(f"copy{number}*"):
            beside.unlink() if beside.is_file() else shutil.rmtree(beside)
    os._exit(0)


def damage(path: Path, flipped: Flip) -> None:
    with path.open("r+b") as file:
        file.seek(flipped[1])
        (value,) = file.read(1)
        file.seek(flipped[1])
        file.write(bytes([value ^ 1 << flipped[2]]))


def parts(lab: Lab, n: int) -> dict[str, Part]:
    """Return the attack on each artifact, `n` flips over all."""
    return {name: partial(flip, lab, name, -(-n // len(READERS))) for name in READERS}
