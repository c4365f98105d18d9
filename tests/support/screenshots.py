"""Makes the pictures of the documentation: real servers with the small model, a real browser.

``PYTHONPATH=tests python -m support.screenshots docs/images``
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect
from support.browser import Tab, chromium
from support.serving import serving
from support.waiting import until

from demo_api.config import Settings
from demo_api.demo import small_model as weights

WIDE = {"width": 1200, "height": 900}
NARROW = {"width": 360, "height": 780}
LONG = {"Max tokens": "300", "Temperature": "0"}
SHORT = {"Max tokens": "32", "Temperature": "0"}


def take(browser: Browser, here: str, there: str, folder: Path) -> None:
    """All pictures."""

    def tab(fragment: str = "", **options: object) -> Tab:
        made = Tab(browser.new_context(**{"viewport": WIDE, "locale": "en-GB", **options}), here)  # type: ignore[arg-type]
        made.context.set_default_timeout(90_000)  # on a machine that has other work, too
        return made.open(fragment)

    def save(shown: Tab, name: str) -> None:
        shown.page.mouse.move(0, 0)
        shown.page.wait_for_timeout(300)
        shown.page.screenshot(path=folder / f"page-{name}.png")
        shown.close(there)

    light = tab()
    light.ask("Write a short story about a curious robot.", **LONG)
    light.page.wait_for_selector(".panel .answer:visible")
    light.page.wait_for_timeout(400)
    light.page.screenshot(path=folder / "page-running.png")
    light.wait_for_end()
    light.close()

    light = tab()
    light.ask("Name three primary colors.", **SHORT)
    light.wait_for_end()
    fragment = light.page.evaluate("location.hash")
    save(light, "answer")

    dark = tab(fragment, color_scheme="dark")
    dark.wait_for_end()
    dark.page.locator(".panel .code").scroll_into_view_if_needed()
    save(dark, "dark")

    several = tab()
    several.field("One prompt per line").check()
    several.ask("Name three primary colors.\nWhat is 2+2?\nWrite one sentence about the sea.", **SHORT)
    expect(several.page.locator(".several .facts").first).to_contain_text("together", timeout=90_000)
    save(several, "several")

    conversation = Tab(browser.new_context(viewport=WIDE, locale="en-GB"), there).open("#conversation")
    for number, message in enumerate(("What is 2+2?", "Write one sentence about the sea."), 1):
        conversation.field("Message").fill(message)
        conversation.page.get_by_role("button", name="Send").click()
        facts = conversation.page.locator("#messages .facts")
        expect(facts).to_have_count(2 * number)
        expect(facts.last).to_contain_text("tokens in", timeout=90_000)
    conversation.page.evaluate("scrollTo(0, 0)")
    save(conversation, "conversation")

    compared = tab("#compare")
    compared.field("The other server").fill(there)
    compared.field("Prompt").fill("Write one sentence about the sea.")
    compared.field("Temperature").fill("0.5")
    compared.page.get_by_role("button", name="Compare").click()
    compared.page.wait_for_selector(".verdict .card")
    compared.page.locator(".verdict").scroll_into_view_if_needed()
    compared.page.mouse.wheel(0, 600)
    save(compared, "compare")

    narrow = tab("#runs", viewport=NARROW)
    narrow.page.wait_for_selector(".history li")
    save(narrow, "narrow")


def main() -> None:
    """Starts what the pictures are of."""
    model = weights.pull(Settings.load().model_dir)
    with tempfile.TemporaryDirectory() as state, serving() as start, chromium() as browser:

        def ready(**flags: object) -> str:
            server = start(Settings.load({"drain": 0, "port": 0, "stop_grace": 2, "llama_dir": model, **flags}))
            until(lambda: server.get("/readyz").status_code == 200)
            return server.url

        here = ready(state_dir=Path(state) / "demo")
        there = ready(state_dir=Path(state) / "direct", engine="direct", cors_origins=here)
        take(browser, here, there, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
