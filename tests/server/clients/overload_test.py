"""More than the server can take, and its end in the middle of it. Facts only, no times."""

import asyncio
import threading
import unittest

from load import ask, session
from server import Server, is_sanitized, wait_until

NUM_PLACES = 4
MAX_QUEUED = 8
CAPACITY = NUM_PLACES + MAX_QUEUED
SETTINGS = (
    f"execution.max_batch_size={NUM_PLACES}",
    f"server.limits.max_queued_requests={MAX_QUEUED}",
)


def body_of(number, max_tokens, **further):
    """Every other one is streamed. Prompts differ, so that none is found in the prefix cache."""
    return {
        "prompt": [10 + number] * (20 + number % 7),
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": number % 2 == 0,
        **further,
    }


class Watch:
    """The highest figures of /metrics while the block runs."""

    def __init__(self, server):
        self.server = server
        self.most_queued = 0
        self.most_running = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()

    def _look(self):
        while not self._is_over.wait(0.01):
            metrics = self.server.metrics()
            self.most_queued = max(self.most_queued, metrics["augur_queued_requests"])
            self.most_running = max(self.most_running, metrics["augur_completions_running"])


class Overload(unittest.TestCase):
    def check_refused(self, outcome):
        self.assertEqual((outcome.status, outcome.code()), (503, "server_is_overloaded"))
        self.assertGreaterEqual(int(outcome.headers["Retry-After"]), 1)

    def test_four_times_the_capacity_is_served_or_refused(self):
        async def load(url):
            async with session() as client:
                return await asyncio.gather(
                    *(ask(client, url, body_of(i, 32)) for i in range(4 * CAPACITY))
                )

        with Server(*SETTINGS) as server:
            with Watch(server) as watch:
                outcomes = asyncio.run(load(server.url + "/v1/completions"))
            served = [outcome for outcome in outcomes if outcome.status == 200]
            refused = [outcome for outcome in outcomes if outcome.status != 200]
            for outcome in served:
                self.assertTrue(outcome.is_done)
                self.assertEqual((outcome.error, outcome.finish_reason), ("", "length"))
            for outcome in refused:
                self.check_refused(outcome)
            # The first of them find an empty queue; who comes before a step stands in it.
            self.assertGreaterEqual(len(served), MAX_QUEUED)
            self.assertGreater(len(refused), 0)
            self.assertLessEqual(watch.most_queued, MAX_QUEUED)
            self.assertLessEqual(watch.most_running, NUM_PLACES)
            metrics = server.wait_idle()
            ended = metrics.of("augur_requests_ended_total", cause="finished")
            self.assertEqual(ended, len(served))
            self.assertEqual(
                metrics.of("augur_refusals_total", reason="queue_full"), len(refused)
            )

    def test_who_waits_too_long_is_told_to_come_back(self):
        async def load(url):
            async with session() as client:
                long = asyncio.create_task(
                    ask(client, url, body_of(0, 4000), leave_after=1_000_000)
                )
                await asyncio.sleep(0)
                await asyncio.to_thread(
                    wait_until, lambda: server.metrics()["augur_completions_running"], "one runs"
                )
                waiting = await ask(client, url, body_of(1, 8))
                long.cancel()
                await asyncio.gather(long, return_exceptions=True)
                return waiting

        settings = ("execution.max_batch_size=1", "server.limits.waiting_timeout_s=0.2")
        with Server(*settings) as server:
            waiting = asyncio.run(load(server.url + "/v1/completions"))
            self.assertEqual(waiting.status, 503, waiting.body)
            server.wait_idle()


class End(unittest.TestCase):
    """SIGTERM while requests run and wait. Leaving Server's block checks the exit status."""

    async def load_and_terminate(self, server, max_tokens):
        """The outcomes of those let in before SIGTERM, and of one sent after it."""
        url = server.url + "/v1/completions"
        async with session() as client:
            before = []
            # Who runs does not stand in the queue, where there is room for as many as are sent.
            for num_requests in (NUM_PLACES, CAPACITY - 2):
                while len(before) < num_requests:
                    body = body_of(len(before), max_tokens)
                    before.append(asyncio.create_task(ask(client, url, body)))
                await asyncio.to_thread(self.wait_for_load, server, num_requests)
            server.terminate()
            await asyncio.to_thread(self.wait_for_drain, server)
            late = await ask(client, url, body_of(0, 4))
            return await asyncio.gather(*before), late

    def wait_for_load(self, server, num_requests):
        def is_loaded():
            metrics = server.metrics()
            all_in = metrics["augur_requests"] == num_requests
            return all_in and metrics["augur_completions_running"] == NUM_PLACES

        wait_until(is_loaded, "all are let in")

    def wait_for_drain(self, server):
        wait_until(lambda: "draining" in server.stderr(), "it has taken the signal")

    def test_those_let_in_are_finished_and_new_ones_refused(self):
        with Server(*SETTINGS, "server.shutdown_timeout_s=200") as server:
            # They must be far from their end when the late one comes.
            max_tokens = 150 if is_sanitized() else 1500
            outcomes, late = asyncio.run(self.load_and_terminate(server, max_tokens))
            for outcome in outcomes:
                self.assertEqual((outcome.status, outcome.error), (200, ""))
                self.assertEqual((outcome.is_done, outcome.finish_reason), (True, "length"))
            self.assertEqual(late.status, 503)
            self.assertGreaterEqual(int(late.headers["Retry-After"]), 1)

    def test_without_patience_streams_end_in_order(self):
        with Server(*SETTINGS, "server.shutdown_timeout_s=0") as server:
            outcomes, _ = asyncio.run(self.load_and_terminate(server, 4000))
            for number, outcome in enumerate(outcomes):
                with self.subTest(number=number):
                    self.assertEqual((outcome.is_done, outcome.error), (True, ""))
                    if number % 2 == 0 and number < NUM_PLACES:  # a stream that has begun
                        self.assertEqual((outcome.status, outcome.finish_reason), (200, "abort"))
                    else:
                        self.assertEqual(outcome.status, 503, outcome.body)


if __name__ == "__main__":
    unittest.main()
