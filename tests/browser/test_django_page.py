"""The gallery of the Django example in a browser: nothing moves while it loads, and the admin's widget works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright
from tests.contrib.django import example
from tests.engine.pictures import BLUE, RED, colour_at, encoded, looks_like, opened, quadrants
from tests.programs import Program, find
from tests.waiting import WAIT_S, until

PICTURES = 50
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 1000 * WAIT_S
WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => { for (const each of list.getEntries()) window.shifts.push(each.value); })
  .observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find("chromium", "/usr/bin")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS, timeout=PATIENCE_MS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with example.gallery(tmp_path_factory.mktemp("gallery"), pictures=PICTURES) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Program) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1000, "height": 700}, base_url=f"http://{server.address}")
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


class Gate:
    """Holds back what the browser asks for, until it is opened."""

    def __init__(self, page: Page, pattern: str) -> None:
        self.held: list[Route] = []
        self._open = False
        self._page = page
        page.route(pattern, self._come)

    def _come(self, route: Route) -> None:
        if self._open:
            route.continue_()
        else:
            self.held.append(route)

    def wait(self) -> None:
        """Wait until something is held back."""
        until(lambda: self._page.evaluate("true") and len(self.held) > 0)  # routes are heard while the page is asked

    def open(self) -> None:
        self._open = True
        for route in self.held:
            route.continue_()


def scroll_through(page: Page) -> None:
    """Bring every picture into view, so that lazy ones load."""
    for picture in page.locator("ul img").all():
        picture.scroll_into_view_if_needed()


def shift(page: Page) -> float:
    """How much the page's layout has moved so far, after two frames in which it could."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return float(page.evaluate("window.shifts.reduce((sum, each) => sum + each, 0)"))


def test_fifty_pictures_load_late_and_nothing_moves(page: Page) -> None:
    gate = Gate(page, "**/media/image/**")
    page.add_init_script(WATCH_SHIFTS)
    answer = page.goto("/", wait_until="domcontentloaded")
    assert answer is not None
    assert answer.headers["gallery-queries"] == "1"
    pictures = page.locator("img")
    assert pictures.count() == PICTURES
    before = [pictures.nth(n).bounding_box() for n in range(PICTURES)]
    foot = page.locator("p").bounding_box()
    page.wait_for_function("document.readyState !== 'loading'")
    gate.wait()
    assert page.evaluate("[...document.images].every((i) => !i.naturalWidth)")
    gate.open()
    scroll_through(page)
    page.wait_for_function("[...document.images].every((i) => i.complete && i.naturalWidth)")
    assert shift(page) == 0
    page.evaluate("scrollTo(0, 0)")
    assert [pictures.nth(n).bounding_box() for n in range(PICTURES)] == before
    assert page.locator("p").bounding_box() == foot
    sizes = page.evaluate("[...document.images].map((i) => [i.naturalWidth, i.naturalHeight, i.width, i.height])")
    assert sizes == [[240, 160, 240, 160]] * PICTURES


def test_a_page_that_moves_is_noticed(page: Page) -> None:
    """The measure itself: without width and height the same page moves."""
    gate = Gate(page, "**/media/image/**")
    page.add_init_script(WATCH_SHIFTS)
    page.add_init_script(
        "new MutationObserver(() => document.querySelectorAll('img').forEach((i) => { i.removeAttribute('width');"
        "i.removeAttribute('height'); i.loading = 'eager'; })).observe(document, { childList: true, subtree: true });"
    )
    page.goto("/", wait_until="domcontentloaded")
    shift(page)
    gate.open()
    page.wait_for_function("[...document.images].every((i) => i.complete && i.naturalWidth)")
    until(lambda: shift(page) > 0)


def log_in(page: Page) -> None:
    page.goto("/admin/login/?next=/admin/gallery/photo/add/")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", example.PASSWORD)
    page.click("[type=submit]")
    page.wait_for_url("**/admin/gallery/photo/add/")


