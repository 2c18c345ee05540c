"""What the tests of the page share: a tab at a server, and what can be asked of it.

`options` and `browser` are set by page_test.py before anything runs.
"""

import json
import pathlib
import unittest

import mock_server as mocks

CONTROL_ROLES = {"button", "textbox", "combobox", "link", "dialog", "application", "region",
                 "navigation", "main", "complementary", "form", "image", "img", "Canvas",
                 "DisclosureTriangle", "log"}
VIEWS = ("engine", "experts", "settings")

options = None
browser = None


class PageTest(unittest.TestCase):
    """A tab at a server that setUp of a subclass has started (self.url)."""

    url = None

    def open_page(self):
        self.page = browser.new_page()
        self.addCleanup(self.page.close)
        self.page.open(self.url)

    def check(self, function, *arguments):
        checks = (pathlib.Path(__file__).parent / "page_checks.js").read_text()
        given = ", ".join(json.dumps(argument) for argument in arguments)
        return self.page.evaluate(f"({checks.strip()}).{function}({given})")

    def send(self, text):
        self.page.evaluate("document.getElementById('message').focus()")
        self.page.type(text)
        self.page.press("Enter")

    def wait_for_answer(self, count=1, seconds=15):
        """Until `count` turns are there and the last has ended; the text of its answer."""
        self.page.wait(
            f"document.querySelectorAll('.turn').length === {count} && "
            "document.querySelector('.turn:last-child .answer').ariaBusy === 'false'", seconds)
        return self.answer()

    def answer(self):
        return self.page.evaluate(
            "document.querySelector('.turn:last-child .answer-body').textContent")

    def foot(self):
        return self.page.text(".turn:last-child .answer-foot")

    def show_view(self, name):
        self.page.click(f"#views button[data-view={name}]")

    def press_button(self, label):
        """Clicks the last button of this text."""
        self.page.evaluate(f"[...document.querySelectorAll('button')].filter((node) => "
                           f"node.checkVisibility() && node.textContent === {json.dumps(label)})"
                           ".at(-1).click()")

    def expect_quiet(self):
        """Nothing was complained of, nothing failed, and no other origin was asked."""
        self.assertEqual(self.page.complaints, [])
        self.assertEqual(self.page.failures, [])
        for url in self.page.urls:
            self.assertTrue(url.startswith((self.url + "/", "data:", "about:")), url)

    def expect_names(self):
        unnamed = [role for role, name in self.page.accessible_nodes()
                   if role in CONTROL_ROLES and not name.strip()]
        self.assertEqual(unnamed, [])

    def expect_server_state(self, state):
        self.page.wait(f"document.getElementById('state').textContent === {json.dumps(state)}")


class MockedTest(PageTest):
    def setUp(self):
        self.mock = mocks.MockServer(options.source)
        self.addCleanup(self.mock.stop)
        self.url = self.mock.url

    def last_body(self):
        return self.mock.calls[-1][1]
