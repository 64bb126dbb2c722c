"""The service under load for minutes, and its page with inputs of thousands of lines.

tests/unit/test_autoscaling.py decides on replicas, tests/e2e/test_serve.py switches versions under
load and gives the page some lines.
"""

from __future__ import annotations

import csv
import re
import threading
from pathlib import Path

import httpx
from playwright.sync_api import Page

from tests.commands import wait_until
from tests.served import Served, answering, gateways, wait_until_done


def test_replicas_follow_the_load_up_and_down(served: Served) -> None:
    wait_until(lambda: len(gateways(served)) == 1, 120, "one replica")
    end = threading.Event()
    codes: list[int] = []

    def load() -> None:
        with httpx.Client(timeout=60) as client:
            while not end.is_set():
                body = {"texts": ["order book of the unit " * 8] * 512}
                codes.append(client.post(f"{served.address}/predict", json=body).status_code)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(gateways(served)) == 2, 150, "a second replica")
        first = gateways(served)[0]
        wait_until(lambda: answering(served) == 2, 150, "both to answer")
        first.kill()  # its requests go to the other one
        before = len(codes)
        wait_until(lambda: len(codes) >= before + 16, 150, "answers after a replica's death")
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert set(codes) == {200}
    wait_until(lambda: len(gateways(served)) == 1, 90, "the second replica to go")
    assert served.ask()["label"]


def test_last_request_of_a_replica_that_is_killed_is_in_its_log(served: Served) -> None:
    wait_until(lambda: len(gateways(served)) == 1, 120, "one replica")
    [replica] = gateways(served)
    match = re.search(r"logs: (\S+)", served.log.read_text())
    assert match
    refused = httpx.post(
        f"{served.address}/predict",
        json={"text": ""},
        headers={"x-request-id": "last-of-all"},
        timeout=30,
    )
    replica.kill()
    assert refused.status_code == 422
    files = Path(match[1]).glob("replica_*Gateway*.log")
    assert any("last-of-all" in file.read_text() for file in files)

    def answers() -> bool:
        response = httpx.post(f"{served.address}/predict", json={"text": "Up"}, timeout=60)
        return response.status_code == 200

    wait_until(answers, 150, "another replica")


def test_page_takes_ten_thousand_lines(home: Page, tmp_path: Path) -> None:
    lines = [f"Unit {i} sold {i * 7 % 100} pumps" for i in range(10_000)]
    home.locator("#text").evaluate(
        """(box, text) => {
          const data = new DataTransfer();
          data.setData("text/plain", text);
          const paste = {clipboardData: data, bubbles: true, cancelable: true};
          box.dispatchEvent(new ClipboardEvent("paste", paste));
        }""",
        "\n".join(lines),
    )
    home.locator("#go").click()
    wait_until_done(home)
    assert home.locator("#rows tr").count() == 10_000
    with home.expect_download() as download:
        home.locator("#download").click()
    download.value.save_as(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    assert [row["text"] for row in rows] == lines
    assert {row["label"] for row in rows} <= {"negative", "neutral", "positive"}
    assert all(row["error"] == "" for row in rows)


def test_page_takes_many_long_lines(home: Page) -> None:
    home.locator("#text").evaluate(
        "box => { box.value = Array(200).fill('Profit rose. '.repeat(1400)).join('\\n'); }"
    )
    home.locator("#go").click()
    wait_until_done(home)
    assert home.locator("#rows tr").count() == 200
