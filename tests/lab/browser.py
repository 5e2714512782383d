"""A real browser on the Prefect UI: Debian's Chromium, driven as a person's hands would."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.processes import ServerMissing, wait_until

PROGRAMS = ("chromium", "chromium-browser")
WITHIN_SECONDS = 60
LOADED_WITHIN_SECONDS = 300  # a page asks the API a dozen times, and shows nothing if one fails
WIDTH, HEIGHT, FOOT = 1280, 800, 95
WANTED = re.compile(r"Type what is to be changed: (.+)")
FIELD, FIELD_TITLE = ".schema-form-property", ".schema-form-property__label"


class PrefectPage:
    """One tab on the UI of a Prefect server."""

    def __init__(self, page: Any, ui_url: str) -> None:
        self.page = page
        self.ui = ui_url
        self.page.set_default_timeout(WITHIN_SECONDS * 1000)

    def open(self, path: str, until: str) -> None:
        """Open a page and wait for a text that tells that it is there; anew where none comes."""

        def is_there() -> bool:
            self.page.goto(self.ui + path)
            self.page.get_by_text(until).first.wait_for()
            return True

        wait_until(is_there, f"the page {path}", within_seconds=LOADED_WITHIN_SECONDS)

    def open_form(self, deployment: str) -> None:
        """Go from the list of deployments to the form of one, by clicks alone."""

        def is_there() -> bool:
            self.open("/deployments", "Deployments")
            self.page.get_by_placeholder("Search deployments").fill(deployment)
            self.page.get_by_role("link", name=deployment, exact=True).first.click()
            self.page.get_by_role("button", name="Run", exact=True).first.click()
            self.page.get_by_text("Custom run").click()
            self.page.get_by_text("Validate parameters").wait_for()
            return True

        wait_until(is_there, f"the form of {deployment}", within_seconds=LOADED_WITHIN_SECONDS)

    def field(self, title: str) -> Any:
        """Return the field of the form with this title."""
        return self.field_in(self.page, title)

    def field_in(self, form: Any, title: str) -> Any:
        """Return the field of one of several forms."""
        label = self.page.locator(FIELD_TITLE, has_text=re.compile(rf"^{re.escape(title)}( |$)"))
        return form.locator(FIELD).filter(has=label).first

    def fill(self, title: str, text: str) -> None:
        """Type into a field; of one that also takes a block, as text."""
        field = self.field(title)
        if field.get_by_role("button", name="str", exact=True).count():
            field.get_by_role("button", name="str", exact=True).click()
        field.locator("textarea, input").last.fill(text)

    def switch_on(self, title: str) -> None:
        """Switch a toggle on."""
        self.field(title).get_by_role("switch").click()

    def add_to_list(self, title: str, text: str) -> None:
        """Make a field a list, and add an item."""
        field = self.field(title)
        field.get_by_role("button", name="list", exact=True).click()
        field.get_by_role("button", name="Add item").click()
        field.locator("textarea, input").last.fill(text)

    def pick(self, title: str, kind: str, name: str) -> None:
        """Pick a saved block in a field."""
        field = self.field(title)
        field.get_by_role("button", name=kind, exact=True).click()
        field.locator("button.p-select-button__control").focus()
        self.page.keyboard.press("ArrowDown")
        self.page.get_by_role("option", name=name, exact=True).click()

    def submit(self) -> str:
        """Send the form, again where the server's database was locked; return the run's id."""
        submit = self.page.get_by_role("button", name="Submit", exact=True)

        def made() -> str:
            with self.page.expect_response(re.compile("/create_flow_run$")) as answer:
                submit.click()
            return str(answer.value.json()["id"]) if answer.value.ok else ""

        run_id = str(wait_until(made, "the run", within_seconds=LOADED_WITHIN_SECONDS))
        self.open_run(run_id)
        return run_id

    def open_run(self, run_id: str) -> None:
        """Open the page of a flow run."""
        self.open(f"/runs/flow-run/{run_id}", "Task Runs")

    def open_tasks(self, run_id: str) -> None:
        """Open the page of a flow run on its steps, and wait until it shows some."""
        self.open_run(run_id)
        self.page.get_by_role("tab", name="Task Runs").or_(
            self.page.get_by_role("button", name="Task Runs")
        ).or_(self.page.get_by_text("Task Runs", exact=True)).first.click()
        self.page.get_by_text("Verified").first.wait_for()

    def shows_state(self, name: str, within_seconds: float = WITHIN_SECONDS * 2) -> None:
        """Wait until the page of the run shows a state, without a reload.

        Raises:
            LabError: it shows another one.
        """
        badge = self.page.locator(".state-badge").first
        wait_until(
            lambda: badge.inner_text().strip() == name,
            f"the page to show {name}",
            within_seconds=within_seconds,
        )

    def says_why(self) -> str:
        """Return the whole message of the state of the run whose page is open, as it is shown."""
        self.page.get_by_text("Details", exact=True).first.click()
        told = self.page.locator(".p-key-value", has_text="State Message").first
        told.wait_for()
        more = told.get_by_text("See More")
        if more.count():
            more.click()
        told.evaluate("at => at.scrollIntoView({block: 'center'})")
        return str(self.page.locator("body").inner_text())

    def choose(self, title: str, choice: str) -> None:
        """Choose one of the values that a field offers."""
        self.field(title).locator("button.p-select-button__control").focus()
        self.page.keyboard.press("ArrowDown")
        self.page.get_by_role("option", name=choice, exact=True).click()

    def answer(self, texts: dict[str, str]) -> None:
        """Fill the form of a suspended run and send it.

        Raises:
            LabError: the server did not take it.
        """
        self.fill_answer(texts)
        self.send_answer()

    def fill_answer(self, texts: dict[str, str]) -> None:
        """Fill the form of a suspended run, and confirm what it wants confirmed."""
        self.page.get_by_role("button", name="Resume").first.click()
        form = self.page.locator("[role=dialog], .p-modal").first
        form.get_by_text("Your name").first.wait_for()
        wanted = WANTED.search(form.inner_text())
        for title, text in {"Confirm": wanted[1].strip() if wanted else "", **texts}.items():
            self.field_in(form, title).locator("textarea, input").last.fill(text)

    def send_answer(self) -> None:
        """Send the form of a suspended run, again where the server's database was locked.

        Raises:
            LabError: the server did not take it.
        """
        form = self.page.locator("[role=dialog], .p-modal").first
        submit = form.get_by_role("button", name="Submit", exact=True)

        def sent() -> bool:
            with self.page.expect_response(re.compile("/resume$")) as answer:
                submit.click()
            return bool(answer.value.ok)

        wait_until(sent, "the answer to be taken", within_seconds=LOADED_WITHIN_SECONDS)

    def retry(self) -> None:
        """Press Retry and confirm."""
        self.page.get_by_role("button", name="Retry").first.click()
        self.page.get_by_role("dialog").get_by_role("button", name="Retry").click()

    def picture(self, file: Path, height: int = HEIGHT) -> None:
        """Take a picture of a window of this height, but for its foot."""
        self.page.set_viewport_size({"width": WIDTH, "height": height})
        self.page.wait_for_timeout(1500)  # what has just come fades in
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height - FOOT}
        self.page.screenshot(path=file, animations="disabled", clip=clip)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


@contextlib.contextmanager
def prefect_page(ui_url: str) -> Iterator[PrefectPage]:
    """Open a tab until the end of the block.

    Raises:
        ServerMissing: there is no Chromium.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise ServerMissing("chromium is not installed")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (large, and only here)

    with sync_playwright() as playwright:
        # As root Chromium has no sandbox of its own; it opens nothing but our own server.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield PrefectPage(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}), ui_url)
        finally:
            browser.close()
