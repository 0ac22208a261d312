"""What names code or a cluster: signing functions and files of `--dask`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ecofm.errors import ArtifactError, UsageError
from ecofm.tiles import signing, workers
from ecofm.tiles.signing import load_sign

CODE = "import pathlib\npathlib.Path('bang').touch()\ndef sign(url):\n    return url + '?key'\n"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as this Python's site-packages, and an empty current folder."""
    packages, here = tmp_path / "site-packages", tmp_path / "here"
    for folder in (packages, here):
        folder.mkdir()
    monkeypatch.setattr(signing.site, "getsitepackages", lambda: [str(packages)])
    monkeypatch.syspath_prepend(packages)
    monkeypatch.syspath_prepend(here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return packages


def put(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CODE)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["keys_a.py"], "keys_a:sign"),
        (["keys_b/__init__.py"], "keys_b:sign"),
        (["keys_c/__init__.py", "keys_c/deep.py"], "keys_c.deep:sign"),
        (["keys_d/deep.py"], "keys_d.deep:sign"),
    ],
)
def test_an_installed_function_signs(environment: Path, files: list[str], name: str) -> None:
    for file in files:
        put(environment, file)
    assert load_sign(name)("u") == "u?key"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["keys_e.py"], "keys_e:sign"),
        (["keys_f/__init__.py"], "keys_f:sign"),
        (["keys_g/deep.py"], "keys_g.deep:sign"),
        (["keys_h/__init__.py", "keys_h/deep.py"], "keys_h.deep:sign"),
    ],
)
def test_a_file_of_the_current_folder_is_not_imported(
    environment: Path, files: list[str], name: str
) -> None:
    for file in files:
        put(Path.cwd(), file)
    with pytest.raises(UsageError, match="no installed package; install it"):
        load_sign(name)
    assert not Path("bang").exists() and name.partition(":")[0] not in sys.modules


def test_a_file_that_hides_an_installed_package_is_not_imported(environment: Path) -> None:
    put(environment, "keys_i.py")
    put(Path.cwd(), "keys_i.py")
    with pytest.raises(UsageError, match="no installed package"):
        load_sign("keys_i:sign")
    assert not Path("bang").exists()


def test_a_link_to_a_file_elsewhere_is_that_file(environment: Path) -> None:
    put(Path.cwd(), "keys_j.py")
    (environment / "keys_k.py").symlink_to(Path.cwd() / "keys_j.py")
    sys.path.remove(str(Path.cwd()))
    with pytest.raises(UsageError, match="no installed package"):
        load_sign("keys_k:sign")


def test_an_editable_install_counts_and_a_pretended_one_does_not(
    environment: Path, tmp_path: Path
) -> None:
    put(tmp_path / "project", "keys_l.py")
    sys.path.insert(0, str(tmp_path / "project"))
    told = {"url": (tmp_path / "project").as_uri(), "dir_info": {"editable": True}}

    def install(folder: Path) -> None:
        info = folder / "keys_l-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: keys-l\nVersion: 1\n")
        (info / "direct_url.json").write_text(json.dumps(told))

    install(Path.cwd())
    with pytest.raises(UsageError, match="no installed package"):
        load_sign("keys_l:sign")
    install(environment)
    assert load_sign("keys_l:sign")("u") == "u?key"


@pytest.mark.parametrize(
    "name",
    ["os:system", "builtins:eval", "subprocess:getoutput", "__main__:x", "sys:exit", "no_such:f",
     "no.such:f", "", ":", "os", "os:", ":system", "os.path:join", "a b:c", "os:system:x",
     "../keys:f", "numpy:no_such", "numpy:pi", "numpy.nothing:f", "a\x00b:c", "os;x:y"],
)  # fmt: skip
def test_what_is_no_installed_function_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="--sign"):
        load_sign(name)


LOCAL, SLURM = "cluster: local\n", "cluster: slurm\n"
CLUSTERS = {
    "empty": "", "text": "slurm", "a list": "- slurm", "a number": "3", "no YAML": "cluster: [",
    "a tag of Python": "cluster: !!python/object/apply:os.system ['touch bang']",
    "deep": "a: " + "[" * 1200, "an anchor of itself": "cluster: &a [*a]",
    "too large": "# " + "x" * 2_000_000, "bytes": "cluster: \udcff",
    "another cluster": "cluster: cloud", "cluster is a list": "cluster: [slurm]",
    "jobs is text": SLURM + "jobs: many", "jobs is 0": SLURM + "jobs: 0",
    "jobs is true": SLURM + "jobs: true", "jobs is a fraction": SLURM + "jobs: 1.5",
    "jobs is infinite": SLURM + "jobs: .inf", "options is a list": SLURM + "options: [1]",
    "options is text": SLURM + "options: all", "an unknown name": SLURM + "queue: cpu",
    "an unknown option": SLURM + "options: {nonsense: 3}",
    "names of numbers": SLURM + "options: {3: 3}",
    "cores is text": SLURM + "options: {cores: many}",
    "walltime is a time": SLURM + "options: {walltime: 12:00:00}",
    "lines are text": SLURM + "options: {job_script_prologue: module load x}",
    "a class of workers": LOCAL + "options: {worker_class: os.system}",
    "code to load first": LOCAL + "options: {preload: bang.py}",
    "code to load first on nodes": SLURM + "options: {worker_extra_args: [--preload, bang.py]}",
    "a class of jobs": SLURM + "options: {job_cls: os.system}",
    "a class of schedulers": SLURM + "options: {scheduler_cls: os.system}",
    "a class inside": SLURM + "options: {scheduler_options: {preload: bang.py}}",
    "a cluster's own number": LOCAL + "options: {n_workers: 99}",
    "threads are text": LOCAL + "options: {threads_per_worker: two}",
}  # fmt: skip


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_file_of_dask_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(CLUSTERS[name].encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"--dask .*cluster\.yaml"):
        workers._read_cluster(path, 1)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_of_dask_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "none.yaml"
    with pytest.raises(ArtifactError, match=r"No such file|a folder, expected a file"):
        workers._read_cluster(path, 1)


def test_the_files_that_are_shown_are_read() -> None:
    path = Path(__file__).parents[3] / "slurm" / "dask.yaml"
    found = workers._read_cluster(path, 1)
    assert found["cluster"] == "slurm" and found["options"]["walltime"] == "02:00:00"
