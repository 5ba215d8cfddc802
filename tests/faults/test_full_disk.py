"""On a disk that fills up anywhere, a run says so; with room again it becomes the run that nothing disturbed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attack
import pytest
import tiny

from vitft import finetune, write_report
from vitft.errors import VitftError

SLOW = os.environ.get("VITFT_SLOW") == "1"
CLONE_NEWUSER, CLONE_NEWNS, MS_REMOUNT = 0x10000000, 0x00020000, 32
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def can_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return sys.platform == "linux" and bool(shutil.which("unshare")) and subprocess.run(command).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="a small disk needs a mount namespace of one's own")


def check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount_small_disk(place: Path) -> None:
    """Mount a tmpfs that this process alone sees, and that is gone with it."""
    user, group = os.getuid(), os.getgid()
    check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    check(LIBC.mount(b"none", str(place).encode(), b"tmpfs", 0, b"size=16k"))


def resize_disk(place: Path, kilobytes: int) -> None:
    check(LIBC.mount(b"none", str(place).encode(), b"tmpfs", MS_REMOUNT, f"size={kilobytes}k".encode()))


@needs_mounts
@pytest.mark.parametrize("part", range(24) if SLOW else (2, 13))
def test_a_disk_that_fills_up_costs_nothing_but_time(home: Path, whole: Path, part: int) -> None:
    """The disk has room for a part of what a run writes; a resumed run has all of it."""
    disk, out = home / f"disk-{part}", home / f"out-{part}"
    disk.mkdir()
    needed = sum(-(-path.stat().st_size // 4096) * 4 for path in whole.rglob("*") if path.is_file())

    def work() -> None:
        mount_small_disk(disk)
        resize_disk(disk, max(4, needed * 11 // 10 * part // 24))
        run = disk / attack.NAME
        try:
            finetune(attack.recipe(home, disk.name))
        except VitftError as error:
            print("REFUSED", error)
        resize_disk(disk, 100_000)
        if not (run / "recipe.yaml").exists():
            assert not run.exists() or not list(run.iterdir()), list(run.rglob("*"))
            print("NOTHING LEFT")
            return
        if not (run / "model" / "README.md").exists():
            print("RESUMED")
            finetune(resume=run)
        elif not (run / "report.html").exists():  # the run is complete without it
            print("PAGE LEFT OUT")
            write_report(run)
        shutil.copytree(run, out / attack.NAME)

    outcome = tiny.in_child(work)
    assert outcome.code == 0, outcome.text
    said = outcome.text
    assert "REFUSED" not in said or "room" in said[said.index("REFUSED") :], said
    assert "this is a bug" not in said and "Traceback" not in said, said
    assert "REFUSED" in said or "PAGE LEFT OUT" in said or part > 20, "the disk was not full at all"
    assert ("to make it: vitft report" in said) == ("PAGE LEFT OUT" in said), said
    if "NOTHING LEFT" not in said:
        attack.assert_same(out / attack.NAME, whole)