def save(page: Page) -> None:
    """Save, and wait for the page that comes then: it is like the one before."""
    with page.expect_navigation():
        page.click("[name=_continue]")


def crop(page: Page, title: str) -> Any:
    """A quarter of the picture, all of its height: the part that the address on the page keeps."""
    before, found, _ = page.request.get("/").text().partition(f'alt="{title}"')
    assert found
    address = before.rpartition('<img src="')[2].partition('"')[0]
    answer = page.request.get(address.replace("240x160", "50x100"), headers={"accept": "image/png"})
    assert answer.ok, answer.text()
    return opened(answer.body())


def test_an_upload_in_the_admin_is_previewed_and_its_focal_point_crops(page: Page) -> None:
    log_in(page)
    page.fill("[name=title]", "corners")
    upload: Any = {"name": "corners.png", "mimeType": "image/png", "buffer": encoded(quadrants(400, 200))}
    page.set_input_files("[name=image]", upload)
    preview = page.locator("[data-lazypix-preview] img")
    page.wait_for_function("document.querySelector('[data-lazypix-preview] img')?.naturalWidth === 400")
    assert preview.get_attribute("src").startswith("blob:")  # type: ignore[union-attr]
    save(page)
    page.wait_for_function("document.querySelector('[data-lazypix-preview] img')?.naturalWidth")
    assert "/media/image/" in str(preview.get_attribute("src"))
    assert looks_like([colour_at(crop(page, "corners"), 0.1, 0.25)], [RED])  # the middle is kept

    box = preview.bounding_box()
    assert box is not None
    preview.click(position={"x": box["width"] * 0.125, "y": box["height"] * 0.5})
    assert float(page.input_value("[name=image-focus-x]")) == pytest.approx(12.5, abs=0.5)
    assert page.locator("[data-lazypix-focus]").is_visible()
    save(page)
    page.wait_for_function("document.querySelector('[data-lazypix-preview] img')?.naturalWidth")
    assert float(page.input_value("[name=image-focus-x]")) == pytest.approx(12.5, abs=0.5)
    left = crop(page, "corners")
    assert looks_like([colour_at(left, 0.9, 0.25), colour_at(left, 0.9, 0.75)], [RED, BLUE])

    page.focus("[name=image-focus-x]")  # by keyboard
    page.keyboard.press("Control+A")
    page.keyboard.type("100")
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/gallery/photo/")
    assert not looks_like([colour_at(crop(page, "corners"), 0.1, 0.25)], [RED])
    page.locator("#result_list img").nth(PICTURES).wait_for(state="attached")


def test_rows_that_the_admin_adds_later_have_working_widgets(page: Page) -> None:
    log_in(page)
    page.goto("/admin/gallery/photo/1/change/")
    page.evaluate(
        "const row = document.querySelector('[data-lazypix-input]'), copy = row.cloneNode(true);"
        "copy.id = 'copy'; row.after(copy);"
        "copy.dispatchEvent(new CustomEvent('formset:added', { bubbles: true }));"
    )
    page.locator("#copy [data-lazypix-preview] img").click(position={"x": 10, "y": 10})
    assert page.locator("#copy [data-lazypix-x]").input_value() != ""
    assert page.locator("[data-lazypix-x]").first.input_value() == ""


def test_the_widget_works_without_javascript(browser: Browser, server: Program) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=f"http://{server.address}")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    log_in(page)
    page.fill("[name=title]", "plain")
    upload: Any = {"name": "corners.png", "mimeType": "image/png", "buffer": encoded(quadrants(400, 200))}
    page.set_input_files("[name=image]", upload)
    page.fill("[name=image-focus-x]", "0")
    page.fill("[name=image-focus-y]", "50")
    save(page)
    assert page.input_value("[name=image-focus-x]") == "0"
    assert page.locator("[data-lazypix-preview] img").get_attribute("width") == "400"
    assert looks_like([colour_at(crop(page, "plain"), 0.9, 0.25)], [RED])
    context.close()
