"""The live figures on the page, against a mock that may lack them, restart, or ask for a key."""

import mock_server as mocks
from page_case import MockedTest


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
