"""The registry of encoders: every line and every folder is what checkpoints/README.md says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm

import ecofm
from ecofm.errors import ArtifactError
from ecofm.pretrain.methods import METHODS
from ecofm.recipe import read_recipe

REGISTRY = Path(__file__).parents[2] / "checkpoints"
COLUMNS = ["name", "recipe", "data", "metrics", "licence", "where"]
NAME = re.compile(r"(\w+(?:\.\w+)?)-([a-z0-9_]+)-(s2l[12][ac]\d+|rgb8)-([a-z]+)-(\d+k?)")


def read_table(registry: Path) -> list[dict[str, str]]:
    lines = (registry / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    assert rows[0] == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in rows), "a line of another number of cells"
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[2:]]


def find_faults(registry: Path) -> list[str]:
    """What is wrong with the registry, one sentence each."""
    entries = read_table(registry)
    names = [entry["name"] for entry in entries]
    faults = [f"{name} is there twice" for name in set(names) if names.count(name) > 1]
    folders = {path.name for path in registry.iterdir() if path.is_dir()}
    faults += [f"folder {name} has no line" for name in folders - set(names)]
    for entry in entries:
        faults += [f"{entry['name']}: {fault}" for fault in judge(entry, registry / entry["name"])]
    return faults


def judge(entry: dict[str, str], folder: Path) -> list[str]:
    faults = [f"no {column}" for column in COLUMNS if not entry[column]]
    found = NAME.fullmatch(entry["name"])
    if found is None:
        return [*faults, "another form of name"]
    backbone, method, _, _, steps = found.groups()
    if not timm.is_model(backbone):
        faults.append(f"backbone {backbone} is not timm's")
    if method not in METHODS:
        faults.append(f"method {method} is not ours")
    try:
        recipe = read_recipe(entry["recipe"])
    except ValueError as error:
        return [*faults, str(error)]
    if type(recipe.method) is not METHODS.get(method) or recipe.encoder.backbone != backbone:
        faults.append("the recipe makes another encoder")
    if folder.is_dir():
        faults += judge_folder(entry, folder, backbone, method, steps)
    return faults


def judge_folder(
    entry: dict[str, str], folder: Path, backbone: str, method: str, steps: str
) -> list[str]:
    try:
        encoder, _ = ecofm.load_encoder(folder)
    except ArtifactError as error:
        return [str(error)]
    stored = json.loads((folder / "config.json").read_text())
    made = json.loads((folder / "manifest.json").read_text())["config"]
    n_steps = int(steps.removesuffix("k")) * (1000 if steps.endswith("k") else 1)
    claims = {
        "backbone": (encoder.config.backbone, backbone),
        "method": (made["method"]["name"], method),
        "recipe": (stored["recipe"], entry["recipe"]),
        "steps": (stored["steps"], n_steps),
        "dim": (stored["dim"], encoder.dim),
    }
    faults = [f"{key} is {a} in the folder" for key, (a, b) in claims.items() if a != b]
    return faults + ([] if (folder / "README.md").is_file() else ["no model card"])


def test_the_registry_is_as_it_says() -> None:
    assert find_faults(REGISTRY) == []


def test_its_python_is_that_of_the_library() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REGISTRY / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "README.md", "exec")
    assert "ecofm.load_encoder(" in blocks[0] and "find_columns(" in blocks[1]


GOOD = "resnet10t-simclr-s2l2a12-testland-1"


def forge(root: Path, *lines: str) -> Path:
    root.mkdir(exist_ok=True)
    head = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|\n"
    (root / "README.md").write_text(head + "".join(line + "\n" for line in lines))
    return root


def line(**changes: str) -> str:
    fields = {
        "name": GOOD, "recipe": "demo", "data": "a test", "metrics": "none", "licence": "CC0",
        "where": "nowhere",
    }  # fmt: skip
    return "| " + " | ".join((fields | changes).values()) + " |"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([line(licence="")], "no licence"),
        ([line(name="my-model")], "another form of name"),
        ([line(name="resnet11t-simclr-s2l2a12-testland-1")], "resnet11t is not timm's"),
        ([line(name="resnet10t-simclear-s2l2a12-testland-1")], "simclear is not ours"),
        ([line(recipe="secret")], "recipe 'secret' is not known"),
        ([line(recipe="rn50_moco")], "the recipe makes another encoder"),
        ([line(), line()], "is there twice"),
    ],
)
def test_wrong_lines_are_found(lines: list[str], fault: str, tmp_path: Path) -> None:
    assert any(fault in found for found in find_faults(forge(tmp_path / "registry", *lines)))


def test_folders_are_compared_with_their_lines(stages: Any, tiny: Any, tmp_path: Path) -> None:
    from ecofm.pretrain.run import RunConfig, pretrain

    run = pretrain(
        [stages.archive], tmp_path / "run", tiny(steps=1), RunConfig(accelerator="cpu"),
        recipe="demo",
    )  # fmt: skip
    registry = forge(tmp_path / "registry", line())
    folder = shutil.copytree(run / "encoder", registry / GOOD)
    assert find_faults(registry) == []
    (folder / "README.md").unlink()
    assert find_faults(registry) == [f"{GOOD}: no model card"]
    forge(registry)
    assert find_faults(registry) == [f"folder {GOOD} has no line"]
    other = GOOD.replace("-1", "-2k")
    folder.rename(registry / other)
    forge(registry, line(name=other))
    assert f"{other}: steps is 1 in the folder" in find_faults(registry)
    (registry / other / "model.safetensors").write_bytes(b"")
    assert any("model.safetensors is damaged" in fault for fault in find_faults(registry))
