"""The pages of a study in a real browser: tables, drawing, curves; none asks a network."""

import csv
import os
import re
import shutil
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import Study, needs
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
QUIET = """
    --no-sandbox --disable-quic --disable-background-networking --disable-component-update
    --disable-sync --disable-gpu
""".split()
PATIENCE = 120_000  # milliseconds: torch and matplotlib are imported for the first answer
pytestmark = [
    pytest.mark.slow,
    needs(CHROMIUM),
]
Open = Callable[[str], Page]
Serve = Callable[..., str]  # a study and the words after `marimo run`: an address
TYPED = {"text": ("word", "a", "class"), "tables": ("weight", "5000", "prediction")}
RUN = {
    "pictures": ("model=cnn", "training.num_epochs=8"),
    "text": ("model=transformer", "training.num_epochs=1"),
    "tables": ("model=mlp", "training.num_epochs=5"),
}


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)


@pytest.fixture(name="open_page")
def _open_page(browser: Browser, serve: Serve) -> Iterator[Open]:
    """Opens an address. After the test: nothing left this machine, and the page had no error."""
    del serve  # its servers end after the pages are closed: a page whose server dies has an error
    wrong: list[str] = []
    pages: list[Page] = []

    def note(address: str) -> None:
        if not re.match(r"(file|data|blob|(http|ws)://(localhost|127\.0\.0\.1)\b)", address):
            wrong.append(f"asks {address}")

    def open_page(address: str) -> Page:
        page = browser.new_page(viewport={"width": 1200, "height": 1600})
        pages.append(page)
        page.on("request", lambda request: note(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda line: wrong.append(line.text) if line.type == "error" else None,
        )
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


@pytest.fixture(name="serve")
def _serve() -> Iterator[Serve]:
    """Serves a notebook as a page and gives its address, until the test has ended."""
    with ExitStack() as servers:
        yield lambda study, *words: servers.enter_context(serving(study, *words))


@contextmanager
def serving(study: Study, *words: str) -> Iterator[str]:
    """A server of a notebook; killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--headless", "--no-token", f"--port={port}")
    server = study.start("marimo", "run", *options, *words)
    address = f"http://127.0.0.1:{port}"
    try:
        while not is_up(address):
            assert server.poll() is None, server.communicate()[0]
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def is_up(address: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(name="pages_of", scope="module")
def _pages_of(
    study_of: Callable[[str], Study], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Study]:
    """A study of a kind of data with a finished run or three."""
    made: dict[str, Study] = {}

    def find(kind: str) -> Study:
        if kind not in made:
            made[kind] = study_of(kind).copy(tmp_path_factory.mktemp(kind) / "my_study")
            made[kind].call("python", "stages/prepare.py")
            sweep = ("-m", "model.lr=1.0e-3,1.0e-2") if kind == "pictures" else ()
            made[kind].call("python", "run.py", *sweep, *RUN[kind])
        return made[kind]

    return find


def test_a_page_of_runs_is_sorted_and_searched_from_a_disk(
    pages_of: Callable[[str], Study], open_page: Open
) -> None:
    study = pages_of("pictures")
    study.call("study", "compare", "--html", "page.html")
    page = open_page((study.folder / "page.html").as_uri())
    rates = page.locator("tbody tr:visible td:nth-child(5)")
    head = page.get_by_role("button", name="model.lr")
    head.click()
    assert rates.all_inner_texts() == ["0.001", "0.01"]
    head.click()
    assert rates.all_inner_texts() == ["0.01", "0.001"]
    page.get_by_role("searchbox").fill("lr-0.001")
    assert rates.all_inner_texts() == ["0.001"]
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_runs_are_chosen_searched_and_exported_in_a_notebook(
    pages_of: Callable[[str], Study], open_page: Open, serve: Serve, tmp_path: Path
) -> None:
    page = open_page(serve(pages_of("pictures"), "notebooks/compare.py"))
    page.get_by_role("heading", name="2 runs").wait_for()
    page.get_by_role("heading", name="Over seeds").wait_for()
    assert page.locator("svg g#axes_1").count() == 2  # curves, and the axes of the sweep
    page.get_by_placeholder("Search...").first.fill("lr-0.001")
    page.get_by_text("1 row,").first.wait_for()
    page.get_by_role("button", name="Export").first.click()
    with page.expect_download() as download:
        page.get_by_role("dialog").locator("button").nth(1).click()  # CSV: options, file, copy
    download.value.save_as(tmp_path / "runs.csv")
    with open(tmp_path / "runs.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["model.lr"]) == 0.001 and 0 < float(row["validation.accuracy"]) <= 1


def wait_until_ready(page: Page) -> str:
    """What the model says, once the page is complete: the heading, and the numbers below it."""
    page.get_by_role("heading", name="Attention").wait_for()
    return said(page)


def said(page: Page) -> str:
    """The output of the cell that answers."""
    answer = page.locator(".output-area", has=page.get_by_role("heading", level=2))
    return str(answer.last.inner_text())


def wait_for_another(page: Page, before: str) -> str:
    """What the model says once it says something else."""
    told = page.locator(".output-area", has=page.get_by_role("heading", level=2)).last
    expect(told).not_to_have_text(before, use_inner_text=True, timeout=PATIENCE)
    return said(page)


def test_a_digit_is_drawn_and_the_prediction_changes(
    pages_of: Callable[[str], Study], open_page: Open, serve: Serve
) -> None:
    page = open_page(serve(pages_of("pictures"), "notebooks/demo.py"))
    before = wait_until_ready(page)
    shares = [float(share) for share in re.findall(r"([\d.]+)%", before)]
    assert len(shares) == 10 and sum(shares) == pytest.approx(100, abs=1)
    draw(page, [(0.25, 0.15), (0.75, 0.15), (0.4, 0.9)])
    assert wait_for_another(page, before).startswith("class ")
    page.get_by_role("combobox").last.select_option("output")
    assert not page.get_by_text("gives no tensor").count()


def draw(page: Page, points: Sequence[tuple[float, float]]) -> None:
    """A line through points of the canvas, as shares of its width and height."""
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=20)
    page.mouse.up()


@pytest.mark.parametrize("kind", TYPED)
def test_what_is_typed_changes_the_prediction(
    pages_of: Callable[[str], Study], open_page: Open, serve: Serve, kind: str
) -> None:
    label, value, answer = TYPED[kind]
    page = open_page(serve(pages_of(kind), "notebooks/demo.py"))
    before = wait_until_ready(page)
    assert before.startswith(f"{answer} ")
    field = page.locator(f"input[aria-label*={label}]").or_(page.get_by_label(label)).first
    field.fill(value)
    field.blur()
    assert wait_for_another(page, before).startswith(f"{answer} ")
