"""The page in a browser, in the words of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 30
"""How long a test waits for something to appear; it bounds a failure, and measures nothing."""


class Page:
    """The page in a browser: what a test does with it, and what it sees."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.expected_errors: list[str] = []

    def open(self, fragment: str = "") -> None:
        """Load the page anew at `fragment` (with its #)."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/{fragment}")

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        """The first visible match; waits for it."""

        def visible(_: Chrome) -> WebElement | None:
            return next((element for element in self.all(css) if element.is_displayed()), None)

        return self.until(visible, f"nothing visible matches {css!r}")

    def gone(self, css: str) -> None:
        self.until(lambda _: not any(element.is_displayed() for element in self.all(css)), f"{css!r} is still visible")

    def text(self, css: str) -> str:
        self.one(css)
        return self.texts(css)[0]

    def texts(self, css: str) -> list[str]:
        # in one step: elements that are read one by one may be drawn anew meanwhile
        return list(self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())", css))

    def shows(self, css: str, part: str) -> None:
        """Wait until some match of `css` contains `part`."""
        self.until(lambda _: any(part in text for text in self.texts(css)), f"no {css!r} shows {part!r}")

    def type(self, css: str, text: str) -> None:
        box = self.one(css)
        box.clear()
        box.send_keys(text)

    def keys(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        """Id of the element that has the focus."""
        return str(self.js("return document.activeElement.id"))

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def module(self, script: str) -> Any:
        """Run an async script; it may import('/static/…') and returns a value that JSON can hold."""
        answer = self.driver.execute_async_script(
            "const done = arguments[0];"
            f"(async () => {{ {script} }})().then(value => done({{value}}), error => done({{error: String(error)}}))"
        )
        assert "error" not in answer, answer
        return answer["value"]

    def fragment(self) -> str:
        return str(self.js("return location.hash"))

    def cdp(self, command: str, **parameters: object) -> Any:
        return self.driver.execute_cdp_cmd(command, dict(parameters))

    def width(self, pixels: int, height: int = 800) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=pixels, height=height, deviceScaleFactor=1, mobile=False)

    @contextmanager
    def before_load(self, script: str) -> Iterator[None]:
        """Run `script` in every page that is loaded meanwhile, before the page's own scripts."""
        added = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])

    def media(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="dark"."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.cdp("Emulation.setEmulatedMedia", features=named)

    def network(self, *, offline: bool = False, latency_ms: int = 0) -> None:
        self.cdp(
            "Network.emulateNetworkConditions",
            offline=offline,
            latency=latency_ms,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def search(self, words: str) -> None:
        """Search, from the search tab, and wait for the answer."""
        self.type("#search-box", words)
        self.keys(Keys.ENTER)
        self.one("#search-output:not([aria-busy]) .count")

    def ask(self, question: str) -> None:
        """Ask, from the ask tab, and wait until the answer is complete."""
        self.type("#ask-box", question)
        self.keys(Keys.ENTER)
        self.one("#ask-output .answer.complete")

    def until(self, condition: Any, message: str) -> Any:
        """Wait until `condition(driver)` is true, and return what it gave."""
        wait = WebDriverWait(self.driver, WAIT_S, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(condition, message)
