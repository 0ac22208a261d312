"""How commands end: wrong usage is 2, bad data 1, and a fault of ours 70 with a file to report."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecofm import __version__
from ecofm.cli import main
from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.faults import door, explain, hide_secrets, keep_serving, write_fault

Said = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where faults are written, in place of the user's own folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def code_of(action: Callable[[], Any]) -> int:
    with pytest.raises(SystemExit) as ended, door(["ecofm", "verb"]):
        action()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def raiser(error: BaseException) -> Callable[[], None]:
    def action(*args: Any, **kwargs: Any) -> None:
        raise error

    return action


BUGS = [
    ValueError("ours"), TypeError("ours"), KeyError("ours"), IndexError("ours"),
    AssertionError("ours"), RuntimeError("ours"), ZeroDivisionError("ours"), RecursionError("ours"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "ours"), NotImplementedError("ours"),
    ExceptionGroup("ours", [ValueError("inner")]), StopIteration("ours"), ImportError("ours"),
]  # fmt: skip


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_an_unforeseen_exception_in_a_verb_is_70_and_one_sentence(
    error: Exception, stages: Any, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr("ecofm.verbs.show.read_json", raiser(error))
    with pytest.raises(SystemExit) as ended:
        main(["show", str(stages.archive)])
    assert ended.value.code == 70
    (line,) = capsys.readouterr().err.splitlines()
    (written,) = (path for path in logs.rglob("*") if path.is_file())
    assert line.startswith("error: this is a fault of ecofm, not of your data")
    assert str(written) in line
    text = written.read_text()
    assert "Traceback" in text and "ours" in text and f"ecofm {__version__}" in text
    assert f"'show' {str(stages.archive)!r}" in text and "numpy==" in text and "platform: " in text
    assert stat.S_IMODE(written.stat().st_mode) == 0o600 and written.suffix == ".txt"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("wrong option"), 2),
        (ArtifactError("bad folder"), 1),
        (EcofmError("bad data"), 1),
        (FileNotFoundError(2, "No such file", "here.csv"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
        (torch.OutOfMemoryError("CUDA out of memory"), 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_ours_is_told_without_a_file(
    error: BaseException, code: int, logs: Path, capsys: Said
) -> None:
    assert code_of(raiser(error)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "fault" not in line and not logs.exists()


def test_what_nothing_stops_goes_through(capsys: Said) -> None:
    with door():
        print("done")
    assert capsys.readouterr().out == "done\n"
    assert code_of(lambda: sys.exit(5)) == 5
    assert UsageError.__mro__.index(EcofmError) < UsageError.__mro__.index(ValueError)


def test_an_interrupt_that_lightning_turns_into_an_exit_is_130(capsys: Said) -> None:
    def action() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert code_of(action) == 130 and "interrupted" in capsys.readouterr().err


def test_a_fault_is_written_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    first, second = (write_fault(ValueError("ours"), ["ecofm"]) for _ in range(2))
    assert first and second and first != second and first.parent == tmp_path / "tmp"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file" / "tmp"))
    assert code_of(raiser(KeyError("ours"))) == 70
    error = capsys.readouterr().err
    assert "Traceback" in error and error.splitlines()[-1].startswith("error: this is a fault")


def test_a_disk_that_fills_up_leaves_no_half_of_a_file(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecofm.faults.os.replace", raiser(OSError(28, "No space left on device")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert write_fault(ValueError("ours"), ["ecofm"]) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


SECRETS = [
    "https://ada:hunter22@host/api",
    "https://host/a.tif?sv=2021&sig=hunter22%3D&se=x",
    "http://127.0.0.1:8000/#invite=hunter22",
    "api_key=hunter22",
    "--token=hunter22",
    "{'Authorization': 'Bearer hunter22'}",
    'password = "hunter22"',
    "PC_SDK_SUBSCRIPTION_KEY: hunter22",
    "AWS_SECRET_ACCESS_KEY=hunter22;",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_not_written_down(text: str) -> None:
    assert "hunter22" not in hide_secrets(f"before {text} after")
    assert hide_secrets(f"before {text} after").startswith("before ")


def test_secrets_of_the_command_and_the_environment_are_not_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EARTHDATA_PASSWORD", "correct horse")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    error = ValueError("login as ada with correct horse was refused, 0123456789abcdef")
    path = write_fault(error, ["ecofm", "fetch", "--api-token", "hunter22", "--out", "kept"])
    assert path is not None
    text = path.read_text()
    assert "'--out' 'kept'" in text and "login as ada with *** was refused" in text
    assert not any(secret in text for secret in ("hunter22", "correct horse", "0123456789abcdef"))


def test_plain_text_is_written_as_it_is() -> None:
    text = 'File "/home/ada/x.py", line 3, in read\n    key = tile_id  # https://host/path\n'
    assert hide_secrets(text) == text


@pytest.mark.parametrize("lines", [10, 100_000])
def test_a_reader_that_leaves_early_is_no_error(lines: int) -> None:
    code = (
        "from ecofm.faults import door\n"
        f"with door():\n    for n in range({lines}):\n        print('line', n)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout and run.stderr
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == 141


def test_a_server_reports_its_own_faults_and_goes_on(logs: Path, capsys: Said) -> None:
    import asyncio

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope == "bad":
            raise KeyError("ours")
        send(scope)

    sent: list[Any] = []
    for scope in ("bad", "good"):
        asyncio.run(keep_serving(app)(scope, None, sent.append))
    (line,) = capsys.readouterr().err.splitlines()
    assert sent == ["good"] and str(next(logs.rglob("*.txt"))) in line


def test_a_fault_in_a_worker_process_arrives_at_the_door(logs: Path, capsys: Said) -> None:
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, silence_logs=50) as cluster, Client(cluster) as client:
        assert code_of(lambda: client.submit(int, "no number", pure=False).result()) == 70
        assert code_of(lambda: client.submit(open, "/nowhere", pure=False).result()) == 1
    assert "ValueError" in next(logs.rglob("*.txt")).read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_in_a_loader_thread_arrives_at_the_door(
    make_archive: Callable[..., Path],
    tiny: Callable[..., Any],
    tmp_path: Path,
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ecofm.pretrain.run import RunConfig, pretrain
    from ecofm.tiles.loader import PairLoader

    archive = make_archive(tmp_path / "archive")
    monkeypatch.setattr(PairLoader, "_try_read", raiser(KeyError("ours")))
    run = RunConfig(accelerator="cpu", torch_threads=1, threads=2)
    assert code_of(lambda: pretrain([archive], tmp_path / "run", tiny(steps=1), run)) == 70
    assert "KeyError: 'ours'" in next(logs.rglob("*.txt")).read_text()


FORESEEN = {
    ("compare/hasse.py", "draw_hasse"): "its only caller asks for the number of boxes first",
    ("grid.py", "cell"): "for Python; `tile` catches it, and archives have cells of their grid",
    ("pretrain/pickled.py", "require_plain"): "caught where weights are read: the file is named",
    (
        "pretrain/pickled.py",
        "require_unpacked",
    ): "caught there, and where a run resumes",
    ("pretrain/pickled.py", "_require_names"): "as its callers, the two above",
    ("pretrain/resume.py", "_require_fit"): "its only caller passes the checkpoint over by name",
    ("tiles/archive.py", "_shard"): "caught where tiles are read: the shard is damaged",
    ("tiles/archive.py", "map_shard"): "caught there too, and where a shard is made again",
    ("tiles/asking.py", "read_text"): "pystac-client calls it; caught around the search",
    ("tiles/plan.py", "_job_by_name"): "caught where it is called: the chip is left out by name",
    ("vectors/geopackage.py", "_only_layer"): "caught in `read_vector`: the file is named",
    ("vectors/geopackage.py", "_wkb_of"): "caught there too",
    ("vectors/reading.py", "_read_geoparquet"): "caught there too",
}
"""Functions that raise a plain ValueError outside a `try`, and why nobody sees it."""


def plain_value_errors(path: Path) -> set[str]:
    """Functions of a file that raise ValueError where the function itself does not catch it."""
    found: set[str] = set()

    def visit(node: ast.AST, function: str, is_caught: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function, is_caught = node.name, False
        if isinstance(node, ast.Raise) and node.exc is not None and not is_caught:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id == "ValueError":
                found.add(function)
        guarded = isinstance(node, ast.Try) and any(
            "ValueError" in ast.unparse(handler.type) for handler in node.handlers if handler.type
        )
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, function, is_caught or (guarded and name == "body"))

    visit(ast.parse(path.read_text(encoding="utf-8")), "", False)
    return found


def test_what_the_user_can_mend_is_never_a_plain_value_error() -> None:
    """A ValueError that reaches the door is reported as a fault of ours."""
    found = {
        (str(path.relative_to(ROOT / package)), function)
        for package in ("ecofm", "train")
        for path in (ROOT / package).rglob("*.py")
        for function in plain_value_errors(path)
    }
    assert found == set(FORESEEN), "raise UsageError instead, or say here who catches it"


def test_the_search_for_plain_value_errors_finds_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "def bad():\n    raise ValueError('x')\n"
        "def caught():\n    try:\n        raise ValueError\n    except (OSError, ValueError):\n"
        "        pass\n"
        "def again():\n    try:\n        pass\n    except ValueError:\n        raise ValueError\n"
        "def own():\n    raise UsageError('x')\n"
    )
    assert plain_value_errors(tmp_path / "a.py") == {"bad", "again"}


def test_a_fault_of_ours_does_not_hide_that_the_folder_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = Path.cwd()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert explain(KeyError("ours"))[0] == 70
    finally:
        os.chdir(before)
