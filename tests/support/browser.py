"""A real browser, without a window, that tells what a careful user would see in its console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright
from support.programs import program

# It asks nobody but the server: no updates, no accounts, no first-run pages.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

_PATIENCE_MS = 60_000  # on a busy machine a page may be slow
expect.set_options(_PATIENCE_MS)

# Who looks at the page later still sees which phases were shown as the one that runs.
_WATCH = """
window.shownAsNow = [];
const note = (item) => {
  const label = item.querySelector(".label")?.lastChild.textContent;
  if (label && window.shownAsNow.at(-1) !== label) window.shownAsNow.push(label);
};
new MutationObserver((records) => {
  for (const { target, oldValue } of records) if (oldValue === "now" || target.dataset.state === "now") note(target);
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-state"], attributeOldValue: true });
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's; skips the test where there is none."""
    path = program("chromium", "Debian's chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of the browser on a server, and what went on behind it.

    Attributes:
        page: Playwright's.
        complaints: what the browser's console said, refusals by the page's own policy among it.
        asked: the URLs of all requests.
        expected: words of complaints that the test provokes: an error answer is one to a browser.
    """

    def __init__(self, context: BrowserContext, url: str, expected: tuple[str, ...] = ()) -> None:
        context.add_init_script(_WATCH)
        self.context = context
        self.url = url
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.expected = expected
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        context.on("request", lambda request: self.asked.append(request.url))
        context.set_default_timeout(_PATIENCE_MS)

    def open(self, fragment: str = "") -> Tab:
        """Goes to a view, and waits until the page knows its server."""
        self.page.goto(f"{self.url}/{fragment}")
        self.page.wait_for_selector("#server-status[data-status]")
        return self

    def ask(self, prompt: str, **fields: str) -> None:
        """Fills the form and presses Run."""
        for label, text in {"Prompt": prompt, **fields}.items():
            self.field(label).fill(text)
        self.page.get_by_role("button", name="Run", exact=True).click()

    def field(self, label: str) -> Locator:
        """A field of the view that is shown."""
        return self.page.locator(".view:not([hidden])").get_by_label(label, exact=True)

    def wait_for_end(self, status: str = "succeeded") -> None:
        self.page.wait_for_selector(f".view:not([hidden]) .panel .chip[data-status={status}]")

    def text(self, selector: str) -> str:
        """What a user reads there."""
        return self.page.locator(f".view:not([hidden]) {selector}").inner_text()

    def serious(self) -> list[str]:
        """What axe finds to be serious or critical."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {node['html']} {node['failureSummary']}"
            for each in found
            for node in each["nodes"]
            if each["impact"] in ("serious", "critical")
        ]

    def close(self, *servers: str) -> None:
        """Nothing went wrong behind the page, and nobody but these servers was asked."""
        self.context.close()
        unexpected = [each for each in self.complaints if not any(words in each for words in self.expected)]
        assert not unexpected
        strangers = [url for url in self.asked if not url.startswith((f"{self.url}/", *servers, "data:"))]
        assert not strangers

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
