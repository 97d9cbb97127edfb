"""Messages to systemd."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.mount import notify
from tests.support.systemd import NotifySocket


@pytest.fixture(name="systemd", params=["path", "abstract"])
def _systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path, abstract=request.param == "abstract")
    monkeypatch.setenv("NOTIFY_SOCKET", made.variable)
    yield made
    made.close()


def test_lines_are_one_message(systemd: NotifySocket) -> None:
    notify.notify(notify.READY, "STATUS=well")
    assert systemd.next() == "READY=1\nSTATUS=well"
    assert systemd.rest() == []


@pytest.mark.parametrize(
    "value", ["", "relative", "/nowhere/socket", "@nobody-listens", "vsock:2:3"]
)
def test_without_systemd_nothing_happens(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify.notify(notify.READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.notify(notify.READY)


def test_a_socket_that_is_full_delays_only(
    systemd: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_WAIT_S", 0.01)
    start = time.monotonic()
    for _ in range(1000):
        notify.notify("STATUS=" + "x" * 100)
        if time.monotonic() - start > 0.5:
            break
    assert 0 < len(systemd.rest()) < 1000
    notify.notify(notify.STOPPING)
    assert systemd.next() == "STOPPING=1"


async def test_the_status_follows_the_queue(
    systemd: NotifySocket, autojump_clock: trio.testing.MockClock
) -> None:
    counts = [3, 3, 1, 0, 0, 0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notify.report, lambda: counts.pop(0) if len(counts) > 1 else counts[0])
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert systemd.rest() == [
        "STATUS=mounted, 3 files to encode",
        "STATUS=mounted, 1 file to encode",
        "STATUS=mounted, all files are encoded",
    ]


async def test_the_status_is_rate_limited(
    systemd: NotifySocket, autojump_clock: trio.testing.MockClock
) -> None:
    """A count that always changes is told every two seconds."""
    asked: list[float] = []

    def pending() -> int:
        asked.append(trio.current_time())
        return len(asked)

    with trio.move_on_after(9):
        await notify.report(pending)
    assert len(systemd.rest()) == len(asked) == 5


async def test_a_process_that_forgets_says_nothing(systemd: NotifySocket) -> None:
    notify.forget()
    notify.forget()
    await notify.report(lambda: 1)
    notify.notify(notify.READY)
    assert systemd.rest() == []
