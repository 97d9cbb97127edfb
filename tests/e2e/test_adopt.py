"""`fsmount adopt` on a folder that screenshot loops write to.

FSMOUNT_KILLS sets the number of kills (default 3, for one adoption), FSMOUNT_SEED their moments.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsmount.adopt.activity import QUIET_S
from fsmount.mount.mountpoint import mounted_at
from tests.cli.commands import Done, process
from tests.e2e.mounts import missing
from tests.e2e.test_umount import folder_of_nobody  # noqa: F401
from tests.support.namespaces import as_nobody, run_or_skip, with_fuse_for_all
from tests.support.paths import CHECKOUT
from tests.support.shooting import Loop
from tests.support.trees import facts, make_pictures, make_tree

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
KILLS = int(os.environ.get("FSMOUNT_KILLS", "3"))
SEED = int(os.environ.get("FSMOUNT_SEED", "1"))


class Scene:
    """A folder of pictures, and loops that write to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "shots"
        self.store = root / "shots.store"
        self.kept = root / "shots.adopt"
        self._loops: list[Loop] = []
        self.wanted = {path.name: _sum(path) for path in make_pictures(self.folder, 20)}

    def shoot(self, *hows: str, pause_s: float = 0.2) -> None:
        """Start loops."""
        for how in hows:
            self._loops.append(Loop(self.folder, self.root / f"{how}.log", how, pause_s))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all loops."""
        for loop in self._loops:
            os.kill(loop.pid, number)

    def stop(self) -> None:
        """Stop the loops and note what they have written."""
        while self._loops:
            self.wanted |= self._loops.pop().stop()

    def adopt(self, *arguments: object) -> Done:
        """Run the command to its end."""
        return process("adopt", self.folder, *arguments)

    def start(self, *arguments: object, cwd: Path | str = "/") -> subprocess.Popen[bytes]:
        """Start the command. Its messages go to a pipe."""
        command = [sys.executable, "-P", "-m", "fsmount", "adopt", str(self.folder)]
        return subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def check(self) -> None:
        """Check that the mount has each shot, byte for byte, and that nothing lies below it."""
        for name, found in self.wanted.items():
            assert _sum(self.folder / name) == found, name
        self.unmount()
        assert list(self.folder.iterdir()) == []

    def unmount(self) -> None:
        """Unmount; another test may have a copy of the mount in a mount namespace of its own."""
        done = process("umount", self.folder)
        assert done.code in (0, 14), done

    def clean(self) -> None:
        """Stop everything, in whatever state the test left it."""
        self.stop()
        while mounted_at(self.folder) is not None:
            subprocess.run(["umount", "-l", self.folder], check=True)


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(name="scene")
def made_scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.clean()


def test_no_shot_is_lost(scene: Scene) -> None:
    # Files that changed just now are collected after the mount: until then it does not show them.
    time.sleep(QUIET_S)
    scene.shoot("write", "rename", pause_s=0.05)
    # A busy machine may take long to start the command. Fewer shots do as well.
    scene.signal(signal.SIGSTOP)
    # A program that has had a file open since before, and closes it after the mount.
    slow = (scene.folder / "slow.png").open("wb", buffering=0)
    slow.write(b"first half, ")
    running = scene.start("--delete-source", "--wait", 60)
    while not scene.store.exists():
        assert running.poll() is None
        time.sleep(0.01)
    scene.signal(signal.SIGCONT)
    while mounted_at(scene.folder) is None:
        assert running.poll() is None
        assert len(list(scene.folder.iterdir())) >= 20
        time.sleep(0.05)
    assert len(list(scene.folder.iterdir())) >= 20
    slow.write(b"second half")
    slow.close()
    time.sleep(1)
    scene.stop()
    # A busy machine has let the loops write a thousand shots by now.
    _, err = running.communicate(timeout=600)
    assert (running.returncode, err) == (0, b"")
    assert (scene.folder / "slow.png").read_bytes() == b"first half, second half"
    assert not scene.kept.exists()
    assert len(scene.wanted) > 60
    scene.check()


@pytest.mark.parametrize("turn", range(max(1, KILLS // 3)))
def test_kills_lose_nothing(scene: Scene, turn: int) -> None:
    chance = random.Random(f"{SEED} {turn}")
    scene.shoot("write", "rename")
    for number in range(min(KILLS, 3)):
        running = scene.start()
        with suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=chance.uniform(0.5, 10))
        running.kill()
        running.communicate()
        if number % 2 and mounted_at(scene.folder) is not None:
            with suppress(OSError):
                pid = int(os.getxattr(scene.folder, "user.fsmount.pid"))
                os.kill(pid, signal.SIGKILL)
    scene.stop()
    done = scene.adopt("--delete-source")
    assert done.code == 0, done
    assert not scene.kept.exists()
    scene.check()
    done = process("check", scene.store)
    assert done.code == 0, done


def test_the_working_folder_holds_something_called_fsmount(scene: Scene, tmp_path: Path) -> None:
    """It is not taken for the program. Often it is a checkout in the home folder."""
    (tmp_path / "fsmount.py").write_text("raise SystemExit(99)")
    running = scene.start("--delete-source", cwd=tmp_path)
    _, err = running.communicate(timeout=100)
    assert (running.returncode, err) == (0, b"")
    scene.check()


def test_a_shot_while_the_mount_is_replaced(scene: Scene) -> None:
    """It lands in the folder below, although an earlier run had collected all of that."""
    done = scene.adopt()
    assert done.code == 0, done
    assert scene.kept.exists()
    os.kill(int(os.getxattr(scene.folder, "user.fsmount.pid")), signal.SIGKILL)
    subprocess.run(["umount", "-l", scene.folder], check=True)
    shot = scene.folder / "late.png"
    shot.write_bytes(b"late")
    scene.wanted[shot.name] = _sum(shot)
    done = scene.adopt("--delete-source")
    assert done.code == 0, done
    scene.check()


def test_a_loop_in_the_old_folder(scene: Scene) -> None:
    """Its shots land below the mount; the run collects them until the loop ends."""
    scene.shoot("inside")
    first = scene.start("--wait", 300)
    try:
        while mounted_at(scene.folder) is None:
            assert first.poll() is None
            time.sleep(0.05)
        done = scene.adopt()
        assert done.code == 11
        assert "another fsmount adopts this folder" in done.sentence()
        assert first.poll() is None
        scene.stop()
        assert first.wait(100) == 0
    finally:
        first.kill()
        first.wait()
    for name, found in scene.wanted.items():
        assert _sum(scene.kept / "originals" / name) == found
    scene.check()


def test_what_is_written_through_the_mount_stays(scene: Scene) -> None:
    """A later version and a deletion through the mount win over the originals."""
    with subprocess.Popen(["sleep", "1000"], cwd=scene.folder) as sleeping:
        done = scene.adopt("--wait", 0)
        assert done.code == 3
        who = f"process {sleeping.pid} (sleep) has its working folder in the old folder"
        assert f"not finished: {who}" in done.err
        (scene.folder / "00.png").write_bytes(b"edited")
        sleeping.kill()
    done = scene.adopt("--json")
    assert (done.code, done.json()["conflicts"]) == (3, ["00.png"])
    (scene.folder / "01.png").unlink()
    done = scene.adopt("--delete-source", "--json")
    found = done.json()
    assert (done.code, found["deleted"]) == (3, 18)
    assert sorted(Path(path).name for path, _ in found["kept"]) == ["00.png", "01.png"]
    assert (scene.folder / "00.png").read_bytes() == b"edited"
    assert not (scene.folder / "01.png").exists()
    assert _sum(scene.kept / "originals" / "01.png") == scene.wanted["01.png"]


def test_every_kind_of_entry_and_the_way_back(scene: Scene) -> None:
    scene.folder = make_tree(scene.root / "tree")
    before = facts(scene.folder)
    # What changed less than this long ago goes through the mount, which keeps no hard links.
    time.sleep(QUIET_S + 0.1)
    done = scene.adopt("--delete-source")
    assert (done.code, done.err) == (0, "")
    assert facts(scene.folder) == before
    assert not (scene.root / "tree.adopt").exists()
    scene.unmount()
    assert list(scene.folder.iterdir()) == []
    assert process("export", scene.root / "tree.store", scene.folder).code == 0
    assert facts(scene.folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small filesystem")
def test_a_full_disk(scene: Scene) -> None:
    disk = scene.root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk], check=True)
    try:
        for number in range(3):
            path = scene.folder / f"noise {number}"
            path.write_bytes(os.urandom(20 << 20))
            scene.wanted[path.name] = _sum(path)
        running = scene.start("--store", disk / "store")
        while not (disk / "store").exists():
            assert running.poll() is None
            time.sleep(0.001)
        with (disk / "filler").open("wb") as filler:
            for step in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        size = os.fstat(filler.fileno()).st_size
                        os.posix_fallocate(filler.fileno(), size, step)
        _, err = running.communicate(timeout=100)
        # 12 if only a large file does not fit.
        assert running.returncode in (1, 12), err
        assert b"Traceback" not in err
        assert b"full" in err or b"No space left" in err
        assert mounted_at(scene.folder) is None
        (disk / "filler").unlink()
        done = scene.adopt("--store", disk / "store")
        assert done.code == 0, done
        scene.check()
    finally:
        scene.clean()
        subprocess.run(["umount", "-l", disk], check=True)


# -- a user who is not root

ADOPT = """
set -e; cd /
fsmount() { "$PYTHON" -m fsmount "$@"; }
fsmount adopt "$@" "$TOP/shots"
stat -c "%U %a" "$TOP/shots" "$TOP/shots.store"
cp -a "$TOP/shots/." "$TOP/shown"
echo new > "$TOP/shots/new"
fsmount umount "$TOP/shots"
ls -A "$TOP/shots"
fsmount check --full "$TOP/shots.store"
fsmount export "$TOP/shots.store" "$TOP/out"
"""


def as_user(top: Path, *arguments: str) -> Done:
    """Run ADOPT as nobody, in a mount namespace of its own."""
    done = run_or_skip(
        [*with_fuse_for_all(top), *as_nobody(), "bash", "-c", ADOPT, "bash", *arguments],
        timeout_s=300,
        PYTHON=sys.executable,
        PYTHONPATH=str(CHECKOUT),
        TOP=str(top),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def give_to_nobody(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)


@needs_root
@pytest.mark.parametrize("delete", [False, True])
def test_a_user_adopts(public: Path, delete: bool) -> None:
    make_pictures(public / "shots")
    (public / "shots" / "deep").mkdir(mode=0o700)
    (public / "shots" / "deep" / "note").write_text("note")
    (public / "shots" / "link").symlink_to("deep/note")
    (public / "shots").chmod(0o750)
    give_to_nobody(public / "shots")
    wanted = facts(public / "shots")
    # A file that changed just now is collected later, and changes the time of its folder.
    time.sleep(QUIET_S)
    done = as_user(public, *(["--delete-source"] if delete else []))
    assert (done.code, done.err) == (0, ""), done
    assert "\nnobody 750\nnobody 750\n" in done.out
    assert "no damage found\n" in done.out
    assert facts(public / "shown") == wanted
    found = facts(public / "out")
    assert (public / "out" / "new").read_text() == "new\n"
    del found[b"new"]
    # The folder itself got a new file.
    assert {**found, b"": None} == {**wanted, b"": None}
    assert list((public / "shots").iterdir()) == []
    assert (public / "shots.adopt").exists() != delete
    if not delete:
        originals = public / "shots.adopt" / "originals"
        assert {**facts(originals), b"": None} == {**wanted, b"": None}
    for path in (public / "shots.store").rglob("*"):
        assert path.lstat().st_uid == 65534


@needs_root
@pytest.mark.parametrize(
    ("path", "told"),
    [("shots", "it belongs to another user"), (".", "you cannot write to")],
)
def test_what_a_user_may_not_adopt(public: Path, path: str, told: str) -> None:
    make_pictures(public / "shots")
    give_to_nobody(public / "shots")
    os.chown(public / path, 0, 0)
    before = facts(public / "shots")
    done = as_user(public)
    assert (done.code, done.out) == (12, "")
    assert told in done.err
    assert facts(public / "shots") == before
    assert sorted(entry.name for entry in public.iterdir()) == ["fuse", "mnt", "shots"]
