"""Pretraining runs: a function of the step, however often they are killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ecofm
from ecofm.errors import ArtifactError, ContractError
from ecofm.pretrain.encoders import WEIGHTS, EncoderConfig
from ecofm.pretrain.method import MethodConfig
from ecofm.pretrain.methods import SimCLRConfig
from ecofm.pretrain.module import ContrastiveModule, schedule
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain

Tiny = Callable[..., PretrainConfig]
STEPS = 6


class Killed(Exception):
    """Stands for whatever ends a run."""


def run_config(**changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "threads": 0, "checkpoint_every": 2, "log_every": 1, "accelerator": "cpu",
        "torch_threads": 1,
    }  # fmt: skip
    return RunConfig(**(fields | changes))


def weights(run: Path) -> bytes:
    return (run / "encoder" / WEIGHTS).read_bytes()


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill_at(last: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == last:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def archive(make_archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "archive")


@pytest.fixture(scope="module")
def unbroken(
    archive: Path,
    tiny: Tiny,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PretrainConfig, Path]:
    """A config and the run that nothing interrupted."""
    config = tiny("moco", steps=STEPS)
    return config, pretrain(
        [archive], tmp_path_factory.mktemp("unbroken") / "run", config, run_config()
    )


def test_a_run_leaves_encoder_metrics_and_checkpoints(
    unbroken: tuple[PretrainConfig, Path],
) -> None:
    _, run = unbroken
    encoder, contract = ecofm.load_encoder(run)
    assert contract.dtype == "uint16" and encoder.dim > 0
    assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
    assert all(line["loss"] > 0 and line["embedding_std"] >= 0 for line in lines(run))
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step-000000004.ckpt", "step-000000006.ckpt"]
    for path in (run / "checkpoints").iterdir():
        assert "callbacks" in torch.load(path, weights_only=True)
    fields = json.loads((run / "encoder" / "config.json").read_text())
    assert fields["steps"] == STEPS


@pytest.mark.parametrize(("threads", "kills"), [(0, (3,)), (2, (1, 5))], ids=["once", "twice"])
def test_killed_and_resumed_equals_unbroken(
    unbroken: tuple[PretrainConfig, Path],
    archive: Path,
    tmp_path: Path,
    threads: int,
    kills: tuple[int, ...],
) -> None:
    config, whole = unbroken
    for last in kills:
        with pytest.raises(Killed):
            pretrain(
                [archive],
                tmp_path / "run",
                config,
                run_config(threads=threads),
                progress=kill_at(last),
            )
        assert not (tmp_path / "run" / "encoder").exists()
    pretrain([archive], tmp_path / "run", config, run_config(threads=threads))
    assert weights(tmp_path / "run") == weights(whole)
    resumes = [line["step"] for line in lines(tmp_path / "run") if line.get("event") == "resume"]
    # Killed after the step was made, before its checkpoint.
    assert resumes == [(last - 1) // 2 * 2 for last in kills if last > 2]
    by_step = {line["step"]: line for line in lines(tmp_path / "run") if "event" not in line}
    assert by_step == {line["step"]: line for line in lines(whole)}


def test_a_damaged_newest_checkpoint_is_passed_over_and_said(
    unbroken: tuple[PretrainConfig, Path],
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, whole = unbroken
    with pytest.raises(Killed):
        pretrain([archive], tmp_path / "run", config, run_config(), progress=kill_at(5))
    newest = tmp_path / "run" / "checkpoints" / "step-000000004.ckpt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    pretrain([archive], tmp_path / "run", config, run_config())
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said and "resumed at step 2" in said
    assert weights(tmp_path / "run") == weights(whole)


def test_the_same_call_again_is_done(
    unbroken: tuple[PretrainConfig, Path], archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = unbroken
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    # How a run is carried out may change; what it is may not.
    pretrain([archive], run, config, run_config(threads=2, checkpoint_every=3))
    assert "is done already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_another_run_in_the_folder_is_refused_unless_overwritten(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run = pretrain([archive], tmp_path / "run", tiny(steps=0), run_config())
    before = weights(run)
    with pytest.raises(ArtifactError, match=r"another config.*--overwrite"):
        pretrain([archive], run, tiny(steps=0, seed=1), run_config())
    assert weights(run) == before
    pretrain([archive], run, tiny(steps=0, seed=1), run_config(), overwrite=True)
    assert weights(run) != before


def test_other_archives_are_refused(
    make_archive: Callable[..., Path], archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run = pretrain([archive], tmp_path / "run", tiny(steps=0), run_config())
    other = make_archive(tmp_path / "other", seed=1)
    with pytest.raises(ArtifactError, match="another inputs"):
        pretrain([archive, other], run, tiny(steps=0), run_config())


def test_a_folder_with_other_files_is_left_alone(archive: Path, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("important")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="no run"):
            pretrain([archive], tmp_path / "mine", tiny(), run_config(), overwrite=overwrite)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="file"):
        pretrain([archive], tmp_path / "file", tiny(), run_config())


@pytest.mark.parametrize("content", ["{", "[]", '"run"'])
def test_a_damaged_run_record_is_bad_data(
    archive: Path, tiny: Tiny, tmp_path: Path, content: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"run"):
        pretrain([archive], tmp_path / "run", tiny(), run_config())


def test_one_period_is_warned_of(
    make_archive: Callable[..., Path],
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    single = make_archive(tmp_path / "single", periods=("2019",))
    pretrain([single], tmp_path / "run", tiny(steps=1), run_config())
    assert "warning: no cell has two periods" in capsys.readouterr().err
    pretrain([make_archive(tmp_path / "two")], tmp_path / "run2", tiny(steps=1), run_config())
    assert "warning" not in capsys.readouterr().err


def test_no_steps_write_the_random_encoder(archive: Path, tiny: Tiny, tmp_path: Path) -> None:
    first = pretrain([archive], tmp_path / "a", tiny(steps=0), run_config())
    again = pretrain([archive], tmp_path / "b", tiny("moco", steps=0), run_config())
    other = pretrain([archive], tmp_path / "c", tiny(steps=0, seed=1), run_config())
    assert weights(first) == weights(again) != weights(other)
    assert not (first / "metrics.jsonl").exists()


def test_several_archives_are_pooled(
    make_archive: Callable[..., Path], archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    chips = make_archive(tmp_path / "chips", grid="none", n_cells=5, seed=3)
    run = pretrain([archive, chips], tmp_path / "run", tiny(steps=2), run_config())
    _, contract = ecofm.load_encoder(run)
    means = [
        json.loads((p / "manifest.json").read_text())["contract"]["mean"] for p in (archive, chips)
    ]
    for pooled, first, second in zip(contract.mean, *means, strict=True):
        assert pooled == pytest.approx((12 * first + 5 * second) / 17)
    assert sorted(json.loads((run / "run.json").read_text())["inputs"]) == ["archive0", "archive1"]


@pytest.mark.parametrize("other", [{"bands": ("B02", "B03", "B04", "B11")}, {"dtype": "int16"}])
def test_archives_that_differ_are_refused(
    make_archive: Callable[..., Path],
    archive: Path,
    tiny: Tiny,
    tmp_path: Path,
    other: dict[str, Any],
) -> None:
    with pytest.raises(ContractError, match=f"differ in {next(iter(other))}"):
        pretrain([archive, make_archive(tmp_path / "other", **other)], tmp_path / "run", tiny())
    with pytest.raises(ArtifactError, match="16, 16"):
        pretrain([archive, make_archive(tmp_path / "small", tile_px=16)], tmp_path / "run", tiny())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -1}, {"batch_size": 1}, {"learning_rate": 0.0}, {"seed": -1}, {"seed": 2**32}],
)
def test_unusable_values_are_wrong_arguments(tiny: Tiny, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needed|expected"):
        tiny(**wrong)


def test_the_bare_method_and_unknown_backbones_leave_nothing(
    archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no method"):
        pretrain([archive], tmp_path / "run", tiny(method=MethodConfig()), run_config())
    with pytest.raises(ValueError, match="no_such_net"):
        EncoderConfig(backbone="no_such_net")
    pretrain([archive], tmp_path / "run", tiny(steps=0), run_config())


def test_torch_threads_are_given_back(archive: Path, tiny: Tiny, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    pretrain([archive], tmp_path / "run", tiny(steps=1), run_config(torch_threads=3))
    assert torch.get_num_threads() == before


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [schedule(step, 100, 10) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1 and rates[10] == 1
    assert rates[100] == pytest.approx(0) and rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule(0, 5, 0) == 1 and 0 <= schedule(3, 5, 50) < 1


def test_norms_and_biases_are_not_decayed(archive: Path, tiny: Tiny) -> None:
    from ecofm.pretrain.encoders import Encoder
    from ecofm.pretrain.methods import build_method
    from ecofm.pretrain.views import ViewConfig
    from ecofm.tiles.archive import open_archives

    opened, contract = open_archives([archive])
    method = build_method(
        SimCLRConfig(hidden_dim=8, projection_dim=4), Encoder(tiny().encoder, contract)
    )
    module = ContrastiveModule(
        method, ViewConfig(), opened, batch_size=4, seed=0, steps=4, warmup_steps=1,
        learning_rate=1e-3, weight_decay=0.1, threads=0,
    )  # fmt: skip
    decayed, free = module.configure_optimizers().param_groups
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    assert {p.ndim for p in free["params"]} == {1} and min(p.ndim for p in decayed["params"]) > 1


@pytest.mark.parametrize("moment", ["before the record", "before the old run is gone"])
def test_a_kill_while_a_run_is_replaced_loses_neither(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run = pretrain([archive], tmp_path / "run", tiny(steps=0), run_config())
    old = (run / "encoder" / "model.safetensors").read_bytes()

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment == "before the record":
            patch.setattr("ecofm.artifact.write_sealed", die)
        else:
            patch.setattr("ecofm.pretrain.folder.shutil.rmtree", lambda *_, **__: None)
            patch.setattr("ecofm.pretrain.encoders.save", die)
        pretrain([archive], tmp_path / "run", tiny(steps=0, seed=1), run_config(), overwrite=True)
    if moment == "before the record":
        pretrain([archive], tmp_path / "run", tiny(steps=0), run_config())
        assert (run / "encoder" / "model.safetensors").read_bytes() == old
    pretrain([archive], tmp_path / "run", tiny(steps=0, seed=1), run_config(), overwrite=True)
    assert (run / "encoder" / "model.safetensors").read_bytes() != old
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
