"""What a run survives: damaged checkpoints, full disks, steps not finite, and changed options."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecofm.errors import ArtifactError, EcofmError
from ecofm.pretrain import module as pretrain_module
from ecofm.pretrain.encoders import WEIGHTS
from ecofm.pretrain.folder import RUN
from ecofm.pretrain.methods import METHODS
from ecofm.pretrain.module import ContrastiveModule, Schedule
from ecofm.pretrain.resume import (
    AtomicCheckpointIO,
    newest_checkpoint,
    require_room,
    sweep,
)
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain

Tiny = Callable[..., PretrainConfig]


def run_config(**changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "threads": 0, "checkpoint_every": 100, "log_every": 1, "accelerator": "cpu",
        "torch_threads": 1,
    }  # fmt: skip
    return RunConfig(**(fields | changes))


def weights(run: Path) -> bytes:
    return (run / "encoder" / WEIGHTS).read_bytes()


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def archive(make_archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "archive")


def send(number: signal.Signals, at: int, times: int = 1) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == at:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return progress


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_break_the_search_for_a_checkpoint(tmp_path: Path, seed: int) -> None:
    import random

    torch.save({"state": torch.arange(8), "step": 2}, tmp_path / "step-000000002.ckpt")
    damaged = bytearray((tmp_path / "step-000000002.ckpt").read_bytes())
    generator = random.Random(seed)
    for _ in range(40):
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
    (tmp_path / "step-000000004.ckpt").write_bytes(bytes(damaged))
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.name in ("step-000000002.ckpt", "step-000000004.ckpt")


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "step-000000002.ckpt").write_bytes(b"no checkpoint")
    (tmp_path / ".step-000000004.ckpt.partial").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) is None


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    """A checkpoint that would run code on loading is damaged for us."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "bang",))

    torch.save({"state": Bomb()}, tmp_path / "step-000000002.ckpt")
    assert newest_checkpoint(tmp_path) is None and not (tmp_path / "bang").exists()


