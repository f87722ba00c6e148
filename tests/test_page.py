"""What the page at / promises, driven in a real browser: pick something, see at once what is recommended, and why."""

import contextlib
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from recvae.bundles.bundle import Bundle, write_bundle
from recvae.bundles.card import CARD
from recvae.datasets.dataset import Dataset
from recvae.serving.app import create_app
from recvae.serving.settings import Settings
from recvae.storage.files import write_folder

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MODELS = ("ease", "als", "popularity")
NASTY = '<b>&"</b><img src=x onerror="document.title=\'taken\'">'
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def serving(runs: list[Path], settings: Settings) -> Iterator[str]:
    """Serve at a free port, in a thread, and yield the address."""
    app = create_app(runs, settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def runs(fitted: Callable[[str], Any], blocks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return runs on items of which one has a title that is markup, and every fifth none."""
    folder = tmp_path_factory.mktemp("runs")
    titles = [NASTY if item == 1 else None if item % 5 == 0 else f"Title {item:02d}" for item in range(32)]
    data = replace(blocks, titles=np.array(titles, dtype=object))
    for name in MODELS:
        metrics = {"validation": {"ndcg@100": 0.4321}}
        bundle = Bundle(model=fitted(name), items=data.items, manifest=data.manifest, metrics=metrics)
        with write_folder(folder / name, CARD) as aside:
            write_bundle(aside, bundle)
    return [folder / name for name in MODELS]


@pytest.fixture(scope="module")
def address(runs: list[Path]) -> Iterator[str]:
    with serving(runs, Settings(history_items=6)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser of the machine; none is fetched."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        expect.set_options(timeout=15_000)  # the machine may be busy
        yield browser
        expect.set_options(timeout=5_000)
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Return a tab of its own; whatever a test does in it, no script fails and nothing is asked of others."""
    context = browser.new_context(reduced_motion="reduce", base_url=address)
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    yield page
    context.close()
    assert [text for text in wrong if not text.startswith("Failed to load resource")] == []
    assert asked and [url for url in asked if not re.match(r"(http://127\.0\.0\.1:\d+/|about:blank$)", url)] == []


def column(page: Page, model: str) -> Locator:
    return page.get_by_role("article", name=model, exact=True)


def rows(page: Page, model: str = "ease") -> Locator:
    return column(page, model).get_by_role("listitem")


def titles(page: Page, model: str = "ease") -> list[str]:
    return column(page, model).locator(".title > span").all_inner_texts()


def chips(page: Page) -> Locator:
    return page.get_by_role("list", name="What you picked").get_by_role("button")


def settle(page: Page) -> None:
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def pick(page: Page, title: str) -> None:
    page.get_by_role("combobox").fill(title)
    page.get_by_role("option", name=title).click()


def test_before_anything_is_picked_it_shows_the_most_popular(page: Page) -> None:
    answers: list[tuple[str, int]] = []
    page.on("response", lambda response: answers.append((response.url.rpartition("/")[2], response.status)))
    page.goto("/")
    expect(column(page, "ease")).to_contain_text("The most popular items. Pick something you like.")
    expect(rows(page)).to_have_count(10)
    expect(page.get_by_text("because you liked")).to_have_count(0)
    assert [name for name, _ in answers].count("recommend") == 1
    assert {status for _, status in answers} == {200}


def test_what_is_picked_changes_what_is_recommended_and_is_the_reason(page: Page) -> None:
    page.goto("/")
    pick(page, "Title 02")
    expect(rows(page).first).to_contain_text(re.compile(r"because you liked Title 02 \(100%\)"))
    assert set(titles(page)[:5]) <= {
        "1000",
        NASTY,
        "Title 03",
        "Title 04",
        "950",
        "Title 06",
        "Title 07",
    }  # of its group
    pick(page, "Title 09")
    expect(column(page, "ease").get_by_text("because you liked Title 09")).not_to_have_count(0)
    expect(chips(page)).to_have_count(2)
    assert "Title 09" not in titles(page)


def test_a_recommended_item_is_picked_by_a_click_on_it(page: Page) -> None:
    page.goto("/?items=980")
    expect(rows(page).first).to_contain_text("because")
    title = titles(page)[0]
    rows(page).first.locator(".title").click()
    expect(page.get_by_role("button", name=f"remove {title}")).to_be_visible()
    expect(page.get_by_role("button", name=f"add {title}")).to_have_count(0)


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(10)
    search = page.get_by_role("combobox")
    page.keyboard.press("/")
    expect(search).to_be_focused()
    page.keyboard.type("title 1")
    options = page.get_by_role("option")
    expect(options).to_have_count(8)
    second = options.nth(1).locator("span").inner_text()
    for key, chosen in (("ArrowDown", 1), ("ArrowUp", 0), ("ArrowUp", 7), ("ArrowDown", 0), ("ArrowDown", 1)):
        page.keyboard.press(key)
        expect(options.nth(chosen)).to_have_attribute("aria-selected", "true")
        expect(search).to_have_attribute("aria-activedescendant", f"found-{chosen}")
    page.keyboard.press("Enter")
    expect(chips(page)).to_have_text([second])
    expect(search).to_have_attribute("aria-expanded", "false")
    page.keyboard.type("title")
    expect(search).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(search).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Escape")
    expect(search).to_have_value("")
    page.keyboard.press("Tab")
    expect(chips(page).first).to_be_focused()

    add = rows(page).first.get_by_role("button")
    add.focus()
    page.keyboard.press("Enter")
    expect(chips(page)).to_have_count(2)
    settle(page)
    expect(rows(page).first.get_by_role("button")).to_be_focused()  # at the same place, not lost

    search.focus()
    page.keyboard.press("Backspace")
    expect(chips(page)).to_have_text([second])


def test_what_is_removed_counts_no_more(page: Page) -> None:
    page.goto("/?items=980,910,650")
    expect(chips(page)).to_have_text(["Title 02", "Title 09", "650"])
    page.get_by_role("button", name="remove Title 09").press("Enter")
    expect(chips(page)).to_have_text(["Title 02", "650"])
    expect(page.get_by_role("button", name="remove 650")).to_be_focused()  # the next one
    expect(page.get_by_text("because you liked Title 09")).to_have_count(0)
    for name in ("650", "Title 02"):
        page.get_by_role("button", name=f"remove {name}").click()
    expect(column(page, "ease")).to_contain_text("The most popular")
    expect(page.get_by_role("combobox")).to_be_focused()


def test_models_stand_side_by_side_and_what_one_alone_recommends_is_marked(page: Page) -> None:
    page.goto("/?items=980,970")
    expect(rows(page).first).to_contain_text("because")
    expect(page.get_by_text("only here").locator("visible=true")).to_have_count(0)
    page.get_by_role("checkbox", name="als").check()
    page.get_by_role("checkbox", name="popularity").check()
    expect(page.get_by_role("article")).to_have_count(3)
    for name in MODELS:
        expect(rows(page, name)).to_have_count(10)
        expect(column(page, name)).to_contain_text(re.compile(r"blocks\s*ndcg@100 0\.432\s*[0-9a-f]{7}"))
    lists = {name: titles(page, name) for name in MODELS}
    for name, shown in lists.items():
        others = {title for other, found in lists.items() if other != name for title in found}
        marked = rows(page, name).filter(has=page.get_by_text("only here").locator("visible=true"))
        assert marked.locator(".title > span").all_inner_texts() == [title for title in shown if title not in others]
    assert len({tuple(shown) for shown in lists.values()}) == 3
    assert len({(column(page, name).bounding_box() or {})["y"] for name in MODELS}) == 1
    for name in MODELS:
        page.get_by_role("checkbox", name=name).click()
    expect(page.get_by_role("article")).to_have_count(1)  # one stays


def test_bars_are_relative_to_the_best_of_their_list(page: Page) -> None:
    page.goto("/?items=980,970")
    expect(rows(page).first).to_contain_text("because")
    widths = column(page, "ease").locator(".bar i").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths[0] == 100 and widths == sorted(widths, reverse=True) and widths[-1] < 90


def test_the_address_keeps_everything_and_back_undoes_a_pick(page: Page) -> None:
    page.goto("/")
    pick(page, "Title 02")
    pick(page, "Title 09")
    page.get_by_role("checkbox", name="als").check()
    page.get_by_role("radio", name="20").check()
    page.get_by_role("slider", name="Variety").fill("0.5")
    expect(page).to_have_url(re.compile(r"/\?items=980,910&models=ease,als&k=20&variety=0\.5$"))
    settle(page)
    before = titles(page)
    page.reload()
    expect(chips(page)).to_have_text(["Title 02", "Title 09"])
    expect(rows(page, "als")).to_have_count(20)
    settle(page)
    assert titles(page) == before
    expect(page.get_by_role("slider", name="Variety")).to_have_value("0.5")
    page.get_by_role("button", name="remove Title 02").click()
    expect(chips(page)).to_have_text(["Title 09"])
    page.go_back()
    expect(chips(page)).to_have_text(["Title 02", "Title 09"])


def test_titles_are_text_whatever_they_contain(page: Page) -> None:
    page.goto("/?items=980,970")
    expect(page.get_by_role("button", name=f"add {NASTY}")).to_be_visible()
    assert NASTY in titles(page)
    pick(page, NASTY)
    expect(chips(page).last).to_have_text(NASTY)
    expect(page.get_by_text(f"because you liked {NASTY}").first).to_be_visible()
    assert page.locator("main img, main b b").count() == 0 and page.title() == "recvae"


def test_an_answer_that_comes_late_changes_nothing(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        late = (route.request.post_data_json or {})["k"] == 20
        held.append(route) if late else route.continue_()

    page.route("**/recommend", hold)
    page.goto("/")
    expect(rows(page)).to_have_count(10)
    page.get_by_role("radio", name="20").check()
    expect(column(page, "ease")).to_have_attribute("aria-busy", "true")
    page.get_by_role("radio", name="10").check()
    expect(column(page, "ease")).to_have_attribute("aria-busy", "false")
    held[0].continue_()
    page.wait_for_timeout(200)
    expect(rows(page)).to_have_count(10)


def test_what_the_server_refuses_is_said_until_it_answers_again(page: Page) -> None:
    page.goto("/?items=1000,990,980,970,960,950")
    expect(rows(page).first).to_contain_text("because")
    rows(page).first.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_have_text("got 7 for items in a history, expected at most 6; send less")
    expect(rows(page)).to_have_count(0)  # a list of before would pass for the answer
    chips(page).last.click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_lost_connection_is_said_and_tried_again_with_the_next_change(page: Page) -> None:
    page.goto("/?items=980")
    expect(rows(page).first).to_contain_text("because")
    page.context.set_offline(True)
    page.get_by_role("radio", name="20").check()
    expect(page.get_by_role("alert")).to_contain_text("Can't reach the server; retrying")
    expect(rows(page)).to_have_count(10)
    page.context.set_offline(False)
    page.get_by_role("radio", name="50").check()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(rows(page)).to_have_count(31)


def test_a_phone_shows_it_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for query in ("/", f"/?items=980,970,990&models={','.join(MODELS)}"):
        page.goto(query)
        expect(rows(page)).to_have_count(10)
        page.get_by_role("combobox").fill("title")
        expect(page.get_by_role("option")).to_have_count(8)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        inside = "parts => parts.every(part => part.getBoundingClientRect().right <= innerWidth)"
        assert page.locator("#found, #asking, #answers").evaluate_all(inside)


def test_the_token_is_asked_for_and_kept_in_the_tab(runs: list[Path], page: Page) -> None:
    with serving(runs[:1], Settings(token="secret")) as address:
        page.goto(address)
        token = page.get_by_label("Enter the access token.")
        expect(token).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("Wrong token.")
        token.fill("secret")
        page.keyboard.press("Enter")
        expect(rows(page)).to_have_count(10)
        expect(token).to_be_hidden()
        expect(page.get_by_role("alert")).to_have_count(0)
        page.reload()
        expect(rows(page)).to_have_count(10)
        page.goto("about:blank")  # nothing is kept open that the server would wait for


def test_its_files_are_asked_for_anew_so_that_a_new_version_is_whole(address: str) -> None:
    for path in ("/", "/page/page.js", "/page/page.css"):
        with urllib.request.urlopen(address + path) as answer:
            assert answer.headers["cache-control"] == "no-cache"
