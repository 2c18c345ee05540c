#!/usr/bin/env python3
"""The web page in a browser: against a mock that misbehaves, and against augur-server itself.

  page_test.py SOURCE                         the mock
  page_test.py SOURCE --server PROGRAM ARG..  PROGRAM ARG.. --set server.port=0
  --screenshots FOLDER                        before --server: what it looks like, as PNG files
"""

import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import browser as browsers
import mock_server as mocks

CONTROL_ROLES = {"button", "textbox", "combobox", "link", "dialog", "application", "region",
                 "navigation", "main", "complementary", "form", "image", "img", "Canvas",
                 "DisclosureTriangle", "log"}
VIEWS = ("engine", "experts", "settings")

options = None
browser = None


def setUpModule():
    global browser
    browser = browsers.Browser()


def tearDownModule():
    browser.close()


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


class ChatTest(MockedTest):
    def setUp(self):
        super().setUp()
        self.open_page()

    def test_streams_an_answer_and_says_what_it_took(self):
        self.mock.script = mocks.plain_answer("One ", "two ", "three.", delay_s=0.05)
        self.send("Count")
        self.assertEqual(self.wait_for_answer(), "One two three.")
        path, body = self.mock.calls[-1]
        self.assertEqual(path, "/v1/chat/completions")
        self.assertEqual(body, {"model": mocks.MODEL, "stream": True,
                                "stream_options": {"include_usage": True},
                                "messages": [{"role": "user", "content": "Count"}]})
        foot = self.foot()
        for part in ("first token", "tokens 3", "tokens/s", "total", "prompt 20, 16 cached"):
            self.assertIn(part, foot)
        self.expect_quiet()

    def test_reads_events_cut_after_every_byte(self):
        text = 'Grüße, "世界" 🙂\nline'
        self.mock.script = mocks.bytewise_answer(text)
        self.send("Go")
        self.assertEqual(self.wait_for_answer(), text)
        self.expect_quiet()

    def test_begins_anew_in_the_middle_of_an_answer(self):
        self.mock.script = mocks.endless_answer
        self.send("Go")
        self.page.wait("document.querySelector('.answer-body').textContent.includes('word2')")
        self.mock.script = mocks.plain_answer("New.")
        self.press_button("New chat")
        self.send("Second")  # at once
        self.assertEqual(self.wait_for_answer(1), "New.")
        self.assertEqual(self.last_body()["messages"], [{"role": "user", "content": "Second"}])
        self.assertTrue(self.mock.is_gone.wait(10))

    def test_sends_the_conversation_so_far(self):
        self.send("First")
        self.wait_for_answer(1)
        self.send("Second")
        self.wait_for_answer(2)
        self.assertEqual(self.last_body()["messages"], [
            {"role": "user", "content": "First"},
            {"role": "assistant", "content": "Hello there."},
            {"role": "user", "content": "Second"}])
        self.press_button("New chat")
        self.send("Third")
        self.wait_for_answer(1)
        self.assertEqual(self.last_body()["messages"], [{"role": "user", "content": "Third"}])

    def test_regenerates_the_last_answer_only(self):
        self.send("First")
        self.wait_for_answer(1)
        self.send("Second")
        self.wait_for_answer(2)
        count = ("[...document.querySelectorAll('button')]"
                 ".filter((node) => node.textContent === 'Regenerate').length")
        self.assertEqual(self.page.evaluate(count), 1)
        self.mock.script = mocks.plain_answer("Another.")
        self.press_button("Regenerate")
        self.page.wait("document.querySelector('.turn:last-child .answer-body')"
                       ".textContent === 'Another.'")
        self.wait_for_answer(2)
        self.assertEqual(len(self.last_body()["messages"]), 3)

    def test_stops_when_asked_and_the_server_sees_it(self):
        for stop in (lambda: self.page.press("Escape"), lambda: self.page.click("#stop")):
            self.mock.script = mocks.endless_answer
            self.mock.is_gone.clear()
            self.send("Go")
            self.page.wait("document.querySelector('.turn:last-child .answer-body')"
                           ".textContent.includes('word3')")
            stop()
            self.wait_for_answer(len(self.mock.calls))
            self.assertTrue(self.mock.is_gone.wait(10))
            self.assertIn("stopped", self.foot())
            self.assertIn("word3", self.answer())
        self.assertEqual(self.page.complaints, [])

    def test_shows_errors_where_the_answer_would_be(self):
        for script, text, message in (
                (mocks.failing_answer("Some", "The expert could not be read."), "Some",
                 "The expert could not be read."),
                (mocks.broken_answer("Half"), "Half", "The connection broke"),
                (mocks.short_answer("Half"), "Half", "ended the answer before it was complete"),
                (mocks.refusing_answer(503, "The queue is full.", [("Retry-After", "7")]), "",
                 "The queue is full. Try again in 7 s.")):
            self.mock.script = script
            self.press_button("New chat")
            self.send("Go")
            self.assertEqual(self.wait_for_answer(), text)
            self.assertIn(message, self.page.text(".turn:last-child .error"))
        self.mock.script = mocks.plain_answer("Now.")
        self.press_button("Try again")
        self.page.wait("document.querySelector('.answer-body').textContent === 'Now.'")
        self.assertEqual(self.wait_for_answer(), "Now.")
        self.assertEqual(self.last_body()["messages"], [{"role": "user", "content": "Go"}])

    def test_offers_plain_completion_without_a_chat_template(self):
        self.mock.script = mocks.templateless_answer
        self.send("Once upon")
        self.wait_for_answer()
        self.assertIn("no chat template", self.page.text(".turn .error"))
        self.press_button("Send as a plain completion")
        self.page.wait("document.querySelector('.answer-body').textContent === 'continued text'")
        self.wait_for_answer()
        path, body = self.mock.calls[-1]
        self.assertEqual((path, body["prompt"]), ("/v1/completions", "Once upon"))
        self.assertEqual(self.page.evaluate("document.getElementById('mode').value"), "completion")
        self.send("And then")  # stays in that mode; stands alone
        self.wait_for_answer(2)
        self.assertEqual(self.last_body()["prompt"], "And then")

    def test_shows_text_as_text_and_fences_as_blocks(self):
        text = ("A <b>bold</b> *line*\n  indented\n```py\nif a < b:\n    pass\n```\n"
                "after `x`\n````\n```\ninner\n````\nend ``")
        self.mock.script = mocks.plain_answer(*text)  # a letter at a time
        self.send("<img src=x onerror=alert(1)>")
        self.wait_for_answer()
        parts = self.page.evaluate(
            "[...document.querySelectorAll('.answer-body > .prose, .answer-body pre')]"
            ".map((node) => [node.tagName, node.textContent])")
        self.assertEqual(parts, [
            ["DIV", "A <b>bold</b> *line*\n  indented"], ["PRE", "if a < b:\n    pass\n"],
            ["DIV", "after `x`"], ["PRE", "```\ninner\n"], ["DIV", "end ``"]])
        self.assertEqual(self.page.text(".code-head span"), "py")
        self.assertEqual(self.page.evaluate("document.querySelectorAll('.turn img, b b').length"), 0)
        self.assertEqual(self.page.text(".question .prose"), "<img src=x onerror=alert(1)>")
        self.expect_quiet()

    def test_copies_the_answer_as_it_came(self):
        self.page.evaluate("navigator.clipboard.writeText = async (text) => { globalThis.copied = "
                           "text; }")
        self.mock.script = mocks.plain_answer("```\ncode\n```\n")
        self.send("Go")
        self.wait_for_answer()
        self.press_button("Copy")
        self.assertEqual(self.page.wait("globalThis.copied"), "```\ncode\n```\n")

    def test_keeps_the_conversation_when_the_page_is_loaded_again(self):
        self.send("First")
        self.wait_for_answer()
        self.page.call("Page.reload")
        self.page.wait("document.querySelector('.answer-body')?.textContent === 'Hello there.'")
        self.send("Second")
        self.wait_for_answer(2)
        self.assertEqual(len(self.last_body()["messages"]), 3)

    def test_tells_screen_readers_sentences_rather_than_tokens(self):
        self.mock.script = mocks.plain_answer(*("A sentence of many tokens. " * 8))
        self.send("Go")
        self.wait_for_answer()
        self.page.wait("document.getElementById('announcements').textContent"
                       ".endsWith('Answer complete.')")
        said = self.page.evaluate("[...document.querySelectorAll('#announcements p')]"
                                  ".map((node) => node.textContent)")
        self.assertIn("Answering.", said)
        self.assertLess(len(said), 8)
        self.assertIn("A sentence of many tokens.", " ".join(said))


