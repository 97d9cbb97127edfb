"""Power supplies: whether the machine runs on mains power, as /sys/class/power_supply tells."""

from __future__ import annotations

from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
# The scope of the battery of a mouse or a headset, which does not feed the machine.
_OF_A_DEVICE = "Device"


def on_mains(supplies: Path = SUPPLIES) -> bool:
    """Whether a supply of type Mains is online, or no supply of the machine is listed.

    A supply that cannot be read counts as a battery.
    """
    try:
        folders = list(supplies.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False
    own = [folder for folder in folders if _word(folder / "scope") != _OF_A_DEVICE]
    return not own or any(map(_is_online, own))


def _is_online(folder: Path) -> bool:
    return _word(folder / "type") == "Mains" and _word(folder / "online") == "1"


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
