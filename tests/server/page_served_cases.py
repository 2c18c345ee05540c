"""The page as augur-server itself serves it, with whatever model the command line names."""

import re
import signal
import subprocess
import threading

import page_case as case
from page_case import VIEWS, PageTest


class RealServerTest(PageTest):
    """augur-server itself, with whatever model the command line names."""

    START_S = 60

    def setUp(self):
        self.start()
        self.addCleanup(lambda: self.stop())
        self.open_page()

    def start(self, port=0):
        self.process = subprocess.Popen(
            [*case.options.server, "--set", f"server.port={port}"], stdout=subprocess.DEVNULL,
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
            if case.options.screenshots is not None:
                self.page.screenshot(case.options.screenshots / f"real-{view}.png")

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
            case.browser.pump(0.05)
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
