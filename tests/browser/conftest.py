"""Headless Chromium on the real service; a console error, a CSP violation, a request elsewhere fails any test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from .library import Library, put_in
from .page import WAIT_S, Page

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-proxy-server",
    "--lang=en-GB",
    "--window-size=1360,900",
)


@pytest.fixture(scope="session")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        missing = " and ".join(
            name for name, path in (("chromium", browser), ("chromedriver", chromedriver)) if not path
        )
        pytest.skip(f"{missing} not found on the PATH (Debian: apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # the driver's path is given: Selenium has nothing to look for or to download
    driver = Chrome(options=options, service=ChromeService(executable_path=chromedriver))
    driver.set_script_timeout(WAIT_S)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def library(_driver: Chrome, braid_url: str) -> Library:
    """The documents of `library.py`, in the real service. After `_driver`: without a browser no service is started."""
    return put_in(braid_url)


@pytest.fixture
def page(_driver: Chrome, library: Library) -> Iterator[Page]:
    """The page of the real service that holds `library`."""
    yield from watched(_driver, library.url)


def watched(driver: Chrome, url: str) -> Iterator[Page]:
    """A fresh page; afterwards looks through the console and the network for what must not be there."""
    driver.get(url)
    driver.execute_script("localStorage.clear(); sessionStorage.clear()")
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")
    page = Page(driver, url)
    page.open()
    yield page
    pwned = page.js("return window.pwned ?? null")
    console = [entry for entry in driver.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]
    requested = _requested(driver)
    page.network()
    page.cdp("Emulation.clearDeviceMetricsOverride")
    page.cdp("Emulation.setEmulatedMedia", features=[])
    driver.get("about:blank")
    assert pwned is None, f"document text was run as script: {pwned}"
    unexpected = [entry for entry in console if not any(part in entry["message"] for part in page.expected_errors)]
    assert unexpected == [], "the console shows errors or warnings"
    elsewhere = [address for address in requested if not address.startswith((f"{url}/", "about:blank", "data:"))]
    assert elsewhere == [], "the page asked another origin"
    assert any(address.startswith(f"{url}/static/") for address in requested), (
        "the network log is empty: nothing was checked"
    )


def _requested(driver: Chrome) -> list[str]:
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [str(m["params"]["request"]["url"]) for m in messages if m["method"] == "Network.requestWillBeSent"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder drive the browser against the real service."""
    here = Path(__file__).resolve().parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.live)
