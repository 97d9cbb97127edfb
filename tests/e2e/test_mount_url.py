"""Mounts of what was pushed to a URL, by the kernel and the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.unmount import unmount
from fsmount.store import store as store_module
from tests.e2e.commands import Server, fsmount, refused, well
from tests.e2e.mounts import missing
from tests.e2e.test_desk import hashes
from tests.support import corpus
from tests.support.backups import FILES, WANTED, fill_store
from tests.support.buckets import BUCKET, server, use_endpoint
from tests.support.encoding import Inline
from tests.support.proxy import Proxy, proxy
from tests.support.remotes import new_identity
from tests.support.trees import REAL, facts, make_tree

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture(name="network")
def proxy_to_moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with server("moto", tmp_path / "moto") as port, proxy(port) as running:
        use_endpoint(monkeypatch, running.port)
        yield running


@pytest.fixture(name="tree")
def pushed_tree(root: Path, tmp_path: Path) -> str:
    """Every kind of entry, pushed to a folder. Returns the URL."""
    well("import", "-q", f"{make_tree(tmp_path / 'source')}/", root)
    url = f"file://{tmp_path}/remote"
    well("push", "-q", root, url)
    return url


def test_desk_comes_back_byte_for_byte(root: Path, place: Path, network: Proxy) -> None:
    """A desktop in use: the last 20 pictures of the corpus, or all with FSMOUNT_CORPUS_FULL."""
    source = place.parent / "desk"
    source.mkdir()
    pictures = sorted((corpus.root() / "desk").glob("*.png")) or sorted(REAL.glob("*.png"))
    for path in pictures if os.environ.get("FSMOUNT_CORPUS_FULL") else pictures[-20:]:
        shutil.copy2(path, source)
    url = f"s3://{BUCKET}/desk"
    well("import", "-q", f"{source}/", root)
    well("push", "-q", root, url)
    network.seen.clear()
    assert well("mount", url, place) == ""
    assert os.getxattr(place, "user.fsmount.store") == url.encode()
    assert f"{url} on {place} (read-only" in well("mounts")
    shown = {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in place.iterdir()}
    assert shown == {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in source.iterdir()
    }
    # Whether there are keys, a list, the state, and the index: names and sizes need nothing else.
    assert all("/packs/" not in path and "/tails/" not in path for _, path, _ in network.seen)
    assert hashes(place) == hashes(source)
    lists = [path for _, path, _ in network.seen if "list-type" in path]
    assert len(lists) == 1
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").touch()
    well("umount", place)

    # The next mount has all of it.
    network.seen.clear()
    assert well("mount", "-o", "cache=1G", url, place) == ""
    assert hashes(place) == hashes(source)
    assert len(network.seen) == 3
    # A network that is lost now is no harm: this mount needs it no more.
    network.plan = lambda method, path: "cut"
    assert hashes(place) == hashes(source)
    well("umount", place)


def test_a_lost_network_is_an_error_in_time_and_comes_back(
    root: Path, place: Path, network: Proxy, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(REAL, source)
    url = f"s3://{BUCKET}/lost"
    well("import", "-q", f"{source}/", root)
    well("push", "-q", root, url)
    well("mount", "-o", "timeout=4", url, place)
    name = min(os.listdir(source))
    for plan in ("cut", "503", "403", "corrupt", "truncate"):
        network.plan = lambda method, path, plan=plan: plan  # type: ignore[misc]
        with pytest.raises(OSError, match="Input/output error"):
            (place / name).read_bytes()
    network.plan = lambda method, path: ""
    assert (place / name).read_bytes() == (source / name).read_bytes()
    (log,) = (tmp_path / "caches").rglob("mount.log")
    lines = [line for line in log.read_text().splitlines() if " ERROR " in line]
    # The kernel may ask a second time for what a reader ahead of the program did not get.
    assert 5 <= len(lines) <= 10, lines
    assert all(f"{url}/tails/" in line for line in lines)
    well("umount", place)


def test_pictures_in_cold_storage(
    root: Path,
    place: Path,
    network: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_limits: None,
) -> None:
    """They are errors at once, and one line of the log names the remedy; then they can be read."""
    monkeypatch.setattr(store_module, "Workers", Inline)
    fill_store(root, monkeypatch)
    url = f"s3://{BUCKET}/cold"
    well("push", "-q", root, url, "--class", "DEEP_ARCHIVE")
    well("mount", url, place)
    name = os.fsdecode(min(FILES))
    assert (place / name).stat().st_size == len(FILES[min(FILES)])
    assert (place / "large").read_bytes() == WANTED[b"large"]
    with pytest.raises(OSError, match="Input/output error"):
        (place / name).read_bytes()
    (log,) = (tmp_path / "caches").rglob("mount.log")
    lines = [line for line in log.read_text().splitlines() if " ERROR " in line]
    assert 1 <= len(lines) <= 2, lines
    assert all("is in cold storage" in line and "fsmount thaw" in line for line in lines)
    well("thaw", url, name, "--yes")
    assert (place / name).read_bytes() == FILES[min(FILES)]
    well("umount", place)


def test_every_kind_of_entry(tree: str, place: Path, tmp_path: Path) -> None:
    well("mount", tree, place)
    assert facts(place) == facts(tmp_path / "source")
    done = subprocess.run(
        ["rsync", "-aniH", f"{tmp_path}/source/", f"{place}/"],
        capture_output=True,
        text=True,
        check=True,
    )
    # The root of a store keeps its own time.
    assert done.stdout == ".d..t...... ./\n"
    well("umount", place)


def test_two_mounts_and_a_killed_one(tree: str, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    well("mount", tree, place)
    well("mount", tree, other)
    try:
        wanted = facts(tmp_path / "source")
        assert facts(place) == facts(other) == wanted
    finally:
        unmount(other)
    Server(place).kill(signal.SIGKILL)
    assert "the folder is free again" in fsmount("umount", place).stderr
    well("mount", tree, place)
    assert facts(place) == wanted
    well("umount", place)


def test_stores_of_several_machines(root: Path, tree: str, place: Path, tmp_path: Path) -> None:
    both = f"file://{tmp_path}/both"
    (tmp_path / "both").mkdir()
    for name in ("desk", "laptop"):
        well("push", "-q", root, f"{both}/{name}")
    well("mount", both, place)
    assert sorted(os.listdir(place)) == ["desk", "laptop"]
    wanted = facts(tmp_path / "source")
    assert facts(place / "desk") == facts(place / "laptop") == wanted
    assert place.stat().st_nlink == 4
    numbers = {path.lstat().st_ino for path in place.rglob("*") if not path.is_symlink()}
    assert len(numbers) == len({(p.lstat().st_dev, p.lstat().st_ino) for p in place.rglob("*")
                                if not p.is_symlink()})  # fmt: skip
    assert stat.S_ISDIR((place / "desk" / ".." / "laptop").stat().st_mode)
    for change in ((place / "x").touch, (place / "desk" / "x").touch, (place / "desk").rmdir):
        with pytest.raises(OSError, match=r"Read-only|denied"):
            change()
    well("umount", place)


def test_an_encrypted_store(
    root: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    identity, recipient = new_identity(tmp_path)
    well("import", "-q", f"{make_tree(tmp_path / 'source')}/", root)
    url = f"file://{tmp_path}/secret"
    well("push", "-q", "--encrypt", "--recipient", recipient, "--identity", identity, root, url)
    wanted = facts(tmp_path / "source")
    assert "cannot be opened" in fsmount("mount", url, place).stderr
    assert mounted_at(place) is None
    well("mount", "--identity", identity, url, place)
    assert facts(place) == wanted
    well("umount", place)
    # As a line of /etc/fstab has it.
    file = tmp_path / "credentials"
    file.write_text(f"FSMOUNT_IDENTITY={identity}\n")
    file.chmod(0o600)
    well("mount.fsmount", url, place, "-o", f"ro,credentials={file}")
    assert facts(place) == wanted
    well("umount", place)
    # A mount that pushes by itself.
    well("mount.fsmount", root, place, "-o", f"push={url},every=1s,encrypt,credentials={file}")
    (place / "new").write_text("words")
    for _ in range(600):
        with suppress(OSError):
            if os.getxattr(place / "new", "user.fsmount.remote") == url.encode():
                break
        time.sleep(0.1)
    assert os.getxattr(place / "new", "user.fsmount.remote") == url.encode()
    assert fsmount("umount", place).returncode == 0
    assert "new" in well("ls", "--identity", identity, url)


def test_what_mount_8_runs(tree: str, place: Path, tmp_path: Path) -> None:
    """mount(8) passes rw on, whatever the line of fstab says."""
    keys = tmp_path / "keys"
    keys.write_text("# for s3://\nAWS_ACCESS_KEY_ID=key\n\nAWS_SECRET_ACCESS_KEY='secret'\n")
    keys.chmod(0o600)
    options = f"rw,_netdev,cache=10M,cache_dir={tmp_path}/elsewhere,credentials={keys}"
    assert well("mount.fsmount", tree, place, "-o", options) == ""
    found = mounted_at(place)
    assert found is not None
    assert (found.source, found.read_only) == (tree, True)
    assert (tmp_path / "elsewhere").is_dir()
    assert facts(place) == facts(tmp_path / "source")
    well("umount", place)


def test_what_is_refused(tree: str, place: Path, tmp_path: Path) -> None:
    assert "can only be read" in refused(2, "mount", "-o", "rw", tree, place)
    assert "is for stores" in refused(2, "mount", "-o", "views", tree, place)
    assert "--force-lock" in refused(2, "mount", "--force-lock", tree, place)
    assert "nor to a folder" in refused(10, "mount", f"file://{tmp_path}/source", place)
    assert "none of the URLs" in refused(2, "mount", "ftp://host/x", place)
    keys = tmp_path / "keys"
    keys.write_text("PATH=/x\n")
    keys.chmod(0o644)
    assert "chmod 600" in refused(2, "mount", "-o", f"credentials={keys}", tree, place)
    keys.chmod(0o600)
    assert "line 1" in refused(2, "mount", "-o", f"credentials={keys}", tree, place)
    # A mount that was refused leaves nothing mounted.
    assert mounted_at(place) is None


def test_a_mount_pushes_by_itself(root: Path, place: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    well("mount", "-o", f"push={url},every=1s", root, place)
    name = min(os.listdir(REAL))
    shutil.copy2(REAL / name, place)
    back = tmp_path / "back"
    wanted = (REAL / name).read_bytes()

    def value() -> bytes:
        try:
            return os.getxattr(place / name, "user.fsmount.remote")
        except OSError:
            return b"none"

    # The attribute comes after the push; nothing else tells when.
    for _ in range(600):
        if value() == url.encode():
            break
        time.sleep(0.1)
    assert value() == url.encode()
    assert "only here" not in well("stats", root)
    # What comes last is there after the end.
    (place / "last").write_text("the last words")
    # It may say that the process still closes the store.
    assert fsmount("umount", place).returncode == 0
    well("pull", "-q", url, back)
    well("mount", "-o", "ro", back, place)
    assert (place / name).read_bytes() == wanted
    (found,) = json.loads(well("stats", root, "--json"))["pushed"]
    # On a busy machine the last push may have been too slow: then the log says so.
    is_late = "is pushed at the next time" in (root / "mount.log").read_text()
    if (place / "last").exists():
        assert (place / "last").read_text() == "the last words"
        assert (found["url"], found["local_files"]) == (url, 0)
    else:
        assert is_late
        assert (found["url"], found["local_files"]) == (url, 1)
    well("umount", place)


def test_a_mount_goes_on_if_its_pushes_fail(root: Path, place: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/not/mounted"
    well("mount", "-o", f"push={url},every=1s", root, place)
    (place / "file").write_text("words")
    log = root / "mount.log"
    for _ in range(600):
        if "pushing to" in log.read_text():
            break
        time.sleep(0.1)
    time.sleep(3)
    assert log.read_text().count("pushing to") == 1
    assert (place / "file").read_text() == "words"
    assert "needs a mount that may write" in refused(
        2, "mount", "-o", f"ro,push={url}", root, tmp_path
    )
    well("umount", place)
    assert json.loads(well("stats", root, "--json"))["pushed"] == []


def test_stats_tell_what_is_only_here(root: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/remote"
    pictures = sorted(REAL.glob("*.png"))
    well("import", "-q", pictures[0], root)
    well("push", "-q", root, url)
    assert f"pushed to {url} at " in well("stats", root)
    well("import", "-q", *pictures[1:3], root)
    assert ": 2 files (" in well("stats", root)
    (found,) = json.loads(well("stats", root, "--json"))["pushed"]
    sizes = sum(path.stat().st_size for path in pictures[1:3])
    assert (found["generation"], found["local_files"], found["local_bytes"]) == (1, 2, sizes)
    well("push", "-q", root, url)
    assert well("stats", root).splitlines()[-1].endswith(": all of it")