class SettingsTest(MockedTest):
    def setUp(self):
        super().setUp()
        self.open_page()
        self.show_view("settings")

    def fill(self, values):
        for name, value in values.items():
            self.page.evaluate(f"(() => {{ const node = document.getElementById('{name}');"
                               "node.focus(); node.select(); })()")
            if value == "":
                self.page.press("Backspace")
            else:
                self.page.type(value)

    def test_are_sent_kept_and_reset(self):
        self.fill({"system-prompt": "Be brief.", "setting-temperature": "0.5",
                   "setting-top_p": "0.9", "setting-top_k": "40", "setting-min_p": "0.05",
                   "setting-max_tokens": "64", "setting-seed": "7",
                   "setting-repetition_penalty": "1.1", "setting-presence_penalty": "-0.5",
                   "setting-frequency_penalty": "0.25", "setting-stop": "END\n\\n\\n"})
        self.send("Go")
        self.wait_for_answer()
        expected = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 64,
                    "seed": 7, "repetition_penalty": 1.1, "presence_penalty": -0.5,
                    "frequency_penalty": 0.25, "stop": ["END", "\n\n"]}
        body = self.last_body()
        self.assertEqual({name: body.get(name) for name in expected}, expected)
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        self.page.call("Page.reload")
        self.page.wait("document.getElementById('setting-seed')?.value === '7'")
        self.show_view("settings")
        self.page.click("#settings-reset")
        self.send("Again")
        self.wait_for_answer(2)
        self.assertEqual(set(self.last_body()), {"model", "stream", "stream_options", "messages"})

    def test_out_of_range_are_pointed_out_and_not_sent(self):
        self.fill({"setting-top_p": "1.5", "setting-seed": "1.5", "setting-min_p": "much"})
        for name, complaint in (("top_p", "At most 1."), ("seed", "This must be whole."),
                                ("min_p", "This is not a number.")):
            self.assertEqual(self.page.text(f"#setting-{name}-complaint"), complaint)
        self.assertIn("Top p, Min p, Seed", self.page.text("#settings-invalid"))
        self.send("Go")
        self.wait_for_answer()
        self.assertTrue({"top_p", "seed", "min_p"}.isdisjoint(self.last_body()))

    def test_step_with_the_arrow_keys(self):
        self.fill({"setting-temperature": "0.95"})
        for expected in ("1", "1.05"):
            self.page.press("ArrowUp")
            self.assertEqual(self.page.evaluate("document.activeElement.value"), expected)


