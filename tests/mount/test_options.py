"""Mount options."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.errors import UsageError
from fsmount.mount.options import MountOptions, parse_options


def test_all_options() -> None:
    assert parse_options("") == MountOptions()
    assert parse_options("ro,allow_other,uid=1000,gid=0,umask=022") == MountOptions(
        read_only=True, allow_other=True, uid=1000, gid=0, umask=0o022
    )
    assert parse_options("ro,rw") == MountOptions()
    assert parse_options("repack") == MountOptions(repack_after_s=10)
    assert parse_options("nonempty") == MountOptions(nonempty=True)
    assert parse_options("repack=300") == MountOptions(repack_after_s=300)
    assert parse_options("cache=4G,cache_dir=/x/y,timeout=9,credentials=/k") == MountOptions(
        disk_cache_bytes=4 << 30, disk_cache=Path("/x/y"), timeout_s=9, credentials=Path("/k")
    )
    assert parse_options("push=s3://b/p,encrypt").push_encrypts
    assert parse_options("push=s3://b/p,every=90m") == MountOptions(
        push="s3://b/p", push_every_s=5400
    )
    assert parse_options("cache=100mib").disk_cache_bytes == 100 << 20
    assert parse_options("cache=0").disk_cache_bytes == 0
    assert parse_options("text") == MountOptions(text_after_s=10)
    assert parse_options("views,text=60") == MountOptions(views=True, text_after_s=60)
    assert parse_options("noexec,sync") == MountOptions(no_exec=True, sync=True)
    assert parse_options("noexec,sync,exec,async") == MountOptions()


@pytest.mark.parametrize(
    "text",
    [
        "defaults,auto,noauto,nofail,user,user=anna,users,nouser,owner,group,_netdev",
        "suid,nosuid,dev,nodev,atime,noatime,relatime,strictatime,nodiratime,lazytime",
        "comment=shots,x-systemd.automount,x-systemd.idle-timeout=10min,X-mount.mkdir",
    ],
)
def test_options_for_other_programs_are_accepted(text: str) -> None:
    assert parse_options(f"{text},ro") == MountOptions(read_only=True)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "uid=",
        "uid=-1",
        "uid=x",
        "umask=8",
        "umask=1777",
        "ro=1",
        "gid=4294967295",
        "repack=",
        "repack=x",
        "cache=",
        "cache=4X",
        "cache=-1",
        "cache_dir=",
        "timeout=soon",
        "push=",
        "encrypt",
        "every=1",
        "every=0h",
        "credentials=",
        "text=x",
        "noauto=1",
        "nofails",
        "x_systemd.automount",
        "comment",
    ],
)
def test_bad_options_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=text.split("=", maxsplit=1)[0]):
        parse_options(text)


def test_unknown_options_may_be_ignored() -> None:
    assert parse_options("nonsense,ro,no=thing", sloppy=True) == MountOptions(read_only=True)
    with pytest.raises(UsageError, match="umask"):
        parse_options("umask=x", sloppy=True)


def test_what_may_not_write_is_not_repacked() -> None:
    with pytest.raises(UsageError, match="repack"):
        parse_options("ro,repack")
