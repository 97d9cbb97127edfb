"""The page in Debian's Chromium.

Letters look different from system to system, so nothing here compares pictures of letters. What is
compared is geometry, colours, and the pixels of the screenshots that the page shows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Browser, Page, expect

from tests.support.paths import DATA
from tests.web import demo
from tests.web.browser import CHROMIUM, WHY_NOT, chromium, go, opened, resized, served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)

EVIL = "<img src=x onerror=document.title='evil'>"
NARROW = 390


@pytest.fixture(name="store", scope="module")
def a_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a day of pictures, their words, and another day before."""
    root = tmp_path_factory.mktemp("web") / "store"
    demo.make(root, step_min=20, days=2)
    return root


@pytest.fixture(name="browser", scope="module")
def a_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(name="window", scope="module")
def a_window(store: Path, browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """The page of the store, and what the browser complains of. No test may leave a complaint."""
    with served(store) as link:
        page, complaints = opened(browser, link)
        yield page, complaints
        assert complaints == []
        assert link.partition("?")[0] == page.url.partition("#")[0], "the token is gone"


@pytest.fixture(name="page", scope="module")
def a_page(window: tuple[Page, list[str]]) -> Page:
    return window[0]


@pytest.fixture(autouse=True)
def start_over(request: pytest.FixtureRequest) -> None:
    """Each test begins with a wide, light window."""
    if {"page", "window"} & set(request.fixturenames):
        page = request.getfixturevalue("page")
        page.emulate_media(color_scheme="light")
        resized(page, 1280, 860)


def violations(page: Page) -> list[str]:
    """What axe finds, of WCAG 2.2 up to AA."""
    source = resources.files("axe_playwright_python") / "axe.min.js"
    page.evaluate(source.read_text())
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run({runOnly: {type: 'tag', values: tags}})", rules)
    return [
        f"{each['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def pixels(shot: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def ready(page: Page) -> None:
    """Wait until the exact picture is shown with all that lies on it."""
    page.wait_for_selector(".viewer[data-ready=exact]")


def open_day(page: Page) -> None:
    go(page, f"day/{demo.DAY.date()}", "[data-shares=known]")


def test_walk_through_a_day(page: Page, store: Path, tmp_path: Path) -> None:
    go(page, "days", ".year")
    day = page.locator(f"a[data-day='{demo.DAY.date()}']")
    assert "level-" in (day.get_attribute("class") or "")
    # By keyboard: from the newest day to the one before, and back.
    day.focus()
    page.keyboard.press("ArrowLeft")
    other = page.evaluate("document.activeElement.dataset.day")
    assert other < str(demo.DAY.date())
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-shares=known]")
    expect(page.locator("h1")).to_have_text("Thursday, 12 March 2026")
    # Idle times are folded, and open on demand.
    idle = page.locator("details.idle").first
    assert idle.locator(".shot").count() == 0
    idle.locator("summary").click()
    idle.locator(".shot").first.wait_for()
    # Thumbnails are pictures, and not empty.
    first = page.locator(".strip > .shot img").first
    page.wait_for_function(
        "image => image.complete && image.naturalWidth > 0", arg=first.element_handle()
    )
    assert pixels(first.screenshot()).std() > 10
    page.locator(".strip > .shot").nth(2).click()
    ready(page)
    name = page.locator(".about dd").first.inner_text().removeprefix("screen/")
    # The exact bytes.
    with page.expect_download() as waiting:
        page.keyboard.press("d")
    assert waiting.value.suggested_filename.replace("_", ":") == name
    original = tmp_path / "original.png"
    drawn = tmp_path / "drawn"
    demo.draw_day(drawn, 20)
    assert Path(waiting.value.path()).read_bytes() == (drawn / name).read_bytes()
    original = drawn / name
    # At its own size each pixel of the picture is that of the file.
    page.keyboard.press("o")
    for _ in range(9):
        if page.locator(".zoom").inner_text() == "100 %":
            break
        page.keyboard.press("+")
    shown = pixels(page.locator(".sheet img").screenshot())
    wanted = pixels(original.read_bytes())
    box = page.evaluate(
        "() => { const a = document.querySelector('.sheet img').getBoundingClientRect(),"
        " b = document.querySelector('.stage').getBoundingClientRect();"
        " return [b.left - a.left, b.top - a.top, b.width, b.height].map(Math.round) }"
    )
    middle = wanted[box[1] + 40 : box[1] + 300, box[0] + 40 : box[0] + 600]
    close = pixels(page.locator(".stage").screenshot())[40:300, 40:600]
    assert shown.size > 0
    assert (np.abs(close - middle).max(axis=2) <= 2).mean() > 0.999
    page.keyboard.press("o")
    page.keyboard.press("0")


def test_play_and_step(page: Page) -> None:
    open_day(page)
    page.locator(".strip > .shot").first.click()
    ready(page)
    viewer = page.locator(".viewer")
    start = page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_function("url => location.href !== url", arg=start)
    ready(page)
    assert int(viewer.get_attribute("data-changes") or 0) > 0
    assert page.locator(".outline g.line rect").count() > 0
    page.keyboard.press("Home")
    ready(page)
    assert page.url == start
    time = page.locator("h1 span")
    before = time.inner_text()
    page.keyboard.press("Space")
    page.wait_for_selector(".viewer[data-playing='1']")
    page.wait_for_function("t => document.querySelector('h1 span').textContent > t", arg=before)
    # It ends by itself at the last moment, and shows the exact picture again.
    page.wait_for_selector(".viewer[data-playing='0']")
    ready(page)
    late = time.inner_text()
    assert late > before
    page.keyboard.press("Shift+Space")
    page.wait_for_function("t => document.querySelector('h1 span').textContent < t", arg=late)
    page.keyboard.press("Shift+Space")
    ready(page)
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-shares=known]")