class LiveTest(MockedTest):
    def test_shows_the_figures_and_works_out_rates(self):
        self.open_page()
        self.expect_server_state("ready")
        self.page.wait("/^6\\d$/.test(document.getElementById('rate-generated').textContent)")
        text = self.page.evaluate("document.getElementById('engine').innerText")
        for part in ("120 ms / 300 ms / 1.25 s", "37.5 %", "3.2 GB", "60.0 %", "2 / 0 / 5",
                     "350 held by requests alone", "1 of 1,024"):
            self.assertIn(part, text)
        self.assertGreater(self.check("numColours", "#chart-generated"), 1)
        self.assertEqual(self.page.text("#model"), mocks.MODEL)
        self.expect_quiet()

    def test_maps_the_experts_and_reads_them_out(self):
        self.open_page()
        self.show_view("experts")
        self.page.wait("document.querySelector('#expert-rows dd') !== null")
        text = self.page.evaluate("document.getElementById('experts').innerText")
        self.assertIn("160 slots for 384 experts (41.7 %)", text)
        for what in ("states", "hits", "uses", "prefetches", "misses"):
            self.page.evaluate(f"(() => {{ const node = document.getElementById('map-what');"
                               f"node.value = '{what}'; node.dispatchEvent(new Event('change')); "
                               "})()")
            self.assertGreater(self.check("numColours", "#expert-map"), 4, what)
        self.page.evaluate("document.getElementById('expert-map').focus()")
        self.page.press("ArrowDown")
        self.page.press("ArrowDown")
        self.assertIn("Layer 2: misses:", self.page.text("#map-readout"))
        self.page.click("summary")
        self.page.wait(f"document.querySelectorAll('#expert-table-body tr').length === "
                       f"{mocks.NUM_LAYERS}")
        cells = self.page.evaluate("[...document.querySelectorAll('#expert-table-body tr:first-"
                                   "child > *')].map((node) => node.textContent)")
        counts = self.mock.expert_layer(1)["counts"]
        self.assertEqual(len(cells), 12)
        self.assertEqual((cells[0], cells[2], cells[5]),
                         ("1", f"{counts['uses']:,}", f"{counts['misses']['cold']:,}"))
        self.expect_quiet()

    def test_says_so_when_all_experts_are_resident(self):
        self.mock.has_experts = False
        self.open_page()
        self.show_view("experts")
        self.page.wait("document.getElementById('experts-none').textContent"
                       ".startsWith('All experts are resident')")

    def test_chats_with_a_server_that_gives_no_figures(self):
        self.mock.has_stats = False
        self.open_page()
        self.expect_server_state("no live figures")
        self.send("Go")
        self.assertEqual(self.wait_for_answer(), "Hello there.")
        self.assertEqual(self.last_body()["model"], mocks.MODEL)

    def test_says_so_while_the_server_is_not_ready(self):
        self.mock.fails_with = 503
        self.open_page()
        self.expect_server_state("not ready, trying again")
        self.mock.fails_with = None
        self.expect_server_state("ready")

    def test_survives_a_restart_of_the_server(self):
        self.open_page()
        self.send("First")
        self.wait_for_answer()
        self.page.wait("document.getElementById('rate-generated').textContent !== '–'")
        self.mock.stop()
        self.expect_server_state("disconnected, trying again")
        self.send("Second")
        self.wait_for_answer(2)
        self.assertIn("The server cannot be reached.", self.page.text(".turn .error"))
        self.mock.start()
        self.expect_server_state("ready")
        self.press_button("Try again")
        self.page.wait("document.querySelector('.turn .error') === null")
        self.assertEqual(self.wait_for_answer(2), "Hello there.")
        self.assertEqual(len(self.last_body()["messages"]), 3)

    def test_asks_for_the_key_and_keeps_it_for_the_tab(self):
        self.mock.key = "a-key-of-some-length"
        self.open_page()
        self.page.wait("document.getElementById('key-dialog').open")
        self.expect_names()
        self.page.type("wrong")
        self.page.press("Enter")
        self.page.wait("document.getElementById('key-wrong').checkVisibility()")
        self.page.type(self.mock.key)
        self.page.press("Enter")
        self.expect_server_state("ready")
        self.send("Go")
        self.assertEqual(self.wait_for_answer(), "Hello there.")
        self.page.call("Page.reload")
        self.page.wait("document.getElementById('state')?.textContent === 'ready'")
        self.assertFalse(self.page.evaluate("document.getElementById('key-dialog').open"))
        self.assertNotIn(self.mock.key,
                         self.page.evaluate("JSON.stringify(Object.entries(localStorage))"))

    def test_goes_without_a_key_until_it_is_asked_again(self):
        self.mock.key = "a-key-of-some-length"
        self.open_page()
        self.page.wait("document.getElementById('key-dialog').open")
        self.page.press("Escape")
        self.expect_server_state("API key needed")
        self.page.click("#key-needed")
        self.page.wait("document.getElementById('key-dialog').open")
        self.page.type(self.mock.key)
        self.page.press("Enter")
        self.expect_server_state("ready")


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
        if options.screenshots is not None:
            self.page.screenshot(options.screenshots / f"{name}.png")

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


