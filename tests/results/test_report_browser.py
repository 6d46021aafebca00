"""The report in a real browser: what a reader sees on a desktop, on a phone, on paper and in the dark."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from whole_runs import whole_run

from clmed.results.report.render import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
LONG = ["/projects/corpora/general/wikipedia-of-all-languages-deduplicated.jsonl"] * 3
A4 = 680  # pixels of its width between margins of 15 mm
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: a naive one, one with replay, one that was stopped."""
    folder = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.setattr("clmed.results.report.losses.MOST_FLIPS", 40)  # axe looks at every cell
    runs = [
        whole_run(folder / "naive"),
        whole_run(folder / "replay", name="replay", keeps=0.7, strategy={"replay": {"ratio": 0.25, "from": LONG}}),
        whole_run(folder / "ewc", name="ewc", keeps=0.4, points=3, state="stopped"),
    ]
    file = write_report(runs, folder / "report.html")
    patch.undo()
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page with what it said on the console and what it asked of the network."""

    def __init__(self, browser: Any, file: Path, size: dict[str, int], scheme: str = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport=size, color_scheme=scheme)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def column(self, table: str, heading: str) -> list[str]:
        """The texts of the rows that can be seen."""
        headings = self.page.locator(f"#{table} thead th").all_text_contents()
        cells = f"#{table} tbody tr:not([hidden]) td:nth-child({headings.index(heading) + 1})"
        return self.page.locator(cells).all_text_contents()


@pytest.fixture(scope="module")
def desktop(browser: Any, report: Path) -> Opened:
    return Opened(browser, report, DESKTOP)


def test_nothing_is_complained_about_and_nothing_is_loaded(desktop: Opened, report: Path) -> None:
    assert desktop.said == []
    assert desktop.asked == [report.as_uri()]


def test_columns_sort_by_number_and_by_name_and_say_so(desktop: Opened) -> None:
    sorted_by = desktop.page.locator("#category-table thead th", has_text=re.compile("^replay"))
    sorted_by.click()
    rising = [_number(text) for text in desktop.column("category-table", "replay")]
    assert rising == sorted(rising) and len(set(rising)) > 5
    sorted_by.focus()
    desktop.page.keyboard.press("Enter")
    assert [_number(text) for text in desktop.column("category-table", "replay")] == sorted(rising, reverse=True)
    assert sorted_by.get_attribute("aria-sort") == "descending"
    assert desktop.page.locator("#category-table-spoken").text_content() == "sorted by replay, descending"
    desktop.page.locator("#category-table thead th", has_text="category or subject").click()
    names = [name.lower() for name in desktop.column("category-table", "category or subject")]
    assert names == sorted(names)


def test_rows_are_filtered_by_words_and_by_benchmark(desktop: Opened) -> None:
    form = desktop.page.locator(".filter[data-table=category-table]")
    form.locator("input").fill("high school HISTORY")
    shown = set(desktop.column("category-table", "category or subject"))
    assert shown == {f"high school {which} history subject of mmlu" for which in ("european", "us", "world")}
    assert re.fullmatch(r"3 of \d+ rows", form.locator("output").text_content())
    form.locator("select").select_option("cmexam")
    assert desktop.column("category-table", "replay") == []
    form.locator("input").fill("")
    notes = desktop.page.locator("#category-table tbody tr:not([hidden]) td:first-child small").all_text_contents()
    assert set(notes) == {"category of cmexam"}
    form.locator("select").select_option("")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_it_is_accessible_and_fits_the_screen(browser: Any, report: Path, size: dict[str, int], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened = Opened(browser, report, size, scheme)
    shapes = {"exclude": [["svg > *"]]}  # thousands, and an svg with a role is one picture
    found = axe.Axe().run(opened.page, context=shapes).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    opened.page.close()


def test_on_paper_it_is_light_and_nothing_is_hidden_behind_a_scroll_bar(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, DESKTOP, "dark")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.page.locator(".filter").first.is_visible()
    opened.page.set_viewport_size({"width": A4, "height": 1000})
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollHeight > e.clientHeight + 1).length"
    assert opened.page.evaluate(cut) == 0
    wide = "[...document.querySelectorAll('table')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert opened.page.evaluate(f"{wide}.map(e => e.id)") == []
    assert opened.page.locator(".finding pre").first.is_visible()
    assert opened.page.pdf().startswith(b"%PDF")
    opened.page.close()


def test_questions_are_not_squeezed_on_a_phone(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, PHONE)
    assert opened.page.locator("#flip-table thead th", has_text="question").bounding_box()["width"] > 220
    opened.page.close()


def test_every_figure_is_there_with_words_for_those_who_cannot_see_it(desktop: Opened) -> None:
    figures = desktop.page.locator("figure").evaluate_all("found => found.map(figure => figure.id)")
    assert set(figures) == {f"figure-{name}" for name in ("forgetting", "plane", "heatmap", "training", "mixture")}
    for drawing in desktop.page.locator("figure svg").all():
        box = drawing.bounding_box()
        assert box["width"] > 300 and box["height"] > 20
        assert "for naive, replay, ewc. The numbers are in" in drawing.get_attribute("aria-label")
    ids = desktop.page.locator("[id]").evaluate_all("found => found.map(element => element.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("figure", "told"),
    [
        ("forgetting", r"replay: \d\d\.\d after 1\.5B"),
        ("plane", r"replay: gain \+[\d.]+, retention −[\d.]+"),
        ("heatmap", r"humanities: −[\d.]+ points \(naive\)"),
        ("mixture", r"general: 20\.0 % of this experience"),
    ],
)
def test_the_value_of_a_mark_shows_under_the_pointer(desktop: Opened, figure: str, told: str) -> None:
    texts = desktop.page.locator(f"#figure-{figure} [data-tip]").evaluate_all("all => all.map(e => e.dataset.tip)")
    wanted = next(text for text in texts if re.fullmatch(told, text))
    mark = desktop.page.locator(f'#figure-{figure} [data-tip="{wanted}"]').first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    desktop.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert wanted in desktop.page.locator("#tip").text_content().split("\n")
    desktop.page.mouse.move(2, 2)
    assert desktop.page.locator("#tip").is_hidden()


def _number(text: str) -> float:
    return float(text.split()[0].replace("−", "-").replace(",", ""))
