"""Debian's Chromium, driven by playwright, and a server for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
WHY_NOT = "Debian's chromium is not here (apt-get install chromium)"


@contextmanager
def chromium() -> Iterator[Browser]:
    """In the block the browser of the system runs."""
    assert CHROMIUM is not None, WHY_NOT
    # Root may not use the sandbox of Chromium, and containers often lack what it needs.
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def serving(source: Path) -> Iterator[tuple[str, int]]:
    """In the block `fsmount serve` runs. Yields its link, which works once, and its process.

    Its folder for caches stands beside the source.
    """
    command = [sys.executable, "-m", "fsmount", "serve", "--json", str(source)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(source.parent / "caches")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout is not None
        try:
            yield str(json.loads(run.stdout.readline())["url"]), run.pid
        finally:
            run.terminate()
            assert run.wait(30) == 0


@contextmanager
def served(source: Path) -> Iterator[str]:
    """As :func:`serving`, the link alone."""
    with serving(source) as (link, _):
        yield link


def opened(browser: Browser, link: str, *, watch: str = "") -> tuple[Page, list[str]]:
    """Open the link in a new window. Returns the page, and a list of its complaints that grows.

    `watch` is a script that each page runs first.
    """
    page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
    if watch:
        page.add_init_script(watch)
    complaints: list[str] = []
    page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(link)
    # The server reads all names first.
    page.wait_for_selector("main h1", timeout=400_000)
    return page, complaints


def resized(page: Page, width: int, height: int = 800) -> None:
    """Give the window another size, and wait until the page has it."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_function("w => innerWidth === w", arg=width)


def go(page: Page, view: str, wanted: str = "main h1") -> None:
    """Open another view, and wait for an element in it."""
    page.evaluate("view => { location.hash = '#/' + view }", view)
    page.wait_for_selector(wanted)