class RealServerTest(PageTest):
    """augur-server itself, with whatever model the command line names."""

    START_S = 60

    def setUp(self):
        self.start()
        self.addCleanup(lambda: self.stop())
        self.open_page()

    def start(self, port=0):
        self.process = subprocess.Popen(
            [*options.server, "--set", f"server.port={port}"], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        guard = threading.Timer(self.START_S, self.process.kill)
        guard.start()
        said = []
        for line in self.process.stderr:
            said.append(line)
            if match := re.search(r"listening on (http://127\.0\.0\.1:(\d+))", line):
                self.url, self.port = match.group(1), int(match.group(2))
                break
        else:
            self.fail("the server did not start:\n" + "".join(said))
        guard.cancel()
        # Read on, so that the server never waits for room in the pipe.
        self.drain = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.drain.start()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.drain.join()
        self.process.stderr.close()

    def set_max_tokens(self, count):
        self.page.evaluate("(() => { const node = document.getElementById('setting-max_tokens');"
                           f"node.value = '{count}'; node.dispatchEvent(new Event('input')); }})()")

    def ask_for_endless_answers(self):
        """As far as the context reaches, whatever the model makes of the question."""
        self.set_max_tokens(2000)
        self.page.evaluate("""(() => {
            const real = fetch;
            globalThis.fetch = (path, options) => {
                if (options?.body) {
                    options.body = JSON.stringify({...JSON.parse(options.body), ignore_eos: true});
                }
                return real(path, options);
            };
        })()""")

    def say(self, text, count=1):
        """Sends, as a plain completion where the model has no chat template."""
        self.send(text)
        self.wait_for_answer(count, seconds=60)
        if "plain completion" in self.foot():
            self.press_button("Send as a plain completion")
            self.page.wait("document.querySelector('.turn:last-child .error') === null")
            self.wait_for_answer(count, seconds=60)

    def running(self):
        return self.page.evaluate(
            "fetch('/stats').then((r) => r.json()).then((s) => s.requests.running)")

    def test_serves_the_page_and_streams_an_answer(self):
        self.expect_server_state("ready")
        self.set_max_tokens(12)
        self.say("Hello")
        self.assertNotEqual(self.answer(), "")
        self.assertIsNone(self.page.evaluate("document.querySelector('.turn .error')"))
        self.assertRegex(self.foot(), r"tokens \d+")
        self.page.wait("document.getElementById('engine-rows').textContent"
                       ".includes('Requests finished1')")
        for url in self.page.urls:
            self.assertTrue(url.startswith((self.url + "/", "data:", "about:")), url)
        refused = [text for text in self.page.complaints if "status of 400" not in text]
        self.assertEqual(refused, [])
        self.assertEqual(self.page.failures, [])
        for view in VIEWS:
            self.show_view(view)
            self.expect_names()
            if options.screenshots is not None:
                self.page.screenshot(options.screenshots / f"real-{view}.png")

    def test_stops_and_the_server_gives_up_the_request(self):
        self.expect_server_state("ready")
        self.set_max_tokens(4)
        self.say("Hello")  # finds the mode
        self.page.evaluate("document.getElementById('new-chat').click()")
        self.ask_for_endless_answers()
        self.send("Go on and on")
        self.page.wait("document.querySelector('.turn .error') !== null || "
                       "document.querySelector('.answer-body')?.textContent.length > 0", 60)
        self.assertIsNone(self.page.evaluate("document.querySelector('.turn .error')"))
        self.page.press("Escape")
        self.wait_for_answer()
        for _ in range(100):
            if self.running() == 0:
                break
            browser.pump(0.05)
        self.assertEqual(self.running(), 0)
        self.assertIn("stopped", self.foot())

    def test_survives_a_restart(self):
        self.expect_server_state("ready")
        self.set_max_tokens(4)
        self.say("Hello")
        self.stop()
        self.expect_server_state("disconnected, trying again")
        self.start(self.port)
        self.expect_server_state("ready")
        self.say("Again", 2)
        self.assertIsNone(self.page.evaluate("document.querySelector('.turn .error')"))


def main():
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--only", help="tests whose names contain this")
    parser.add_argument("--server", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    real = options.server is not None
    suite = unittest.TestSuite()
    classes = [RealServerTest] if real else [ChatTest, SettingsTest, LiveTest, LooksTest,
                                             KeyboardTest]
    for case in classes:
        suite.addTests(test for test in unittest.defaultTestLoader.loadTestsFromTestCase(case)
                       if options.only is None or options.only in test.id())
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)


if __name__ == "__main__":
    main()
