"""How quickly the page of a store answers and paints, in Debian's Chromium.

    python -m tests.bench.page [--files 1576800] [--moments 1440] [--json]

Two stores. The calendar is that of a synthetic one (:mod:`tests.bench.synthetic`), a picture each
minute of three years. The day is real: 1920 x 1080 pixels, each minute a moment that brought
something new. Times are those of the page itself: from the start of its navigation to the frame in
which the view is there (`first_paint`), and in which all thumbnails in the window are
(`thumbnails`). Warm: the server has made each thumbnail before. `FOLDER` keeps the stores for the
next run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio
from playwright.sync_api import Browser, CDPSession, Page

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from tests.bench import synthetic
from tests.bench.measure import machine, memory, processor_ns, quantiles, tell
from tests.web.browser import chromium, opened, serving
from tests.web.demo import DAY
from tests.web.desktop import Desktop, Moment

FILES = 3 * 525_600
MOMENTS = 1440
_TIMES = 7
# Notes in each page when a view was painted: two frames after its elements are there.
_WATCH = """
window.painted = {};
const wanted = {
  calendar: () => document.querySelector('.year .weeks a'),
  day: () => document.querySelector('.strip > .shot'),
  thumbnails: () => {
    const images = [...document.querySelectorAll('.strip > .shot img')].filter((image) => {
      const box = image.getBoundingClientRect();
      return box.top < innerHeight && box.bottom > 0 && box.width;
    });
    return images.length && images.every((image) => image.complete && image.naturalWidth);
  },
};
const look = () => {
  for (const [name, found] of Object.entries(wanted)) {
    if (!(name in painted) && found()) {
      painted[name] = -1;
      const note = () => { painted[name] = performance.now(); };
      requestAnimationFrame(() => requestAnimationFrame(note));
    }
  }
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


def fill_day(store: Path, moments: int) -> None:
    """Make a store with one day of real pictures."""
    desktop = Desktop(size=(1920, 1080))
    doing = ("editor", "browser", "mail", "photos")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "screen"
        folder.mkdir()
        for minute in range(moments):
            at = DAY + timedelta(minutes=minute)
            image = desktop.picture(Moment(at, doing[minute // 20 % len(doing)]))
            image.save(folder / f"{at.isoformat()}.png", compress_level=1)
        config.make(store, Disk())
        trio.run(_import, store, folder)


async def _import(store: Path, folder: Path) -> None:
    with open_store(store) as made:
        async with made.running() as running:
            await Importer(running, lambda files, count: None).add(folder, b"screen")


def painted(page: Page, pid: int, view: str, *names: str) -> dict[str, list[float]]:
    """Load a view several times; return the milliseconds until each thing was painted.

    `cpu` has the processor time until the first of them: that of the thread that makes the page,
    and that of the server. On a machine without other work it is most of the time.
    """
    found: dict[str, list[float]] = {name: [] for name in (*names, "cpu")}
    address = page.url.partition("#")[0]
    asking = page.context.new_cdp_session(page)
    asking.send("Performance.enable", {"timeDomain": "threadTicks"})
    for _ in range(_TIMES):
        page.goto("about:blank")
        before = _cpu_ms(asking, pid)
        page.goto(f"{address}#/{view}")
        for name in names:
            page.wait_for_function("name => window.painted?.[name] > 0", arg=name, timeout=200_000)
            if name == names[0]:
                found["cpu"].append(_cpu_ms(asking, pid) - before)
            found[name].append(page.evaluate("name => window.painted[name]", name))
    asking.detach()
    return found


def _cpu_ms(asking: CDPSession, pid: int) -> float:
    """Processor time so far of the page's thread and of the server, in milliseconds."""
    rows = asking.send("Performance.getMetrics")["metrics"]
    page_s = next(float(row["value"]) for row in rows if row["name"] == "TaskDuration")
    return 1000 * page_s + processor_ns(pid) / 1e6


def calendar(browser: Browser, store: Path) -> dict[str, Any]:
    """Measure the calendar of all years."""
    start = time.perf_counter()
    with serving(store) as (link, pid):
        page, _ = opened(browser, link, watch=_WATCH)
        page.wait_for_selector(".year")
        cold = time.perf_counter() - start
        times = painted(page, pid, "days", "calendar")
        found = times["calendar"]
        days = page.locator("a[data-day]").count()
        page.context.close()
        return {
            "calendar_days": days,
            "calendar_cold_s": cold,
            "calendar_ms_p50": quantiles(found)[0],
            "calendar_ms_max": max(found),
            "calendar_cpu_ms_p50": quantiles(times["cpu"])[0],
            "calendar_server_bytes": sum(memory(pid)),
        }


def one_day(browser: Browser, store: Path) -> dict[str, Any]:
    """Measure the day, and how quickly it plays."""
    with serving(store) as (link, pid):
        page, _ = opened(browser, link, watch=_WATCH)
        view = f"day/{DAY.date()}"
        first = painted(page, pid, view, "day", "thumbnails")
        cold = {name: times[0] for name, times in first.items()}
        found = painted(page, pid, view, "day", "thumbnails")
        moments = page.locator(".strip > .shot").count()
        page.locator(".strip > .shot").first.click()
        page.wait_for_selector(".viewer[data-ready=exact]")
        page.locator("select[aria-label='Pictures a second']").select_option("24")
        page.locator(".stage").focus()
        page.keyboard.press("Space")
        page.wait_for_timeout(6000)
        rate = float(page.locator(".viewer").get_attribute("data-rate") or 0)
        page.keyboard.press("Space")
        page.wait_for_selector(".viewer[data-ready=exact]")
        page.keyboard.press("Shift+Space")
        page.wait_for_timeout(4000)
        back = float(page.locator(".viewer").get_attribute("data-rate") or 0)
        page.context.close()
        return {
            "day_moments": moments,
            "day_first_load_ms": cold["day"],
            "day_first_thumbnails_ms": cold["thumbnails"],
            "day_ms_p50": quantiles(found["day"])[0],
            "day_ms_max": max(found["day"]),
            "day_cpu_ms_p50": quantiles(found["cpu"])[0],
            "day_thumbnails_ms_p50": quantiles(found["thumbnails"])[0],
            "day_thumbnails_ms_max": max(found["thumbnails"]),
            "play_per_s": rate,
            "play_back_per_s": back,
            "day_server_bytes": sum(memory(pid)),
        }


def figures(folder: Path, files: int, moments: int) -> dict[str, Any]:
    """Make the stores, unless the folder has them, and measure."""
    years, day = folder / "years", folder / "day"
    if not years.exists():
        synthetic.fill(years, files, 525_600)
    if not day.exists():
        fill_day(day, moments)
    found: dict[str, Any] = {**machine(), "files": files}
    with chromium() as browser:
        found["chromium"] = browser.version
        return found | calendar(browser, years) | one_day(browser, day)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        tell(figures(folder, chosen.files, chosen.moments), as_json=chosen.json)


if __name__ == "__main__":
    main()
