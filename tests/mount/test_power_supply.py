"""Whether the machine runs on mains power, read from a folder like the kernel's."""

from __future__ import annotations

from pathlib import Path

from fsmount.mount.power_supply import on_mains


def supply(folder: Path, name: str, **words: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for word, value in words.items():
        (folder / name / word).write_text(value + "\n")


def test_a_machine_without_supplies_is_on_mains(tmp_path: Path) -> None:
    assert on_mains(tmp_path)
    assert on_mains(tmp_path / "none")


def test_a_laptop(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", scope="System")
    assert not on_mains(tmp_path)
    supply(tmp_path, "AC", type="Mains", online="0")
    assert not on_mains(tmp_path)
    supply(tmp_path, "AC", online="1")
    assert on_mains(tmp_path)


def test_any_of_several_plugs_will_do(tmp_path: Path) -> None:
    supply(tmp_path, "AC0", type="Mains", online="0")
    supply(tmp_path, "AC1", type="Mains", online="1")
    supply(tmp_path, "usb", type="USB", online="1")
    assert on_mains(tmp_path)
    supply(tmp_path, "AC1", online="0")
    assert not on_mains(tmp_path)


def test_the_battery_of_a_mouse_does_not_count(tmp_path: Path) -> None:
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", online="1")
    assert on_mains(tmp_path)
    supply(tmp_path, "BAT0", type="Battery")
    assert not on_mains(tmp_path)


def test_what_cannot_be_read_counts_as_a_battery(tmp_path: Path) -> None:
    (tmp_path / "AC").mkdir()
    assert not on_mains(tmp_path)
    (tmp_path / "AC" / "type").write_bytes(b"\xff")
    assert not on_mains(tmp_path)
    (tmp_path / "file").write_text("")
    assert not on_mains(tmp_path / "file")
