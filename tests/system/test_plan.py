"""What a set-up writes, and whether it is written so that systemd and mount read it right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.errors import UsageError
from fsmount.system import install, plan
from fsmount.system.plan import Instance

ODD = "/a b/$HOME %i \"quoted\" 'back\\slash' ünï`x`"
ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture(autouse=True)
def _called_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings lie in tmp_path, and the program lies in a folder with odd characters."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    program = tmp_path / "my $progs 100%" / "fsmount"
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    monkeypatch.setattr(sys, "argv", [str(program)])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/home/anna/screenshots", "screenshots"),
        ("/home/anna/my shots.2024", "my-shots.2024"),
        ("/home/anna/ü%", "store"),
        ("/", "store"),
        ("/-x-", "x"),
    ],
)
def test_the_name_of_an_instance(folder: str, name: str) -> None:
    assert plan.name_for(Path(folder)) == name
    assert plan.name_for(Path(name)) == name


def test_a_shell_reads_the_settings_as_systemd_does(tmp_path: Path) -> None:
    made = plan.plan_for_user(Instance("x", Path(ODD), Path("/b"), "ro,umask=022"))
    settings = next(path for path in made.own if path.suffix == ".conf")
    install.write(made)
    shell = '. "$1"; printf "%s\\n" "$STORE" "$DIR" "$OPTIONS"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", settings], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [ODD, "/b", "ro,umask=022"]


@pytest.mark.parametrize("bad", ["/a\nb", "/a\x1bb", "/a\udce9"])
def test_paths_that_systemd_would_not_take(bad: str) -> None:
    for instance in (Instance("x", Path(bad), Path("/b")), Instance("x", Path("/b"), Path(bad))):
        for make in (plan.plan_for_user, plan.plan_for_system):
            with pytest.raises(UsageError, match="systemd does not accept"):
                make(instance)


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_takes_the_units(tmp_path: Path, scope: str) -> None:
    """systemd-analyze accepts the units as they are written, drop-ins included."""
    instance = Instance("x", Path(ODD), Path(ODD) / "place", push="s3://bucket/a%20b")
    if scope == "user":
        made = plan.plan_for_user(instance, captures=True, pushes=True)
    else:
        made = plan.plan_for_system(instance, pushes=True)
    units = tmp_path / "units"
    for path, text in (made.shared | made.own).items():
        if "systemd" in path.parts:
            place = units / Path(*path.parts[path.parts.index("systemd") + 2 :])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--{scope}", "--man=no", *made.units],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
            "SYSTEMD_UNIT_PATH": f"{units}:",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "fsmount" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
def test_a_wrong_unit_is_found(tmp_path: Path) -> None:
    made = plan.plan_for_user(None)
    (text,) = made.shared.values()
    unit = tmp_path / "fsmount@x.service"
    unit.write_text(text.replace("ExecStart=", "ExecStart=/nowhere/"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", unit],
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "/nowhere/" in done.stderr


def test_a_line_of_fstab(tmp_path: Path) -> None:
    """findmnt reads the line back."""
    instance = Instance("x", Path("/the store"), Path("/b\\c #d"), "allow_other")
    fstab = tmp_path / "fstab"
    fstab.write_text(plan.fstab_line(instance) + "\n")
    done = subprocess.run(
        ["findmnt", "-n", "-r", "-F", fstab, "-o", "SOURCE,TARGET,FSTYPE,OPTIONS"],
        capture_output=True,
        text=True,
        check=True,
    )
    source, target, fstype, options = done.stdout.split()
    assert (source, target) == (r"/the\x20store", r"/b\x5cc\x20#d")
    assert fstype == "fuse.fsmount"
    assert options.endswith(",allow_other")


def test_a_url_in_fstab() -> None:
    line = plan.fstab_line(Instance("x", "s3://bucket/a%20b", Path("/b"), "cache=1G"))
    assert line.startswith("s3://bucket/a%20b /b fuse.fsmount noauto,x-systemd.automount,")
    assert line.endswith(",ro,_netdev,cache=1G 0 0")
    assert "RequiresMountsFor=/\n" in "".join(
        plan.plan_for_system(Instance("x", "s3://bucket/x", Path("/b"))).own.values()
    )


def test_files_are_written_once_and_removed(tmp_path: Path) -> None:
    one = plan.plan_for_user(Instance("one", Path("/a"), Path("/b")), captures=True)
    two = plan.plan_for_user(Instance("two", Path("/a"), Path("/c")))
    assert set(install.write(one)) == {*one.shared, *one.own}
    assert install.write(one) == []
    assert set(install.write(two)) == set(two.own), "the unit is shared"
    assert set(install.remove(one)) == set(one.own)
    assert all(path.exists() for path in two.shared)
    two_with_shots = plan.plan_for_user(
        Instance("two", Path("/a"), Path("/c")), captures=plan.takes_shots()
    )
    install.remove(two_with_shots)
    assert [path for path in (tmp_path / "config").rglob("*") if path.is_file()] == []
    assert install.remove(two_with_shots) == []


def test_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = (tmp_path / "mount.fsmount", tmp_path / "mount.fuse.fsmount")
    monkeypatch.setattr(plan, "HELPERS", helpers)
    made = plan.Plan(tmp_path / "none", {}, {}, plan.plan_for_system(None).links, ())
    helpers[1].symlink_to("/gone")
    assert install.write(made) == list(helpers)
    assert all(link.readlink() == Path(sys.argv[0]) for link in helpers)
    helpers[0].unlink()
    helpers[0].symlink_to("/bin/false")
    assert install.remove(made) == [helpers[1]], "a link to another program stays"
    helpers[0].unlink()
    helpers[0].write_text("a program")
    with pytest.raises(UsageError, match="is a file, not a link"):
        install.write(made)
    assert helpers[0].read_text() == "a program"


_DPKG = """#!/bin/sh
[ "$1" = --search ] || exit 9
grep -qxF -- "$2" "$OWNED" && { echo "fsmount: $2"; exit 0; }
echo "dpkg-query: no path found matching pattern $2" >&2; exit 1
"""


@pytest.mark.parametrize("owned", ["sbin", "usr/sbin"])
def test_links_of_a_package_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: str
) -> None:
    """dpkg has one path of a file, with or without /usr."""
    (tmp_path / "usr" / "sbin").mkdir(parents=True)
    (tmp_path / "sbin").symlink_to("usr/sbin")
    helpers = (tmp_path / "sbin" / "mount.fsmount", tmp_path / "sbin" / "mount.fuse.fsmount")
    monkeypatch.setattr(plan, "HELPERS", helpers)
    made = plan.Plan(tmp_path / "none", {}, {}, plan.plan_for_system(None).links, ())
    assert install.write(made) == list(helpers)
    (tmp_path / "dpkg-query").write_text(_DPKG)
    (tmp_path / "dpkg-query").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    (tmp_path / "owned").write_text(f"{tmp_path}/{owned}/mount.fsmount\n")
    assert install.packaged(made) == {helpers[0]: "fsmount"}
    assert install.removable(made) == install.remove(made) == [helpers[1]]
    assert helpers[0].is_symlink()
    # Another installation does not take the link either.
    helpers[0].unlink()
    helpers[0].symlink_to("/usr/bin/fsmount")
    assert install.write(made) == [helpers[1]]
    assert helpers[0].readlink() == Path("/usr/bin/fsmount")
    (tmp_path / "owned").write_text("")
    assert install.write(made) == [helpers[0]]
    assert install.remove(made) == list(helpers)
