"""fsmount setup, with a program in place of systemctl. tests/e2e/test_systemd.py runs systemd."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fsmount.system import plan
from tests.cli.commands import Cli

_SYSTEMCTL = """#!/bin/sh
if [ "$2" = is-system-running ]; then echo "$STATE"; exit; fi
echo "$@" >> "$CALLS"
[ "$2" != "$FAIL" ] || { echo "it is broken" >&2; exit 5; }
"""


class Systemd:
    """The program that stands for systemctl. `calls` returns and forgets its command lines."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = folder / "config"
        self._calls = folder / "calls"
        self._monkeypatch = monkeypatch
        programs = folder / "bin"
        programs.mkdir()
        for name, text in (("systemctl", _SYSTEMCTL), ("fsmount", "")):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.program = programs / "fsmount"
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(self.config))
        monkeypatch.setenv("CALLS", str(self._calls))
        monkeypatch.setattr(sys, "argv", [str(self.program)])
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"):
            monkeypatch.delenv(name, raising=False)
        self.answers("running")

    def answers(self, state: str, fail: str = "nothing") -> None:
        self._monkeypatch.setenv("STATE", state)
        self._monkeypatch.setenv("FAIL", fail)

    def calls(self) -> list[str]:
        found = self._calls.read_text().splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return found

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.config))
            for path in self.config.rglob("*")
            if path.is_file() or path.is_symlink()
        )


@pytest.fixture(name="systemd")
def _systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    return Systemd(tmp_path, monkeypatch)


def test_a_user(cli: Cli, root: Path, tmp_path: Path, systemd: Systemd) -> None:
    place = tmp_path / "my shots"
    done = cli("setup", "--user", "-o", "umask=077", root, place)
    assert (done.code, done.err) == (0, "")
    assert place.is_dir()
    assert systemd.files() == ["fsmount/my-shots.conf", "systemd/user/fsmount@.service"]
    unit = (systemd.config / "systemd/user/fsmount@.service").read_text()
    assert f"ExecStart={systemd.program} mount --foreground" in unit
    assert "@" not in unit.replace("fsmount@", "")
    settings = (systemd.config / "fsmount/my-shots.conf").read_text()
    assert f'STORE="{root}"\nDIR="{place}"\nOPTIONS="umask=077"\n' in settings
    assert systemd.calls() == [
        "--user daemon-reload",
        "--user enable --now fsmount@my-shots.service",
    ]
    assert "systemctl --user status fsmount@my-shots" in done.out
    assert "loginctl enable-linger" in done.out
    done = cli("setup", "--remove", root, place)
    assert (done.code, done.err) == (0, "")
    assert systemd.files() == []
    assert systemd.calls() == [
        "--user disable --now fsmount@my-shots.service",
        "--user daemon-reload",
    ]
    assert place.is_dir()
    assert (root / "fsmount.json").exists()


