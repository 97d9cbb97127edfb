"""Draws the pictures of the documentation: the page of a made-up store, in Chromium.

    python -m tests.web.pictures [--store STORE]

Writes docs/pictures/*.png. It needs Pillow, chromium, and some minutes to make the store; `--store`
keeps it for the next run.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.support.paths import CHECKOUT
from tests.web import demo
from tests.web.browser import chromium, go, opened, resized, served

FOLDER = CHECKOUT / "docs" / "pictures"
MOST_BYTES = 200_000
_DAYS = 150
_STEP_MIN = 2


def keep(page: Page, name: str) -> None:
    """Write what the window shows, with as many colours as fit into a small file."""
    page.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (0, 256, 128, 64):
        out = io.BytesIO()
        fewer = shot if not colours else shot.quantize(colours, dither=Image.Dither.NONE)
        fewer.save(out, "PNG", optimize=True)
        if len(out.getvalue()) <= MOST_BYTES:
            break
    (FOLDER / f"{name}.png").write_bytes(out.getvalue())


def images_shown(page: Page) -> None:
    """Wait until all pictures in the window are there."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('main img')].filter((image) => {"
        " const box = image.getBoundingClientRect();"
        " return !image.hidden && box.top < innerHeight && box.bottom > 0; })"
        ".every((image) => image.complete)"
    )


def draw(page: Page) -> None:
    """Draw all pictures."""
    resized(page, 1280, 800)
    # The server first reads how much of all pictures was new.
    while True:
        go(page, "none", ".bad")
        go(page, "days", ".year")
        if page.locator("[data-measure]").count():
            break
        page.wait_for_timeout(500)
    keep(page, "days")
    go(page, f"day/{demo.DAY.date()}", "[data-shares=known]")
    images_shown(page)
    keep(page, "day")
    go(page, "search?q=river", ".hit")
    images_shown(page)
    keep(page, "search")
    page.locator(".hit").nth(1).click()
    page.wait_for_selector(".viewer[data-ready=exact]")
    go(page, f"day/{demo.DAY.date()}", "[data-shares=known]")
    page.locator(
        ".strip > .shot[aria-label^='10:5'], .strip > .shot[aria-label^='10:4']"
    ).first.click()
    page.wait_for_selector(".viewer[data-ready=exact]")
    keep(page, "moment")
    for view in ("habits", "storage"):
        go(page, view, f"[data-ready={view}]")
        images_shown(page)
        keep(page, view)
    page.emulate_media(color_scheme="dark")
    resized(page, 420, 800)
    go(page, f"day/{demo.DAY.date()}", "[data-shares=known]")
    images_shown(page)
    keep(page, "narrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    chosen = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        store = chosen.store or Path(scratch) / "shots.store"
        if not store.exists():
            demo.make(store, step_min=_STEP_MIN, days=_DAYS)
        with chromium() as browser, served(store) as link:
            page, complaints = opened(browser, link)
            draw(page)
            assert complaints == [], complaints


if __name__ == "__main__":
    main()
