"""The page in a real browser, on the service without Ray."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route

from finsent.inference.config import EngineConfig
from finsent.labels import LABELS
from finsent.modeling.model_dir import CALIBRATION
from finsent.registry.registry import Registry
from serve_app.auth import new_key
from serve_app.config import ServeConfig
from serve_app.service.service import Service
from tests.commands import wait_until
from tests.served import METRICS, serving_in_thread, wait_until_done
from tests.unit.models import MAX_LENGTH, saved_model

INJECTION = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LONG = "Order intake fell. " * 40
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}


@contextmanager
def serving(registry: Path, **config: Any) -> Iterator[str]:
    """Serve a registry's champion from a thread, and yield its address."""
    service = Service(
        registry, ServeConfig(watch_seconds=0, **config), EngineConfig(backend="torch", threads=1)
    )
    with serving_in_thread(service) as address:
        yield address


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose champion abstains below 0.5."""
    root = tmp_path_factory.mktemp("page")
    model = saved_model(tiny, root / "model", dataset={"name": "sample", "version": "4f1c2ab9"})
    rule = {"schema_version": 1, "temperature": 1.0, "abstention": {"threshold": 0.5}}
    (model / CALIBRATION).write_text(json.dumps(rule))
    registry = Registry(root / "registry")
    registry.promote(
        registry.publish(model, METRICS.replaced(macro_f1=0.871), {}).version, "champion"
    )
    return registry.root


@pytest.fixture(scope="module")
def address(registry: Path) -> Iterator[str]:
    with serving(registry) as address:
        yield address


@pytest.fixture
def pages(browser: Browser) -> Iterator[Any]:
    """Open pages; afterwards nothing is wrong on a console, and no other host was asked."""
    wrong: list[str] = []
    urls: list[str] = []
    opened = ExitStack()

    def new(address: str, **options: Any) -> Page:
        page = browser.new_page(**options)
        opened.callback(page.close)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address)
        return page

    with opened:
        yield new
    assert not wrong
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in urls), urls


@pytest.fixture
def home(pages: Any, address: str) -> Page:
    page: Page = pages(address)
    page.locator("#model", has_text="model ").wait_for()
    return page


def classify(page: Page, text: str) -> None:
    page.locator("#text").fill(text)
    page.locator("#go").click()


def rows(page: Page) -> list[list[str]]:
    result: list[list[str]] = page.locator("#rows tr").evaluate_all(
        "all => all.map(row => [...row.children].map(cell => cell.textContent))"
    )
    return result


def downloaded(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.locator("#download").click()
    with Path(download.value.path()).open(newline="", encoding="utf-8-sig") as stream:
        return [*csv.DictReader(stream)]


# --- texts ----------------------------------------------------------------------------------------


def test_an_example_shows_the_weight_of_each_word(home: Page) -> None:
    home.locator(".example").first.click()
    words = home.locator("#words .word")
    words.first.wait_for()
    text = home.locator("#text").input_value()
    assert home.locator("#words").inner_text() == text
    assert "Polarity " in home.locator("#one-notes").inner_text()
    script = "word => getComputedStyle(word, '::after').content"
    assert words.nth(1).evaluate(script) == "none"
    words.first.focus()
    home.keyboard.press("ArrowRight")
    weight = words.nth(1).get_attribute("data-weight")
    assert words.nth(1).evaluate(script) == f'"{weight}"'
    words.nth(3).hover()
    assert words.nth(3).evaluate(script) == f'"{words.nth(3).get_attribute("data-weight")}"'
    assert home.locator("#words .word[tabindex='0']").count() == 1


def test_the_page_shows_the_figures_and_limits_of_the_model(home: Page) -> None:
    text = home.locator("#about").inner_text()
    for words in (
        "0.871 on 1 test rows",
        "sample, version 4f1c2ab9",
        f"first {MAX_LENGTH} tokens",
        "below 50.0 %",
        "20,000 characters",
        "investment advice",
    ):
        assert words in text, text
    home.locator("#card summary").click()
    home.locator("#card-text", has_text="## Results on the test split (1 rows)").wait_for()


def test_abstained_and_truncated_answers_are_marked(home: Page, address: str) -> None:
    sure = "Net sales of unit 5 were EUR 5 mn."
    response = httpx.post(f"{address}/predict", json={"texts": [LONG, sure]})
    assert [item["abstained"] for item in response.json()["predictions"]] == [True, False]
    classify(home, LONG)
    home.locator("#words .word").first.wait_for()
    assert home.locator("#one-label").inner_text().startswith("Not sure, most likely ")
    text = home.locator("#one-notes").inner_text()
    assert "below the model's threshold, 50.0 %" in text
    assert f"The model read only the first {MAX_LENGTH} tokens of the text" in text
    classify(home, f"{sure}\n{LONG}\n{'x' * 21_000}")
    wait_until_done(home)
    assert "1 not sure, 1 failed" in home.locator("#many-title").inner_text()
    assert "The model read only a part of 1 text" in home.locator("#many-notes").inner_text()
    first, second, third = downloaded(home)
    assert (first["abstained"], first["truncated"]) == ("false", "false")
    assert (second["abstained"], second["truncated"]) == ("true", "true")
    assert (third["label"], third["abstained"]) == ("", "")
    assert third["error"].startswith("text_too_long: the text has 21000 characters")


def test_on_a_phone_every_text_is_readable(pages: Any, address: str) -> None:
    page = pages(address, viewport=PHONE)
    classify(page, "\n".join([f"Sales of unit {i} fell." for i in range(8)] + ["x" * 21_000]))
    wait_until_done(page)
    boxes = [item.bounding_box() for item in page.locator("#rows .text").all()]
    assert len(boxes) == 9
    for box in boxes:
        assert box["x"] >= 0
        assert 250 < box["width"] <= PHONE["width"] - box["x"]
        assert box["height"] < 250
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_texts_are_never_run_as_markup(home: Page) -> None:
    home.locator("#text").fill(INJECTION)
    home.locator("#go").click()
    home.locator("#words .word").first.wait_for()
    assert home.locator("#words").inner_text() == INJECTION
    home.locator("#text").fill(f"{INJECTION}\nProfit rose.")
    home.locator("#go").click()
    wait_until_done(home)
    assert home.locator("#rows .text").first.inner_text() == INJECTION
    assert home.locator("#rows img, #words img, #rows script").count() == 0
    assert home.title() == "finsent: financial sentiment"


def test_the_page_shows_errors_of_the_server(home: Page) -> None:
    def fail(route: Route) -> None:
        problem = {"title": "Something <b>went</b> wrong", "detail": "quote request 17"}
        route.fulfill(status=500, json=problem)

    home.route("**/predict", fail)
    home.locator("#text").fill("Profit rose.")
    home.locator("#go").click()
    home.locator("#error").wait_for()
    text = home.locator("#error").inner_text()
    assert text == "Something <b>went</b> wrong: quote request 17"
    assert home.locator("#go").is_enabled()
    home.unroute("**/predict")
    home.route("**/predict", lambda route: route.abort())
    home.locator("#go").click()
    home.locator("#error", has_text="does not answer").wait_for()
    home.unroute("**/predict")
    home.locator("#text").fill(" \n ")
    home.locator("#go").click()
    home.locator("#error", has_text="No text yet").wait_for()


def test_the_page_does_one_piece_of_work_at_a_time(home: Page) -> None:
    waiting: list[Route] = []
    home.route("**/predict", lambda route: waiting.append(route))
    home.locator("#text").fill("Profit rose.\nLoss widened.")
    with home.expect_request("**/predict"):
        home.keyboard.press("Control+Enter")
    home.locator("#many").wait_for()
    home.locator("#text").fill("Other.\nTexts.\nThan before.")
    home.keyboard.press("Control+Enter")
    home.locator("#error", has_text="Wait until the work is done").wait_for()
    assert len(waiting) == 1
    waiting[0].continue_()
    wait_until_done(home)
    assert home.locator("#rows .text").all_inner_texts() == [
        "Profit rose.",
        "Loss widened.",
    ]


# --- files ----------------------------------------------------------------------------------------


def test_a_file_keeps_its_rows_and_columns(home: Page, tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    texts = ['Er sagte: "5 €",\nund ging.', "", "x" * 21_000, "Verlust in München, größer"]
    with path.open("w", newline="", encoding="cp1252") as stream:
        csv.writer(stream, delimiter=";").writerows(
            [("id", "Headline", "<b>x</b>"), *((i, text, "a") for i, text in enumerate(texts))]
        )
        stream.write("9;zu viele;Zellen;hier\r\n")
    home.locator("#file").set_input_files(path)
    wait_until_done(home)
    cells = rows(home)
    assert [row[3] for row in cells] == [*texts, "9;zu viele;Zellen;hier"]
    assert [row[1] == "failed" for row in cells] == [False, True, True, False, True]
    assert "20000" in cells[2][4]
    assert "%" in cells[0][2]
    assert "3 failed" in home.locator("#many-title").inner_text()
    result = downloaded(home)
    assert [row["id"] for row in result] == ["0", "1", "2", "3", ""]
    assert [row["<b>x</b>"] for row in result] == ["a"] * 4 + [""]
    assert all(row["label"] in LABELS for row in (result[0], result[3]))
    assert "4 fields, not 3 (record 6)" in result[4]["error"]


def test_the_download_of_a_file_is_the_answer_of_the_server(
    home: Page, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "labeled.csv"
    path.write_text(
        "label,text,score,id,id,polarity\n=up(),Profit rose.,-1.5e-3,+49 170,-1+1,3\n,,,,,\n",
        "utf-8",
    )
    response = httpx.post(f"{address}/predict/file", content=path.read_bytes())
    home.locator("#file").set_input_files(path)
    wait_until_done(home)
    with home.expect_download() as download:
        home.locator("#download").click()
    result = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    assert [*csv.reader(result.splitlines())] == [*csv.reader(response.text.splitlines())]


def answering(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body)


def test_an_incomplete_answer_and_an_unreadable_one_get_different_errors(
    home: Page, tmp_path: Path
) -> None:
    path = tmp_path / "news.csv"
    path.write_text("text\nProfit rose.\nSales fell.\n")
    answer = {"label": "neutral", "score": 0.5, "probabilities": dict.fromkeys(LABELS, 0.3)}
    head = {"header": ["text"], "column": 0, "rows": 2}
    for row, words in (
        ({"cells": ["Profit rose."], "answer": answer}, "ended after 1 rows"),
        ({"answer": answer}, "undefined"),
    ):
        body = f"{json.dumps(head)}\n{json.dumps(row)}\n"
        home.route("**/predict/file?*", answering(body))
        home.locator("#file").set_input_files(path)
        home.locator("#error", has_text=words).wait_for()
        home.unroute("**/predict/file?*")


def test_an_unreadable_file_gets_a_remedy(home: Page, tmp_path: Path) -> None:
    workbook = tmp_path / "x.xlsx"
    with zipfile.ZipFile(workbook, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    home.locator("#file").set_input_files(workbook)
    home.locator("#error", has_text="an Excel workbook, not text. Save its table as CSV").wait_for()
    (tmp_path / "open.csv").write_text('text\n"Profit rose.\nSales fell.\n')
    home.locator("#file").set_input_files(tmp_path / "open.csv")
    home.locator("#error", has_text="opens in record 2 is not closed").wait_for()
    (tmp_path / "named.csv").write_text("id;news\n1;Profit rose.\n")
    home.locator("#file").set_input_files(tmp_path / "named.csv")
    home.locator("#column").fill("news")
    home.keyboard.press("Enter")
    wait_until_done(home)
    assert [row[3] for row in rows(home)] == ["Profit rose."]
    (tmp_path / "lines.txt").write_text('Profit rose, "again".\n\nSales fell.\n')
    home.locator("#file").set_input_files(tmp_path / "lines.txt")
    home.locator("#status", has_text="lines.txt").wait_for()
    wait_until_done(home)
    assert [row[3] for row in rows(home)] == ['Profit rose, "again".', "", "Sales fell."]


# --- keys -----------------------------------------------------------------------------------------


def test_the_page_asks_for_a_key_and_continues(pages: Any, registry: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "keys.json", "desk", "predict")
    with serving(registry, api_keys=str(tmp_path / "keys.json")) as address:
        page = pages(address)
        page.locator("#keyform").wait_for()
        assert page.evaluate("document.activeElement.id") == "key"
        classify(page, "Profit rose.")
        wait_until(
            lambda: page.evaluate("document.activeElement.id") == "key", 120, "the key field"
        )
        page.keyboard.type("fs_wrong")
        page.keyboard.press("Enter")
        page.locator("#key-error", has_text="does not know this key").wait_for()
        assert "Bearer" not in page.locator("body").inner_text()
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        page.locator("#words .word").first.wait_for()
        assert page.locator("#keyform").is_hidden()
        assert "0.871" in page.locator("#about").inner_text()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        page.locator("#about").wait_for()
        for link in page.locator("footer a").evaluate_all("all => all.map(one => one.href)"):
            assert httpx.get(link).status_code == 200


# --- accessibility --------------------------------------------------------------------------------


def violations(page: Page) -> list[tuple[str, str]]:
    result = Axe().run(page).response["violations"]
    return [(item["id"], node["html"]) for item in result for node in item["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violations(pages: Any, address: str, scheme: str) -> None:
    page = pages(address, viewport=PHONE if scheme == "dark" else DESK, color_scheme=scheme)
    page.locator("#about").wait_for()
    page.locator("#card summary").click()
    page.locator("#card-text", has_text="# Financial sentiment").wait_for()
    assert violations(page) == []
    classify(page, LONG)
    page.locator("#words .word").first.wait_for()
    page.locator("#words .word").first.focus()
    assert violations(page) == []
    classify(page, f"{LONG}\n{'x' * 21_000}\nProfit rose.\nSales fell.\nNet sales were EUR 7 mn.")
    wait_until_done(page)
    page.locator("#keyform").evaluate("form => { form.hidden = false; }")
    assert violations(page) == []
    page.goto(f"{address}/docs")
    page.locator("h2", has_text="POST /predict/file").wait_for()
    assert violations(page) == []
