"""Windows, which lacks half of what a POSIX system has: every module loads there, and a run goes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import windows
from machine import make_plain, see_devices

from vitft import disk, ownership
from vitft.errors import TrainError, UsageError
from vitft.ownership import Ownership
from vitft.processes import launch
from vitft.tasks import peak_memory

HERE = Path(__file__).parent

IMPORT_ALL = """
from importlib import import_module
from pkgutil import walk_packages
import vitft
for module in walk_packages(vitft.__path__, "vitft."):
    import_module(module.name)
    print(module.name)
"""

FINETUNE = """
import sys
from vitft.cli import main
sys.argv = ["vitft", "finetune", "--recipe", "quickstart", "--output-dir", sys.argv[1]]
for change in ("train.duration=1 steps", "model.image_size=16", "data.workers=0", "run.pictures=off"):
    sys.argv += ["--set", change]
main()
"""

HOLD = """
import sys
from pathlib import Path
from vitft.ownership import Ownership
from vitft.processes import launch
held = Ownership.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
held.release()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process whose vitft sees Windows."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import windows; windows.pretend()\n{code}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])},
    )


def see_windows(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """Let one module of vitft, which is loaded, see Windows."""
    for name in vars(module).keys() & windows.VIEWS.keys():
        monkeypatch.setattr(module, name, windows.VIEWS[name])
    monkeypatch.setitem(sys.modules, "msvcrt", windows.Msvcrt)
    for name in windows.POSIX_ONLY:
        monkeypatch.setitem(sys.modules, name, None)


def test_every_module_is_imported() -> None:
    with start(IMPORT_ALL) as process:
        output, _ = process.communicate()
    source = HERE.parent / "vitft"
    modules = [
        ".".join(path.relative_to(source.parent).with_suffix("").parts)
        for path in source.rglob("*.py")
        if (path.parent / "__init__.py").exists()
    ]
    assert process.returncode == 0, output
    assert sorted(output.split()) == sorted({name.removesuffix(".__init__") for name in modules} - {"vitft"})


def test_a_run_goes_through(tmp_path: Path) -> None:
    with start(FINETUNE, tmp_path) as process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    [run] = tmp_path.iterdir()
    assert json.loads((run / "results.json").read_text())["train"]["peak_memory_bytes"] == windows.PEAK_MEMORY
    assert not (run / ".lock").exists()


def test_peak_memory_is_what_windows_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.Process", windows.Process)
    see_windows(monkeypatch, peak_memory)
    assert peak_memory.peak_memory(torch.device("cpu")).num_bytes == windows.PEAK_MEMORY


def test_a_second_owner_of_a_run_is_refused_and_told_who_the_first_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(HOLD, tmp_path) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with monkeypatch.context() as patch:
            see_windows(patch, ownership)
            with pytest.raises(TrainError, match=f"is in use by process {first.pid} on "):
                Ownership.take(tmp_path)
        first.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_closed_before_its_lock_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    see_windows(monkeypatch, ownership)
    owner = Ownership.take(tmp_path)
    unlink = Path.unlink

    def unlink_closed(self: Path, missing_ok: bool = False) -> None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(owner._descriptor)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_closed)
    owner.release()
    assert list(tmp_path.iterdir()) == []


def test_a_new_owner_keeps_its_file_when_the_old_one_comes_to_remove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see_windows(monkeypatch, ownership)
    owner = Ownership.take(tmp_path)

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "the file is being used by another process")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        owner.release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_files_are_flushed_and_folders_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    (tmp_path / "a").write_text("b")
    see_windows(monkeypatch, disk)
    monkeypatch.setattr(
        disk, "os", windows.View(windows.VIEWS["os"], fsync=lambda number: flushed.append(windows._fsync(number)))
    )
    disk.flush_folder(tmp_path)
    assert len(flushed) == 1


def test_several_processes_are_refused_where_they_cannot_be_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plain(monkeypatch, tmp_path)
    see_devices(monkeypatch, 2)
    see_windows(monkeypatch, launch)
    with pytest.raises(UsageError, match=r"2 process.*2 visible devices.*no process groups") as refused:
        launch.choose(None, "auto")
    assert refused.value.hint is not None and "--num-processes 1" in refused.value.hint
    assert launch.choose(1, "auto") is None
