"""The page at "/" in a real browser, against a real server with a real, tiny model."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import Live, serving, until

from kaito_core.api.serving import ServingConfig
from kaito_runtime.keys import ApiKeys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(tiny_llama: Path, tiny_adapters: Path) -> Iterator[Live]:
    config = {
        "model": {"name": "tiny", "dtype": "float32"},
        "adapters": [{"name": "one", "strength": 0.5}, {"name": "two", "strength": 0}],
        "blends": [{"name": "both", "strengths": {"one": 1.0, "two": -0.5}}],
    }
    with serving(
        tiny_llama, ServingConfig.model_validate(config), adapters_dir=tiny_adapters, api_keys=ApiKeys.of("sesame")
    ) as server:
        yield server


class Page:
    """The page as somebody uses it: keys and clicks."""

    def __init__(self, browser: Any, url: str) -> None:
        from selenium.webdriver.common.by import By

        self._browser, self._by = browser, By
        browser.get(url)

    def find(self, selector: str) -> Any:
        return self._browser.find_element(self._by.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self._browser.find_elements(self._by.CSS_SELECTOR, selector))

    def press(self, selector: str, *keys: str) -> None:
        self.find(selector).send_keys(*keys)

    def ask(self, question: str) -> str:
        """Returns the answer to a question that starts a new conversation."""
        self.find("#clear").click()
        until(lambda: not self.all(".turn"), "cleared")
        self.press("#prompt", question, "\n")
        answer = until(lambda: self.all(".assistant[data-done]"), "answered")[0]
        wrong = answer.find_elements(self._by.CSS_SELECTOR, ".wrong")
        return str((wrong or [answer.find_element(self._by.CSS_SELECTOR, "span")])[0].text)

    def choose(self, model: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find("#model")).select_by_value(model)

    def strengths(self) -> list[str]:
        return [output.text for output in self.all(".adapter output")]

    def faults(self) -> list[str]:
        """Returns what the browser complained about."""
        return [entry["message"] for entry in self._browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def page(live: Live) -> Iterator[Page]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Page(browser, live.url)
    finally:
        browser.quit()


def test_it_asks_for_the_key_and_lists_what_is_served(page: Page) -> None:
    until(lambda: page.find("#key").is_displayed(), "the key is asked for")
    page.press("#key", "sesame", "\n")
    until(lambda: len(page.all("#model option")) == 5, "the model ids are listed")
    assert [option.text for option in page.all("#model option")] == ["tiny", "base", "one", "two", "both"]
    assert page.strengths() == ["0.50", "0.00"]
    page.choose("both")
    assert page.strengths() == ["1.00", "-0.50"]
    page.choose("tiny")


def test_a_moved_slider_changes_the_answer_and_back_changes_it_back(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find("#tokens").clear()
    page.press("#tokens", "24")
    before = page.ask("hello")
    page.press("#strength-two", Keys.END)
    assert page.strengths() == ["0.50", "2.00"]
    after = page.ask("hello")
    assert len(before) > 5
    assert after != before
    assert "two × 2" in page.find(".assistant small").text
    page.press("#strength-two", *[Keys.ARROW_LEFT] * 40)
    assert page.strengths() == ["0.50", "0.00"]
    assert page.ask("hello") == before


def test_the_slider_gives_what_the_api_gives(page: Page, live: Live) -> None:
    page.choose("base")
    shown = page.ask("what?")
    message = {"role": "user", "content": "what?"}
    body = {"model": "base", "messages": [message], "temperature": 0, "max_tokens": 24}
    answer = live.post("/v1/chat/completions", body, headers={"Authorization": "Bearer sesame"}).json()
    # A browser shows control characters its own way.
    plain = re.compile(r"[^!-~]")
    assert plain.sub("", shown) == plain.sub("", answer["choices"][0]["message"]["content"])


def test_two_mixes_answer_side_by_side(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.choose("base")
    page.find("#compare").click()
    page.press("#strength-two", Keys.END)
    page.ask("hello")
    until(lambda: len(page.all(".assistant[data-done]")) == 2, "both have answered")
    first, second = (each.text for each in page.all(".row .assistant"))
    assert "base" in first and "two × 2" in second and first != second
    page.find("#pinned button").click()
    page.choose("base")


def test_a_system_prompt_changes_the_answer(page: Page) -> None:
    before = page.ask("hello")
    page.press("#system", "Be loud.")
    assert page.ask("hello") != before
    page.find("#system").clear()


def test_errors_are_shown_and_nothing_else_went_wrong(page: Page) -> None:
    shown = page.ask("x" * 400)
    assert shown.startswith("The conversation is too long") and "context" in shown
    assert [fault for fault in page.faults() if "401" not in fault and "400" not in fault] == []


def test_the_page_loads_nothing_from_elsewhere(live: Live) -> None:
    response = httpx.get(live.url)  # without a key
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"https?://|src=|@import|url\(", response.text)
