"""How the page looks, is named and is used without a mouse."""

import re

import browser as browsers
import mock_server as mocks
import page_case as case
from page_case import VIEWS, MockedTest


class LooksTest(MockedTest):
    ANSWER = ("Experts are fetched before they are needed. In short:\n\n```cpp\n"
              "const ExpertLease experts = pool_.acquire(layer, routing, context);\n"
              "expert_ffn_.forward(hidden, routing, experts, context);\n```\n\n"
              "The lease ends in stream order, so no expert is evicted while it computes.")

    def setUp(self):
        super().setUp()
        self.open_page()
        words = re.findall(r"\S+\s*|\s+", self.ANSWER)
        self.mock.script = mocks.plain_answer(*words, delay_s=0.002, finish_reason="length")
        self.send("How does the pool keep an expert in place?")
        self.wait_for_answer()
        self.mock.script = mocks.refusing_answer(503, "The queue is full.", [("Retry-After", "2")])
        self.send("And when the queue is full?")
        self.wait_for_answer(2)

    def views(self, names=VIEWS):
        """Shows one view after the other."""
        for name in names:
            self.show_view(name)
            self.page.wait(f"document.getElementById('{name}').checkVisibility()")
            yield name

    def picture(self, name):
        if case.options.screenshots is not None:
            self.page.screenshot(case.options.screenshots / f"{name}.png")

    def test_has_enough_contrast_in_both_schemes(self):
        self.page.wait("document.getElementById('rate-generated').textContent !== '–'")
        for scheme in ("light", "dark"):
            self.page.set_media(prefers_color_scheme=scheme)
            self.page.wait(f"document.documentElement.dataset.theme === '{scheme}'")
            for view in self.views():
                self.picture(f"{scheme}-{view}")
                self.assertEqual(self.check("lowContrast"), [], f"{scheme} {view}")

    def test_toggles_the_theme_and_keeps_the_choice(self):
        self.page.set_media(prefers_color_scheme="light")
        seen = []
        for _ in range(3):
            self.page.click("#theme")
            seen.append((self.page.evaluate("document.getElementById('theme').ariaLabel"),
                         self.page.evaluate("getComputedStyle(document.body).colorScheme")))
        self.assertEqual(seen, [("Theme: light", "light"), ("Theme: dark", "dark"),
                                ("Theme: auto", "light")])
        self.page.click("#theme")
        self.page.click("#theme")
        self.page.call("Page.reload")
        self.page.wait("document.getElementById('theme-choice')?.textContent === 'dark'")
        self.assertEqual(self.page.evaluate("document.documentElement.dataset.theme"), "dark")

    def test_fits_narrow_screens(self):
        self.page.wait("document.getElementById('rate-generated').textContent !== '–'")
        for width in (360, 700):
            self.page.set_size(width, 740)
            for view in self.views(("chat",) + VIEWS):
                self.picture(f"narrow-{width}-{view}")
                self.assertEqual(self.check("cutOff"), [], f"{width} {view}")

    def test_names_every_control(self):
        for _ in self.views():
            self.expect_names()
        roles = {role for role, _ in self.page.accessible_nodes()}
        self.assertTrue({"main", "complementary", "navigation", "banner", "log"} <= roles, roles)

    def test_moves_nothing_for_those_who_want_that(self):
        self.page.set_media(prefers_reduced_motion="reduce")
        self.mock.script = mocks.endless_answer
        self.send("Go")
        style = ("getComputedStyle(document.querySelector('.turn:last-child .answer-body'), "
                 "'::after').animationName")
        self.page.wait("document.querySelector('.turn:last-child .answer').ariaBusy === 'true'")
        self.assertEqual(self.page.evaluate(style), "none")
        self.page.set_media(prefers_reduced_motion="no-preference")
        self.assertEqual(self.page.evaluate(style), "breathe")
        self.page.press("Escape")


class KeyboardTest(MockedTest):
    def test_reaches_and_marks_every_control(self):
        self.open_page()
        self.expect_server_state("ready")
        self.send("Go")
        self.wait_for_answer()
        for view in VIEWS:
            self.show_view(view)
            wanted = self.check("reachable")
            reached = set()
            for _ in range(len(wanted) + 3):
                self.page.press("Tab")
                focused = self.check("focused")
                if focused["name"] is not None:
                    reached.add(focused["name"])
                    self.assertTrue(focused["isMarked"], focused["name"])
            self.assertEqual(set(wanted) - reached, set(), view)

    def test_does_a_whole_conversation(self):
        self.open_page()
        self.page.wait("document.activeElement.id === 'message'")  # ready from the start
        while self.check("focused")["name"] != "Go to the message box":
            self.assertNotEqual(self.check("focused")["name"], None, "the way back has an end")
            self.page.press("Tab", browsers.SHIFT)
        self.page.press("Enter")
        self.page.wait("document.activeElement.id === 'message'")
        self.page.type("First line")
        self.page.press("Enter", browsers.SHIFT)
        self.page.type("second line")
        self.page.press("Enter", browsers.CTRL)
        self.wait_for_answer()
        self.assertEqual(self.last_body()["messages"][0]["content"], "First line\nsecond line")
        self.assertEqual(self.check("focused")["name"], "message")  # ready for the next
        self.mock.script = mocks.endless_answer
        self.page.type("Next")
        self.page.press("Enter")
        self.page.wait("document.querySelector('.turn:last-child .answer-body')"
                       ".textContent.includes('word2')")
        self.page.press("Escape")
        self.wait_for_answer(2)
        self.mock.script = mocks.plain_answer("Again.")
        for _ in range(20):  # back from the box to the answer's buttons
            self.page.press("Tab", browsers.SHIFT)
            if self.page.evaluate("document.activeElement.textContent") == "Regenerate":
                break
        self.page.press(" ")
        self.page.wait("document.querySelector('.turn:last-child .answer-body')"
                       ".textContent === 'Again.'")
        self.wait_for_answer(2)
        self.assertEqual(self.check("focused")["name"], "message")