def test_one_flipped_byte_of_a_tensor_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch reads such a file without a word."""
    path = tmp_path / "step-000000002.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state": torch.full((1000,), 3.0)}, path)
    damaged = path.read_bytes().replace(torch.tensor(3.0).numpy().tobytes(), b"\1\0\0\0", 1)
    path.write_bytes(damaged)
    assert torch.load(path, weights_only=True)["state"][0] != 3
    assert newest_checkpoint(tmp_path) is None
    assert f"{path} is damaged" in capsys.readouterr().err


def test_a_full_disk_at_the_save_leaves_the_checkpoint_before(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "checkpoints"

    def fill(done: int, total: int) -> None:
        if done == 3:  # what is written there meets a full disk
            (folder / ".step-000000004.ckpt.partial").symlink_to("/dev/full")

    config = tiny()
    with pytest.raises(EcofmError, match=r"step-000000004\.ckpt cannot be written.*free some"):
        pretrain([archive], tmp_path / "run", config, run_config(checkpoint_every=2), progress=fill)
    assert [path.name for path in folder.iterdir()] == ["step-000000002.ckpt"]
    pretrain([archive], tmp_path / "run", config, run_config())
    assert {"event": "resume", "step": 2} in lines(tmp_path / "run")


def test_a_disk_without_room_is_refused_before_training(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EcofmError, match=r"no room for checkpoints of \d+ MB"):
        require_room(tmp_path / "checkpoints", 1 << 60)
    assert not list((tmp_path / "checkpoints").iterdir())

    def full(descriptor: int, start: int, n_bytes: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EcofmError, match="No space left"):
        pretrain([archive], tmp_path / "run", tiny(), run_config())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    pretrain([archive], tmp_path / "run", tiny(steps=0), run_config())
    (tmp_path / "file").write_text("")
    with pytest.raises(EcofmError, match="no room for checkpoints"):
        require_room(tmp_path / "file", 1)


def test_orphans_are_swept(archive: Path, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".step-000000009.ckpt.partial").write_bytes(b"half")
    (folder / "mine.txt").write_text("kept")
    sweep(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_nothing_is_staged_in_tmpdir(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", lambda: str(tmp_path / "nowhere"))
    pretrain([archive], tmp_path / "run", tiny(steps=2), run_config(checkpoint_every=1))
    assert (tmp_path / "run" / "encoder").is_dir()


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], value: float) -> None:
    """Make the views of some steps something that has no finite loss."""
    normal = pretrain_module.draw_parameters

    def draw(*args: Any, **key: Any) -> Any:
        drawn = normal(*args, **key)
        if key["step"] in steps:
            drawn.offset.fill_(value)
        return drawn

    monkeypatch.setattr(pretrain_module, "draw_parameters", draw)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_step_that_is_not_finite_leaves_every_state_as_it_was(
    method: str, value: float, archive: Path, tiny: Tiny, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spoil(monkeypatch, {2}, value)
    states: dict[int, Any] = {}
    save = AtomicCheckpointIO.save_checkpoint

    def keep(self: Any, checkpoint: dict[str, Any], path: Any, **options: Any) -> None:
        kept = {key: checkpoint[key] for key in ("state_dict", "optimizer_states")}
        states[int(checkpoint["state_dict"]["step"])] = copy.deepcopy(kept)
        save(self, checkpoint, path, **options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", keep)
    run = run_config(checkpoint_every=1)
    pretrain([archive], tmp_path / "run", tiny(method, accumulate=2), run)
    before, after = states[2], states[3]
    assert int(after["state_dict"].pop("skipped_in_a_row")) == 1
    assert int(before["state_dict"].pop("skipped_in_a_row")) == 0
    before["state_dict"].pop("step"), after["state_dict"].pop("step")
    for name, tensor in before["state_dict"].items():
        assert torch.equal(tensor, after["state_dict"][name]), name
    first, second = before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"]
    for number, state in first.items():
        for name, tensor in state.items():
            assert torch.equal(tensor, second[number][name]), name
    events = [line for line in lines(tmp_path / "run") if line.get("event") == "skip"]
    assert events == [{"event": "skip", "step": 3, "in_a_row": 1}]
    assert int(states[4]["state_dict"]["skipped_in_a_row"]) == 0
    assert all(value.isfinite().all() for value in states[4]["state_dict"].values())


def test_a_streak_ends_the_run_and_names_the_tiles(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {2, 3, 4}, torch.nan)
    # A kill in the streak does not begin it anew.
    with pytest.raises(EcofmError, match="SIGTERM after step 4"):
        pretrain(
            [archive], tmp_path / "run", tiny(steps=9), run_config(max_skipped=3),
            progress=send(signal.SIGTERM, 3),
        )  # fmt: skip
    with pytest.raises(EcofmError, match=r"3 steps in a row .* step 5; .*32652_") as raised:
        pretrain([archive], tmp_path / "run", tiny(steps=9), run_config(max_skipped=3))
    from ecofm.tiles.archive import open_archive
    from ecofm.tiles.loader import PairLoader

    opened = open_archive(archive)
    pairs = PairLoader([opened], batch_size=4, seed=0).pairs(4)
    assert all(
        opened.index["tile_id"].iloc[tile] in str(raised.value) for tile in pairs.flatten().tolist()
    )
    assert not (tmp_path / "run" / "encoder").exists()


def test_another_number_of_steps_is_refused_under_a_cosine(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run = pretrain([archive], tmp_path / "run", tiny(steps=2), run_config())
    with pytest.raises(ArtifactError, match=r"steps 2 in place of 3: only schedule=constant"):
        pretrain([archive], run, tiny(steps=3), run_config())


def test_a_constant_schedule_lets_a_run_grow_longer_and_no_shorter(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    short, long = (tiny("dino", steps=n, schedule=Schedule.constant) for n in (2, 4))
    run = pretrain([archive], tmp_path / "run", short, run_config())
    before = weights(run)
    pretrain([archive], run, long, run_config())
    whole = pretrain([archive], tmp_path / "whole", long, run_config())
    assert weights(run) == weights(whole) != before
    assert {"event": "resume", "step": 2} in lines(run)
    with pytest.raises(ArtifactError, match="steps 4 in place of 2"):
        pretrain([archive], run, short, run_config())


def test_a_run_killed_after_its_last_step_is_only_exported(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    import shutil

    run = pretrain([archive], tmp_path / "run", tiny(steps=2), run_config())
    before, count = weights(run), len(lines(run))
    shutil.rmtree(run / "encoder")
    pretrain([archive], run, tiny(steps=2), run_config())
    assert weights(run) == before and len(lines(run)) == count


def test_a_half_line_of_metrics_is_cut_off(archive: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(EcofmError):
        pretrain(
            [archive], tmp_path / "run", tiny(), run_config(), progress=send(signal.SIGTERM, 1)
        )
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    pretrain([archive], tmp_path / "run", tiny(), run_config())
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 2, 3, 4]


def test_torchs_threads_and_precision_are_those_of_the_runs_beginning(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    first = run_config(torch_threads=2, precision="32-true")
    with pytest.raises(EcofmError):
        pretrain([archive], tmp_path / "run", tiny(), first, progress=send(signal.SIGTERM, 1))
    seen: dict[str, Any] = {}

    def look(done: int, total: int) -> None:
        seen.update(threads=torch.get_num_threads())

    pretrain([archive], tmp_path / "run", tiny(), run_config(torch_threads=None), progress=look)
    machine = json.loads((tmp_path / "run" / RUN).read_text())["machine"]
    assert seen == {"threads": 2} and machine == {
        "torch_threads": 2, "precision": "32-true", "channels_last": True, "compile": False,
        "sharded": False,
    }  # fmt: skip
    assert torch.get_num_threads() == before


def test_gradients_add_up_over_the_parts_of_a_batch(archive: Path, tiny: Tiny) -> None:
    """BYOL on GroupNorm compares no samples with each other: parts change nothing."""
    from ecofm.pretrain.encoders import Encoder, EncoderConfig, Norm
    from ecofm.pretrain.methods import build_method
    from ecofm.pretrain.places import PlaceFinder
    from ecofm.tiles.archive import open_archives
    from ecofm.tiles.loader import PairLoader

    opened, contract = open_archives([archive])
    config = tiny("byol", encoder=EncoderConfig(backbone="resnet10t", width=0.25, norm=Norm.group))
    places = PlaceFinder(config.views, ((0, 0), (1, 1)), seed=0, n_global=4, tile_px=(32, 32))
    batch = next(iter(PairLoader(opened, batch_size=4, seed=0, places=places)))
    found = []
    for parts in (1, 2):
        torch.manual_seed(0)
        module = ContrastiveModule(
            build_method(config.method, Encoder(config.encoder, contract)), config.views, opened,
            batch_size=4, seed=0, steps=4, warmup_steps=1, learning_rate=1e-3, weight_decay=0.0,
            threads=0, accumulate=parts,
        )  # fmt: skip
        module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
        module._accumulate(batch)
        found.append([p.grad for p in module.method.parameters() if p.grad is not None])
    for whole, parts_ in zip(*found, strict=True):
        assert torch.allclose(whole, parts_, atol=1e-6)


def test_the_other_processes_wait_for_the_first_to_begin(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading
    import time

    from ecofm.pretrain import folder

    manifest = {"config": {"steps": 2, "schedule": "cosine"}, "inputs": {"archive0": "a"}}
    out = tmp_path / "run"
    out.mkdir()
    (out / f".{RUN}.partial").write_text("{")  # what the first process is writing just now
    begun: list[float] = []

    def begin() -> None:
        time.sleep(0.5)
        begun.append(time.monotonic())
        folder.begin(out, manifest, run_config())

    first = threading.Thread(target=begin)
    first.start()
    folder.wait_for_first(out, manifest, seconds=30)
    assert begun and time.monotonic() >= begun[0]
    first.join()
    folder.wait_for_first(out, manifest, seconds=30)
    assert not folder.is_finished(out, manifest, False)
    # One that never comes is not waited for longer than told, and the folder is judged then.
    other = manifest | {"inputs": {"archive0": "b"}}
    folder.wait_for_first(out, other, seconds=0.5)
    with pytest.raises(ArtifactError, match="another inputs"):
        folder.is_finished(out, other, False)


@pytest.mark.parametrize(
    ("variables", "is_first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_which_process_is_the_first(
    variables: dict[str, str], is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecofm.pretrain.folder import is_first_process

    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is is_first
