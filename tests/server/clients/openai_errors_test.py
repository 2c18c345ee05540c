"""What the openai package makes of refusals, and many of its streams at once."""

import asyncio
import os
import tempfile
import time
import unittest
from pathlib import Path

import openai

from server import MODEL_NAME, Server, wait_until

PROMPT = "The capital of France is"
# Runs until it is closed: as long as a text may be, whatever it says.
LONG = {"max_tokens": 4000, "extra_body": {"ignore_eos": True}}


def client_of(server, **options):
    return openai.OpenAI(
        base_url=server.url + "/v1", **{"api_key": "none", "max_retries": 0, **options}
    )


def complete(client, prompt=PROMPT, **fields):
    fields = {"model": MODEL_NAME, "max_tokens": 4, "temperature": 0, **fields}
    return client.completions.create(prompt=prompt, **fields)


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())
        cls.client = cls.enterClassContext(client_of(cls.server))

    def refused(self, kind, **fields):
        with self.assertRaises(kind) as caught:
            complete(self.client, **fields)
        error = caught.exception
        self.assertEqual(error.type, "invalid_request_error")
        self.assertTrue(error.request_id)
        return error

    def test_a_value_out_of_range_names_its_field(self):
        error = self.refused(openai.BadRequestError, temperature=-1)
        self.assertEqual(error.param, "temperature")
        self.assertIn("-1", error.message)
        error = self.refused(openai.BadRequestError, extra_body={"top_k": "many"})
        self.assertEqual(error.param, "top_k")
        error = self.refused(openai.BadRequestError, n=0)
        self.assertEqual(error.param, "n")

    def test_what_is_not_done_is_refused(self):
        error = self.refused(openai.BadRequestError, suffix="and then")
        self.assertEqual((error.param, error.code), ("suffix", "unsupported_value"))

    def test_too_long_a_prompt_is_told_both_numbers(self):
        error = self.refused(openai.BadRequestError, prompt=[5] * 5000)
        self.assertEqual(error.code, "context_length_exceeded")
        self.assertIn("4096", error.message)
        self.assertIn("5000", error.message)

    def test_too_long_an_answer_is_told_both_numbers(self):
        error = self.refused(openai.BadRequestError, prompt=[5] * 100, max_tokens=4000)
        self.assertEqual((error.param, error.code), ("max_tokens", "context_length_exceeded"))
        self.assertIn("4096", error.message)
        self.assertIn("4100", error.message)

    def test_an_unknown_model_is_not_found(self):
        error = self.refused(openai.NotFoundError, model="other")
        self.assertEqual((error.param, error.code), ("model", "model_not_found"))
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_a_field_within_a_message_is_named_with_its_place(self):
        messages = [{"role": "user", "content": "a"}, {"role": 5, "content": "b"}]
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model=MODEL_NAME, messages=messages)
        self.assertEqual(caught.exception.param, "messages[1].role")


class Keys(unittest.TestCase):
    def test_only_known_keys_are_let_in(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "keys"
            descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w") as keys:
                keys.write("alice alices-own-key-0001\n")
            with Server(f"server.api_keys_file={file}") as server:
                with self.assertRaises(openai.AuthenticationError) as caught:
                    complete(client_of(server, api_key="alices-own-key-0002"))
                self.assertEqual(caught.exception.code, "invalid_api_key")
                answer = complete(client_of(server, api_key="alices-own-key-0001"))
                self.assertEqual(answer.usage.completion_tokens, 4)


class Overload(unittest.TestCase):
    """One place, and nobody may wait for it."""

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(
            Server("execution.max_batch_size=1", "server.limits.max_queued_requests=0")
        )

    def hold_the_place(self):
        stream = complete(client_of(self.server), stream=True, **LONG)
        self.addCleanup(stream.close)
        next(iter(stream))
        return stream

    def test_a_full_server_is_an_internal_server_error(self):
        self.server.wait_idle()
        self.hold_the_place()
        with self.assertRaises(openai.InternalServerError) as caught:
            complete(client_of(self.server))
        error = caught.exception
        self.assertEqual((error.status_code, error.code), (503, "server_is_overloaded"))
        self.assertGreaterEqual(int(error.response.headers["Retry-After"]), 1)

    def test_a_refused_request_is_sent_again_when_the_server_said(self):
        self.server.wait_idle()
        stream = self.hold_the_place()
        attempts = []  # (when, status, Retry-After)

        def on_response(response):
            headers = response.headers
            attempts.append((time.monotonic(), response.status_code, headers.get("Retry-After")))
            if response.status_code == 503:
                stream.close()

        hooked = openai.DefaultHttpxClient(event_hooks={"response": [on_response]})
        with client_of(self.server, max_retries=5, http_client=hooked) as client:
            answer = complete(client)
        self.assertEqual(answer.usage.completion_tokens, 4)
        self.assertGreaterEqual(len(attempts), 2)
        self.assertEqual(attempts[0][1], 503)
        self.assertEqual(attempts[-1][1], 200)
        self.assertGreaterEqual(attempts[1][0] - attempts[0][0], int(attempts[0][2]))


class ManyStreams(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("execution.max_batch_size=32"))

    def num_left_by_clients(self):
        return self.server.metrics().of("augur_requests_ended_total", cause="client")

    def test_a_hundred_at_once_say_what_each_says_alone(self):
        prompts = [f"{name} is" for name in ("Git", "The capital of Japan", "A socket", "Rust")]
        with client_of(self.server) as client:
            alone = {p: complete(client, p, max_tokens=24).choices[0].text for p in prompts}

        async def stream(client, prompt):
            chunks = await complete(client, prompt, max_tokens=24, stream=True)
            return "".join([chunk.choices[0].text async for chunk in chunks])

        async def all_streams():
            async with openai.AsyncOpenAI(
                base_url=self.server.url + "/v1", api_key="none", max_retries=0
            ) as client:
                return await asyncio.gather(*(stream(client, p) for p in prompts * 25))

        texts = asyncio.run(all_streams())
        self.assertEqual(texts, [alone[p] for p in prompts * 25])
        self.server.wait_idle()

    def test_closing_a_stream_ends_its_request(self):
        before = self.num_left_by_clients()
        with client_of(self.server) as client:
            stream = complete(client, stream=True, **LONG)
            next(iter(stream))
            running = "augur_completions_running"
            wait_until(lambda: self.server.metrics()[running] == 1, "one runs")
            stream.close()
            self.server.wait_idle()
        self.assertEqual(self.num_left_by_clients(), before + 1)

    def test_a_client_that_waits_no_longer_ends_its_request(self):
        before = self.num_left_by_clients()
        with client_of(self.server, timeout=0.2) as client:
            with self.assertRaises(openai.APITimeoutError):
                complete(client, **LONG)
        self.server.wait_idle()
        self.assertEqual(self.num_left_by_clients(), before + 1)


if __name__ == "__main__":
    unittest.main()