def test_screenshots(
    cli: Cli, root: Path, tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    place = tmp_path / "shots"
    assert cli("setup", "--capture", root, place).code == 0
    assert systemd.files() == [
        "fsmount/shots.conf",
        "systemd/user/fsmount-shot@.service",
        "systemd/user/fsmount-shot@.timer",
        "systemd/user/fsmount@.service",
        "systemd/user/fsmount@shots.service.d/kept-shots.conf",
    ]
    assert systemd.calls()[1:] == [
        "--user import-environment DISPLAY",
        "--user enable --now fsmount@shots.service fsmount-shot@shots.timer",
    ]
    # --capture need not be repeated.
    assert cli("setup", "--remove", root, place).code == 0
    assert systemd.files() == []
    assert systemd.calls()[0] == (
        "--user disable --now fsmount-shot@shots.timer fsmount@shots.service"
    )


def test_pushes(cli: Cli, root: Path, tmp_path: Path, systemd: Systemd) -> None:
    place, url = tmp_path / "shots", f"file://{tmp_path}/remote"
    assert cli("setup", "--push", url, root, place).code == 0
    assert systemd.files() == [
        "fsmount/shots.conf",
        "systemd/user/fsmount-push@.service",
        "systemd/user/fsmount-push@.timer",
        "systemd/user/fsmount@.service",
    ]
    assert f'PUSH="{url}"\n' in (systemd.config / "fsmount" / "shots.conf").read_text()
    assert systemd.calls()[1:] == [
        "--user enable --now fsmount@shots.service fsmount-push@shots.timer"
    ]
    # --push need not be repeated.
    assert cli("setup", "--remove", root, place).code == 0
    assert systemd.files() == []
    assert systemd.calls()[0] == (
        "--user disable --now fsmount-push@shots.timer fsmount@shots.service"
    )


def test_encrypted_pushes(cli: Cli, root: Path, tmp_path: Path, systemd: Systemd) -> None:
    place, url = tmp_path / "shots", f"file://{tmp_path}/remote"
    conf = systemd.config / "fsmount" / "shots.conf"
    printed = cli("setup", "--push", url, "--encrypt", "--print", root, place)
    assert (printed.code, systemd.files()) == (0, [])
    assert f'PUSH="{url}"\nPUSH_OPTIONS="--encrypt"\n' in printed.out
    assert "push --quiet $PUSH_OPTIONS -- ${STORE} ${PUSH}\n" in printed.out
    assert f"fsmount push --encrypt --recipient KEY {root} {url}\n" in printed.out
    assert f"add FSMOUNT_IDENTITY=FILE to {conf}\n" in printed.out
    assert cli("setup", "--push", url, "--encrypt", root, place).code == 0
    assert 'PUSH_OPTIONS="--encrypt"\n' in conf.read_text()
    plain = cli("setup", "--push", url, root, place)
    assert 'PUSH_OPTIONS=""\n' in conf.read_text()
    assert "FSMOUNT_IDENTITY" not in plain.out
    assert cli("setup", "--remove", "--push", url, "--encrypt", root, place).code == 0
    assert systemd.files() == []
    done = cli("setup", "--encrypt", root, place)
    assert (done.code, "add --push URL" in done.err) == (2, True)


def test_a_url(cli: Cli, root: Path, tmp_path: Path, systemd: Systemd) -> None:
    url = f"file://{tmp_path}/remote"
    assert cli("setup", "-o", "cache=1G", url, tmp_path / "shots").code == 0
    text = (systemd.config / "fsmount" / "shots.conf").read_text()
    assert f'STORE="{url}"\n' in text
    assert 'OPTIONS="cache=1G"\n' in text
    done = cli("setup", "--push", url, url, tmp_path / "other")
    assert (done.code, "a store on this machine" in done.err) == (2, True)
    assert cli("setup", "--push", "nonsense", root, tmp_path / "other").code == 2


def test_names_of_screenshots_without_colons(
    cli: Cli, root: Path, tmp_path: Path, systemd: Systemd
) -> None:
    settings = systemd.config / "fsmount" / "shots.conf"
    assert cli("setup", "--capture", "--no-colons", root, tmp_path / "shots").code == 0
    assert 'FSMOUNT_NO_COLONS="1"\n' in settings.read_text()
    assert cli("setup", "--capture", root, tmp_path / "shots").code == 0
    assert "FSMOUNT_NO_COLONS" not in settings.read_text()


def test_print_changes_nothing(cli: Cli, root: Path, tmp_path: Path, systemd: Systemd) -> None:
    done = cli("setup", "--print", "--capture", root, tmp_path / "shots")
    assert (done.code, done.err) == (0, "")
    assert f"# {systemd.config}/systemd/user/fsmount@.service\n" in done.out
    assert "systemctl --user enable --now fsmount@shots.service" in done.out
    done = cli("setup", "--system", "--print", root, tmp_path / "shots")
    assert f"ln -s {systemd.program} /sbin/mount.fuse.fsmount\n" in done.out
    assert f"{root} {tmp_path}/shots fuse.fsmount noauto,x-systemd.automount" in done.out
    assert cli("setup", "--print").code == 0
    assert systemd.files() == systemd.calls() == []
    assert not (tmp_path / "shots").exists()


def printed(text: str) -> list[str]:
    """The files that `--print --remove` names."""
    return [line.removeprefix("rm ") for line in text.splitlines() if line.startswith("rm ")]


def test_print_shows_what_would_be_removed(
    cli: Cli, root: Path, tmp_path: Path, systemd: Systemd
) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    done = cli("setup", "--remove", "--print", root, first)
    assert (done.code, done.out, done.err) == (0, "", ""), "nothing was set up"
    assert cli("setup", "--capture", root, first).code == 0
    assert cli("setup", root, second).code == 0
    for place, units in (
        (first, "fsmount-shot@one.timer fsmount@one.service"),
        # The last one takes the shared files with it.
        (second, "fsmount-shot@two.timer fsmount@two.service"),
    ):
        before = systemd.files()
        systemd.calls()
        done = cli("setup", "--remove", "--print", root, place)
        assert (done.code, done.err) == (0, "")
        assert (systemd.files(), systemd.calls()) == (before, [])
        lines = done.out.splitlines()
        assert lines[0] == f"systemctl --user disable --now {units}"
        assert lines[-1] == "systemctl --user daemon-reload"
        told = printed(done.out)
        assert len(told) == len(lines) - 2
        done = cli("setup", "--remove", root, place)
        assert done.code == 0
        assert done.out.splitlines() == [f"removed {path}" for path in told]
        assert {str(systemd.config / name) for name in before} - {
            str(systemd.config / name) for name in systemd.files()
        } == set(told)
    assert systemd.files() == []


def test_links_of_a_package_are_named(
    cli: Cli, root: Path, tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "mount.fsmount"
    link.symlink_to(systemd.program)
    monkeypatch.setattr(plan, "HELPERS", (link,))
    dpkg = systemd.program.with_name("dpkg-query")
    dpkg.write_text("#!/bin/sh\necho fsmount: $2\n")
    dpkg.chmod(0o755)
    told = f"{link} belongs to the package fsmount: it stays as it is\n"
    done = cli("setup", "--system", "--remove", "--print", root, tmp_path / "shots")
    assert (done.code, printed(done.out), done.err) == (0, [], told)
    dpkg.write_text("#!/bin/sh\nexit 1\n")
    done = cli("setup", "--system", "--remove", "--print", root, tmp_path / "shots")
    assert (done.code, printed(done.out), done.err) == (0, [str(link)], "")
    assert link.is_symlink()


@pytest.mark.parametrize("state", ["offline", "", None])
def test_without_systemd_it_says_what_to_do(
    cli: Cli,
    root: Path,
    tmp_path: Path,
    systemd: Systemd,
    monkeypatch: pytest.MonkeyPatch,
    state: str | None,
) -> None:
    if state is None:
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    else:
        systemd.answers(state)
    done = cli("setup", root, tmp_path / "shots")
    assert done.code == 0
    assert "systemd does not run here" in done.err
    assert "  systemctl --user enable --now fsmount@shots.service\n" in done.err
    assert len(systemd.files()) == 2
    done = cli("setup", "--remove", root, tmp_path / "shots")
    assert (done.code, systemd.files(), systemd.calls()) == (0, [], [])


def test_nothing_is_started_if_not_wanted(
    cli: Cli, root: Path, tmp_path: Path, systemd: Systemd
) -> None:
    done = cli("setup", "--no-start", root, tmp_path / "shots")
    assert (done.code, done.err, systemd.calls()) == (0, "", [])
    assert len(systemd.files()) == 2


def test_an_error_of_systemd_is_told(
    cli: Cli, root: Path, tmp_path: Path, systemd: Systemd
) -> None:
    systemd.answers("degraded", fail="enable")
    done = cli("setup", root, tmp_path / "shots")
    assert done.code == 1
    assert done.err == (
        "fsmount: systemctl --user enable --now fsmount@shots.service: it is broken\n"
    )


def test_wrong_requests(cli: Cli, root: Path, tmp_path: Path, systemd: Systemd) -> None:
    place = tmp_path / "shots"
    for arguments, code, told in (
        ((root,), 2, "name a store and a folder"),
        ((tmp_path / "gone", place), 10, "is not an fsmount store"),
        (("-o", "nonsense", root, place), 2, "unknown mount option"),
        (("--name", "a/b", root, place), 2, "letters, digits"),
        (("--system", "--capture", root, place), 2, "only a user has a screen"),
        (("--no-colons", root, place), 2, "add --capture"),
    ):
        done = cli("setup", *arguments)
        assert done.code == code
        assert told in done.sentence()
    assert systemd.files() == systemd.calls() == []
    assert not place.exists()
