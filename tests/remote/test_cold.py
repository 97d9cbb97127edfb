"""Cold storage, on moto's server: it refuses to read archived objects until they are restored."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import trio

from fsmount.errors import FsmountError, RemoteArchived, RemoteMissing, RemoteNeedsExtra, UsageError
from fsmount.remote.encryption import recipients
from fsmount.remote.glacier import Glacier
from fsmount.remote.names import remote_names
from fsmount.remote.objects import Part, damaged_parts, last_state
from fsmount.remote.opening import Unlock, open_keys, open_remote
from fsmount.remote.pull import pull
from fsmount.remote.push import push
from fsmount.remote.thawing import PRICES_OF, ThawPlan, all_parts, parts_of, plan, thaw, wait
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.store import open_read_store
from tests.cli.commands import process
from tests.support.backups import FILES, MORE, WANTED, shown
from tests.support.buckets import BUCKET, free_port, use_endpoint
from tests.support.encoding import forget_caches, get
from tests.support.remotes import new_identity, opened_to_push, pulled, push_through, pushed
from tests.support.repacking import fill


@pytest.fixture(name="url")
def bucket_url(moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    use_endpoint(monkeypatch, moto)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "notes"))
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture(name="classes")
def storage_classes(url: str, moto: int) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}", region_name="us-east-1")

    def classes() -> dict[str, str]:
        prefix = url.rpartition("/")[2] + "/"
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
        return {each["Key"].removeprefix(prefix): each["StorageClass"] for each in listed}

    yield classes
    client.close()


def cold_push(root: Path, url: str, kind: str = "DEEP_ARCHIVE") -> None:
    with open_read_store(root) as store:
        push(store, transport_to(url, pack_class=kind))


def sealed_packs(remote: Transport) -> list[Part]:
    state = last_state(remote)
    assert state is not None
    return all_parts(state)


def test_only_packs_are_cold(filled: Path, url: str, classes: Any, tmp_path: Path) -> None:
    cold_push(filled, url)
    found = classes()
    assert {name.partition("/")[0] for name in found} == {
        "packs", "tails", "raw", "staged", "index", "state",
    }  # fmt: skip
    for name, kind in found.items():
        assert kind == ("DEEP_ARCHIVE" if name.startswith("packs/") else "STANDARD")
    remote = transport_to(url)
    part = sealed_packs(remote)[0]
    with pytest.raises(RemoteArchived, match=f"{part.name} is in cold storage.*fsmount thaw"):
        remote.get(part.name)
    with pytest.raises(RemoteArchived, match=part.name):
        remote.get_range(part.name, 0, 9)
    with pytest.raises(RemoteArchived):
        pulled(url, tmp_path / "back")
    with remote_names(remote) as store:
        assert {path for path, node in store.index.walk() if node.size} == set(WANTED)
    # Later pushes need no pack.
    assert not pushed(filled, url).is_new
    assert pushed(filled, url, reread=True).problems == []
    trio.run(fill, filled, MORE)
    cold_push(filled, url)
    archived: list[Part] = []
    state = last_state(remote)
    assert state is not None
    assert damaged_parts(remote, state, archived=archived) == []
    assert [each.name for each in archived] == [each.name for each in sealed_packs(remote)]
    with pytest.raises(RemoteArchived):
        damaged_parts(remote, state)


def test_a_folder_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="storage classes"):
        transport_to(f"file://{tmp_path}/remote", pack_class="DEEP_ARCHIVE")
    with pytest.raises(UsageError, match="bucket"):
        Glacier(f"file://{tmp_path}/remote")


def test_one_picture(filled: Path, url: str, tmp_path: Path) -> None:
    """Exactly the packs that it needs are restored: it comes back with all others gone."""
    cold_push(filled, url)
    remote, archive = transport_to(url), Glacier(url)
    state = last_state(remote)
    assert state is not None
    everything = {part.name for part in all_parts(state)}
    name = min(FILES)
    with remote_names(remote) as store:
        parts = parts_of(store, state, [name])
        assert {part.name for part in parts_of(store, state, [b""])} == everything
        with pytest.raises(FsmountError, match="there is no"):
            parts_of(store, state, [b"nothing"])
    assert 0 < len(parts) < len(everything)
    todo = plan(remote, archive, parts, "bulk", 7)
    assert {each for each, _, _ in todo.archived} == {part.name for part in parts}
    assert (todo.hours, todo.hot, todo.restored) == (48, 0, 0)
    thaw(archive, todo, "bulk", 7)
    wait(archive, todo)
    again = plan(remote, archive, parts, "bulk", 7)
    assert (again.archived, again.restored) == ([], len(parts))
    readable = {part.name for part in all_parts(state) if is_readable(remote, part)}
    assert readable == {part.name for part in parts}
    shutil.copytree(filled, tmp_path / "copy")
    for pack, body in state.packs.items():
        for part in body.parts:
            if part.name in everything - readable:
                path = tmp_path / "copy/packs" / pack
                path.write_bytes(bytes(path.stat().st_size))

    async def read() -> bytes:
        with open_read_store(tmp_path / "copy") as opened:
            async with opened.running(count=1) as running:
                node = next(node for path, node in running.index.walk() if path == name)
                return await get(running, node.ino)

    forget_caches()
    assert trio.run(read) == FILES[name]


def is_readable(remote: Transport, part: Part) -> bool:
    try:
        remote.get(part.name)
    except RemoteArchived:
        return False
    return True


def test_all_of_an_encrypted_url(filled: Path, url: str, tmp_path: Path, classes: Any) -> None:
    """With packs under two master keys."""
    identity, public = new_identity(tmp_path)
    opened_to_push(filled, url, recipients=[public])

    def cold_and_encrypted() -> None:
        remote, _ = open_keys(url, Unlock(identity))
        remote._remote = transport_to(url, pack_class="GLACIER")
        push_through(filled, remote)

    cold_and_encrypted()
    recipients.rotate(*open_keys(url, Unlock(identity)))
    trio.run(fill, filled, MORE)
    cold_and_encrypted()
    assert set(classes().values()) == {"GLACIER", "STANDARD"}
    remote, archive = open_remote(url, Unlock(identity)), Glacier(url)
    with pytest.raises(RemoteArchived):
        pull(remote, tmp_path / "back")
    todo = plan(open_remote(url, Unlock(identity)), archive, sealed_packs(remote), "standard", 1)
    assert {name for name, _, _ in todo.archived} == {
        name for name, kind in classes().items() if kind == "GLACIER"
    }
    thaw(archive, todo, "standard", 1)
    pull(remote, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED | MORE


class Slow:
    """An archive that needs some looks until an object is restored."""

    def __init__(self, kind: str, looks: int) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._kind = kind
        self._left: dict[str, int] = {}
        self._looks = looks

    def standing(self, name: str) -> tuple[str, bool | None]:
        if name not in self._left:
            return self._kind, None
        self._left[name] -= 1
        return self._kind, self._left[name] <= 0

    def restore(self, name: str, tier: str, days: int) -> None:
        self.asked.append((name, tier, days))
        self._left[name] = self._looks


def test_waiting_and_prices(tmp_path: Path) -> None:
    remote = transport_to(f"file://{tmp_path}")
    parts = [Part("packs", "a" * 64, 10**9), Part("packs", "b" * 64, 10**9)]
    archive = Slow("DEEP_ARCHIVE", 3)
    with pytest.raises(UsageError, match="no tier expedited"):
        plan(remote, archive, parts, "expedited", 30)
    todo = plan(remote, archive, parts, "bulk", 30)
    # Twice (0.0025 + 0.023 for a month) for a GB, and 0.025 for 1,000 requests.
    assert todo.dollars == pytest.approx(2 * (0.0255 + 0.000025))
    assert (todo.bytes, todo.hours) == (2 * 10**9, 48)
    thaw(archive, todo, "bulk", 30)
    assert archive.asked == [(part.name, "bulk", 30) for part in parts]
    under_way = plan(remote, archive, parts, "standard", 30)
    assert (under_way.archived, under_way.under_way, under_way.dollars) == ([], 2, 0)
    slept: list[float] = []
    ready = []
    wait(archive, under_way, lambda files, count: ready.append(files), slept.append)
    assert (len(slept), ready) == (1, [0, 2])
    hot = plan(remote, Slow("STANDARD", 1), parts, "bulk", 1)
    assert (hot.hot, hot.waited_for, hot.dollars) == (2, [], 0)
    wait(archive, ThawPlan())


def test_errors(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteMissing, match="packs/none"):
        Glacier(url).standing("packs/none")
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "fsmount.remote.glacier")
    with pytest.raises(RemoteNeedsExtra, match=r"pip install 'fsmount\[glacier\]'"):
        from fsmount.remote.glacier import Glacier as _  # noqa: F401


def test_a_network_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, free_port())
    with pytest.raises(FsmountError, match="packs/a failed"):
        Glacier(f"s3://{BUCKET}/x").standing("packs/a")


def test_the_command(filled: Path, url: str) -> None:
    done = process("push", filled, url, "--class", "DEEP_ARCHIVE")
    assert done.code == 0, done.err
    done = process("check", url)
    assert (done.code, "in cold storage the size: no damage found" in done.out) == (0, True)
    name = min(FILES).decode()
    trial = process("thaw", url, name, "-n").out.splitlines()
    assert trial[0].startswith("packs/")
    assert trial[-1].startswith("1 pack (")
    assert "up to 48 hours (tier bulk), about $0.00 for 7 days (an estimate, by" in trial[-1]
    assert f"list prices of {PRICES_OF})" in trial[-1]
    # Nobody can be asked; nothing is restored.
    done = process("thaw", url, name)
    assert (done.code, "--yes" in done.err, "up to 48 hours" in done.err) == (2, True, True)
    assert process("thaw", url, "--all", "--json", "-n").json()["restored"] == 0
    done = process("thaw", url, "--all", "--tier", "standard", "--days", 2, "--wait", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].endswith("; all can be read now")
    assert process("check", url).out.endswith("read and compared: no damage found\n")
    assert process("thaw", url, "--all").out.endswith(" can be read\n")
    for wrong in ((url,), (url, name, "--all"), (url, "--all", "--tier", "expedited", "--days", 0)):
        assert process("thaw", *wrong).code == 2
