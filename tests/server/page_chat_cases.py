"""The conversation on the page, against a mock: streams, errors, text, settings."""

import mock_server as mocks
from page_case import MockedTest


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