def test_colours_of_days(page: Page) -> None:
    go(page, "days", "[data-measure]")
    days = page.locator(".year .weeks a")

    def shown() -> tuple[str, list[str]]:
        classes = days.evaluate_all("links => links.map(link => link.className)")
        return page.locator(".legend span").last.inner_text(), classes

    last, classes = shown()
    assert last.endswith("and more")
    assert "screen" in last
    assert "screens new" in (days.first.get_attribute("aria-label") or "")
    page.get_by_role("button", name="Time active").click()
    expect(page.get_by_role("button", name="Time active")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="New on")).to_have_attribute("aria-pressed", "false")
    active = shown()
    assert active[0] == "6 h active and more"
    # The choice stays while the page is open.
    go(page, "habits", "[data-ready=habits]")
    go(page, "days", "[data-measure]")
    assert shown() == active
    page.get_by_role("button", name="New on").click()
    assert shown() == (last, classes)


def test_the_calendar_says_that_it_is_early(page: Page) -> None:
    rows = [["2026-03-11", 5, 5, 20, None], ["2026-03-12", 9, 9, 400, None]]
    answer = json.dumps({"days": rows, "read": 0.432})
    page.route("**/api/days", lambda route: route.fulfill(body=answer))
    go(page, "none", ".bad")
    go(page, "days", "[data-read]")
    expect(page.locator("[data-read]")).to_contain_text("43 %")
    assert page.locator("[data-measure]").count() == 0
    assert page.locator("a[data-day='2026-03-12']").get_attribute("class") == "level-4"
    assert violations(page) == []
    page.unroute("**/api/days")


def test_search_and_copy(page: Page) -> None:
    go(page, "days", ".year")
    page.keyboard.press("/")
    page.keyboard.type("river")
    hit = page.locator(".hit").first
    hit.wait_for()
    assert page.evaluate("document.activeElement.id") == "query", "typing goes on"
    expect(hit.locator("mark").first).to_have_text("river", ignore_case=True)
    # The marks lie on the letters, which are dark on light.
    hit.locator("img").scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.hit img').naturalWidth > 0")
    assert hit.locator(".crop i").count() > 0
    inside = page.evaluate(
        "() => { const crop = document.querySelector('.hit .crop img').getBoundingClientRect();"
        " const mark = document.querySelector('.hit .crop i').getBoundingClientRect();"
        " return mark.left >= crop.left - 4 && mark.right <= crop.right + 4"
        " && mark.top >= crop.top - 4 && mark.bottom <= crop.bottom + 4 }"
    )
    assert inside
    hit.click()
    ready(page)
    words = page.locator(".words span.hit").first
    expect(words).to_contain_text("river", ignore_case=True)
    text = page.evaluate(
        "() => { const range = document.createRange();"
        " range.selectNodeContents(document.querySelector('.words'));"
        " const chosen = getSelection(); chosen.removeAllRanges(); chosen.addRange(range);"
        " return chosen.toString() }"
    )
    assert "river" in text.lower()
    assert "\n" in text
    go(page, "search?q=nothinghasthisword", ".note")
    assert page.locator(".hit").count() == 0


