"""Every endpoint as a person would try it: with curl, and nothing else."""

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from server import MODEL_NAME, Server, wait_until

PROMPT = "The capital of France is"


class Curl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("curl") is None:
            raise RuntimeError("curl is missing; Debian: apt-get install curl")
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.server = cls.enterClassContext(
            Server(f"server.profile_folder={cls.folder}", "metrics.compat=[vllm]")
        )

    def curl(self, path, *options, body=None):
        """(status, body). A body is posted as JSON."""
        command = ["curl", "--silent", "--show-error", "--max-time", "60"]
        command += ["--write-out", "\n%{http_code}", *options]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        run = subprocess.run(
            [*command, self.server.url + path], capture_output=True, text=True, check=True
        )
        text, _, status = run.stdout.rpartition("\n")
        return int(status), text

    def ask(self, path, *options, body=None):
        """The JSON of an answer that must be 200."""
        status, text = self.curl(path, *options, body=body)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def test_health(self):
        self.assertEqual(self.ask("/health"), {"status": "ok"})
        self.assertEqual(self.ask("/health_generate"), {"status": "ok"})

    def test_page(self):
        status, text = self.curl("/")
        self.assertEqual(status, 200)
        self.assertIn("<!doctype html>", text.lower())

    def test_models(self):
        self.assertEqual(self.ask("/v1/models")["data"][0]["id"], MODEL_NAME)
        self.assertEqual(self.ask(f"/v1/models/{MODEL_NAME}")["id"], MODEL_NAME)
        self.assertEqual(self.curl("/v1/models/other")[0], 404)

    def test_information(self):
        for path in ("/server_info", "/get_server_info"):
            self.assertEqual(self.ask(path)["served_model_name"], MODEL_NAME)
        for path in ("/model_info", "/get_model_info"):
            self.assertTrue(self.ask(path)["is_generation"])
        stats = self.ask("/stats")
        self.assertEqual((stats["state"], stats["model"]), ("ready", MODEL_NAME))

    def test_metrics(self):
        self.ask("/v1/completions", body={"prompt": PROMPT, "max_tokens": 4})
        status, text = self.curl("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("# TYPE augur_completions_running gauge", text)
        self.assertIn("# TYPE vllm:num_requests_running gauge", text)
        metrics = self.server.metrics()
        self.assertGreaterEqual(metrics["augur_generated_tokens_total"], 4)
        self.assertEqual(
            metrics["augur_generated_tokens_total"], metrics["vllm:generation_tokens_total"]
        )

    def test_tokenize_and_back(self):
        for prefix in ("", "/v1"):
            answer = self.ask(f"{prefix}/tokenize", body={"prompt": PROMPT})
            self.assertEqual(answer["count"], len(answer["tokens"]))
            back = self.ask(f"{prefix}/detokenize", body={"tokens": answer["tokens"]})
            self.assertEqual(back["prompt"], PROMPT)

    def test_completion(self):
        body = {"model": MODEL_NAME, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
        answer = self.ask("/v1/completions", body=body)
        self.assertTrue(answer["choices"][0]["text"].startswith(" Paris."))

    def test_chat(self):
        messages = [{"role": "user", "content": "Name the capital of Japan."}]
        answer = self.ask(
            "/v1/chat/completions", body={"messages": messages, "max_tokens": 8, "temperature": 0}
        )
        self.assertIn("Tokyo", answer["choices"][0]["message"]["content"])

    def test_events_of_a_stream(self):
        body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "stream": True}
        status, text = self.curl("/v1/completions", "-N", body=body)
        self.assertEqual(status, 200)
        *events, last = [line for line in text.split("\n") if line]
        self.assertEqual(last, "data: [DONE]")
        said = "".join(json.loads(e.removeprefix("data: "))["choices"][0]["text"] for e in events)
        self.assertTrue(said.startswith(" Paris."))

    def test_generate(self):
        body = {"text": PROMPT, "sampling_params": {"max_new_tokens": 8, "temperature": 0}}
        answer = self.ask("/generate", body=body)
        self.assertTrue(answer["text"].startswith(" Paris."))
        self.assertEqual(answer["meta_info"]["completion_tokens"], 8)

    def test_flush_cache(self):
        self.ask("/v1/completions", body={"prompt": [7] * 200, "max_tokens": 1})
        self.assertGreaterEqual(self.ask("/flush_cache", "-X", "POST")["freed_blocks"], 3)
        self.assertEqual(self.ask("/flush_cache")["freed_blocks"], 0)

    def test_abort_request(self):
        body = {"text": PROMPT, "rid": "mine", "stream": True}
        body["sampling_params"] = {"max_new_tokens": 4000, "ignore_eos": True}
        command = ["curl", "--silent", "-N", "--max-time", "60", "-d", json.dumps(body)]
        command += ["-H", "Content-Type: application/json", self.server.url + "/generate"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stream:
            stream.stdout.readline()
            self.assertEqual(self.ask("/abort_request", body={"rid": "mine"}), {"aborted": 1})
            events = [line for line in stream.stdout.read().split("\n") if line]
        self.assertEqual(events[-1], "data: [DONE]")
        finish = json.loads(events[-2].removeprefix("data: "))["meta_info"]["finish_reason"]
        self.assertEqual(finish["type"], "abort")
        self.assertEqual(self.ask("/abort_request", body={"rid": "mine"}), {"aborted": 0})

    def test_profile(self):
        started = self.ask("/start_profile", body={"file": "trace.json"})
        self.assertEqual(self.curl("/start_profile", body={"file": "more.json"})[0], 409)
        self.ask("/v1/completions", body={"prompt": PROMPT, "max_tokens": 8})
        written = self.ask("/stop_profile", "-X", "POST")
        self.assertEqual(written["file"], started["file"])
        trace = json.loads((Path(self.folder) / "trace.json").read_text())
        names = [event["name"] for event in trace["traceEvents"]]
        self.assertGreater(len(names), 8)  # a prompt and seven decode steps, and their request
        for event in trace["traceEvents"]:
            self.assertIn(event["ph"], "XBEMbnesfiC")
            self.assertIn("pid", event)
        self.assertEqual(self.curl("/stop_profile", "-X", "POST")[0], 409)

    def test_profile_of_some_steps_ends_by_itself(self):
        self.ask("/start_profile", body={"file": "short.json", "num_steps": 2})
        self.ask("/v1/completions", body={"prompt": PROMPT, "max_tokens": 8})
        file = Path(self.folder) / "short.json"

        def whole_trace():
            try:
                return json.loads(file.read_text())
            except (OSError, ValueError):
                return None  # it is still being written

        self.assertTrue(wait_until(whole_trace, "the trace is written")["traceEvents"])
        self.assertEqual(self.curl("/stop_profile", "-X", "POST")[0], 409)

    def test_what_is_wrong_is_told(self):
        status, text = self.curl("/v1/completions", body={"prompt": PROMPT, "max_tokens": "x"})
        self.assertEqual((status, json.loads(text)["error"]["param"]), (400, "max_tokens"))
        self.assertEqual(self.curl("/v1/completions")[0], 405)
        self.assertEqual(self.curl("/v1/nothing")[0], 404)
        status, text = self.curl("/v1/completions", "-H", "Content-Type: text/plain", "-d", "{}")
        self.assertEqual(status, 400)
        self.assertIn("application/json", text)


if __name__ == "__main__":
    unittest.main()