def test_narrow_dark_and_readable(page: Page) -> None:
    """All views: axe finds nothing, and a phone shows all of their width."""
    open_day(page)
    moment = page.locator(".strip > .shot").first.get_attribute("href") or ""
    views = {
        "days": ".year",
        f"day/{demo.DAY.date()}": "[data-shares=known]",
        moment.removeprefix("#/"): ".viewer[data-ready=exact]",
        "habits": "[data-ready=habits]",
        "storage": "[data-ready=storage]",
        "search?q=river": ".hit",
    }
    for number, (view, wanted) in enumerate(views.items()):
        page.emulate_media(color_scheme="dark" if number % 2 else "light")
        resized(page, 1280)
        go(page, "none", ".bad")
        go(page, view, wanted)
        assert violations(page) == [], view
        page.emulate_media(color_scheme="light" if number % 2 else "dark")
        resized(page, NARROW)
        assert violations(page) == [], f"{view}, narrow"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW, f"{view} is {width} pixels wide"
        nav = page.locator("nav").bounding_box()
        assert nav is not None
        assert nav["y"] > 700, "the views are below, where a thumb reaches them"
    page.emulate_media(color_scheme="dark")
    go(page, "days", ".year")
    assert pixels(page.screenshot())[..., 1].mean() < 60
    page.emulate_media(color_scheme="light")
    assert pixels(page.screenshot())[..., 1].mean() > 200


def test_words_are_never_html(window: tuple[Page, list[str]]) -> None:
    """A server with hostile words: what OCR reads may be anything."""
    page, complaints = window
    open_day(page)
    first = page.locator(".strip > .shot").first.get_attribute("data-id")
    hit = {
        "id": int(first or 0),
        "object": 1,
        "day": "2026-03-12",
        "second": 60,
        "first_day": "2026-03-12",
        "first_second": 60,
        "pictures": 1,
        "seconds": 0,
        "snippet": f"river {EVIL}",
        "places": [[1, 1, 9, 9]],
    }
    answer = {
        "has_words": True,
        "wrong": None,
        "hits": [hit],
        "instead": [EVIL],
        "more": False,
    }
    page.route("**/api/search*", lambda route: route.fulfill(json=answer))
    go(page, "none", ".bad")
    go(page, "search?q=river", ".hit")
    assert page.locator(".hit q").inner_text() == f"river {EVIL}"
    page.unroute("**/api/search*")
    words = {"words": [[EVIL, 5, 5, 90, 12]], "read": True}
    page.route("**/api/picture/*/words", lambda route: route.fulfill(json=words))
    open_day(page)
    page.locator(".strip > .shot").first.click()
    ready(page)
    assert page.locator(".words span").first.inner_text().strip() == EVIL
    page.unroute("**/api/picture/*/words")
    assert page.locator("img[onerror], script:not([src])").count() == 0
    assert "evil" not in page.title()
    # Even if a mistake made HTML of a text, the policy would refuse it.
    assert complaints == []
    assert page.evaluate(
        "() => { try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); return false }"
        " catch (error) { return error instanceof TypeError } }"
    )
    assert "TrustedHTML" in complaints.pop()
    assert complaints == []


def test_hostile_names_in_a_store(tmp_path: Path, browser: Browser) -> None:
    root, source = tmp_path / "store", tmp_path / f"a {EVIL.replace('/', '')}"
    demo.make(root, step_min=400)
    source.mkdir()
    for number in range(2):
        Image.new("RGB", (90, 60), (number * 99, 9, 9)).save(
            source / f"{EVIL} 2026-03-12T10-0{number}-00.png"
        )
    demo.add(root, source)
    with served(root) as link:
        page, complaints = opened(browser, link)
        open_day(page)
        options = page.locator(".pick option").all_inner_texts()
        assert source.name in options
        page.locator("details.idle summary, .shot").first.wait_for()
        for details in page.locator("details.idle").all():
            details.locator("summary").click()
        page.locator(".shot[aria-label^='10:00']").first.click()
        ready(page)
        assert EVIL in page.locator(".about dd").first.inner_text()
        assert page.locator("img[onerror]").count() == 0
        assert "evil" not in page.title()
        assert complaints == []
        page.context.close()


def test_without_words_and_another_browser(tmp_path: Path, browser: Browser) -> None:
    root = tmp_path / "store"
    demo.make(root, step_min=400, words=False)
    with served(root) as link:
        page, _ = opened(browser, link)
        go(page, "search?q=river", ".note")
        expect(page.locator(".note code")).to_have_text("fsmount text STORE")
        # The link was used: another browser gets nothing.
        stranger = browser.new_context().new_page()
        answer = stranger.goto(link)
        assert answer is not None
        assert answer.status == 401
        assert "fsmount serve" in stranger.inner_text("body")
        stranger.context.close()
        page.context.close()


def test_albums_are_a_gallery(browser: Browser) -> None:
    with served(DATA / "albums") as link:
        page, complaints = opened(browser, link)
        expect(page.locator("h1")).to_have_text("Albums")
        assert page.locator("nav a").all_inner_texts() == ["Albums"]
        page.wait_for_function("() => document.querySelector('.album img').naturalWidth > 0")
        assert violations(page) == []
        page.locator(".album").first.click()
        page.locator(".gallery .shot:not(.album)").first.click()
        page.wait_for_function("() => document.querySelector('.photo')?.naturalWidth > 0")
        assert violations(page) == []
        assert complaints == []
        page.context.close()
