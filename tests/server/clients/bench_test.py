"""SGLang's benchmark of servers, its own and those of OpenAI's form.

Its figures of time are its own business; that every request succeeds and that its count of tokens
is the server's is ours.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from server import MODEL, SOURCE, Server

NUM_PROMPTS = 20
RANDOM = ["--dataset-name", "random-ids", "--random-input-len", "64", "--random-output-len", "32"]
RANDOM += ["--random-range-ratio", "0.5"]


def conversations():
    """Real text in the form that the benchmark reads."""
    lines = (SOURCE / "tests" / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"][:400] for line in lines[: 2 * NUM_PROMPTS]]
    return [
        {"conversations": [{"value": text}, {"value": "It says what it says."}]} for text in texts
    ]


class BenchServing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())
        # It keeps what it makes below the home folder.
        cls.home = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.conversations = Path(cls.home) / "conversations.json"
        cls.conversations.write_text(json.dumps(conversations()))

    def run_bench(self, backend, *options):
        file = Path(self.home) / "result.jsonl"
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "sglang.bench_serving", "--backend", backend]
        command += ["--base-url", self.server.url, "--tokenizer", str(MODEL)]
        command += ["--num-prompts", str(NUM_PROMPTS), "--warmup-requests", "0", "--flush-cache"]
        command += ["--disable-tqdm", "--output-file", file, "--output-details", *options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": self.home}
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        self.assertEqual(run.returncode, 0, run.stdout[-2000:] + run.stderr[-4000:])
        return json.loads(file.read_text())

    def check(self, backend, *options):
        """Runs it and compares its counts; returns the figures after it, and those before."""
        before = self.server.wait_idle()
        result = self.run_bench(backend, *options)
        after = self.server.wait_idle()

        def served(name):
            return after[name] - before[name]

        self.assertEqual(result["completed"], NUM_PROMPTS)
        self.assertEqual([error for error in result["errors"] if error], [])
        self.assertEqual(served("augur_requests_ended_total"), NUM_PROMPTS)
        self.assertEqual(result["total_output_tokens"], served("augur_generated_tokens_total"))
        if RANDOM[1] not in options:  # else prompts do not have the tokens they were made of
            self.assertEqual(result["total_input_tokens"], served("augur_prompt_tokens_total"))
        return served

    def texts(self):
        name = ["--dataset-name", "sharegpt", "--dataset-path", str(self.conversations)]
        return [*name, "--sharegpt-output-len", "24"]

    def test_generate(self):
        self.check("sglang", *RANDOM)
        self.check("sglang", *self.texts())

    def test_generate_without_a_stream_and_with_log_probabilities(self):
        self.check("sglang", *self.texts(), "--disable-stream", "--return-logprob")

    def test_completions(self):
        self.check("sglang-oai", *RANDOM)
        self.check("sglang-oai", *self.texts(), "--max-concurrency", "8")

    def test_completions_as_it_asks_vllm(self):
        self.check("vllm", *self.texts(), "--max-concurrency", "4")

    def test_chat_completions(self):
        # Without this it counts the tokens it asked for, whatever was said.
        self.check("sglang-oai-chat", *RANDOM, "--extra-request-body", '{"ignore_eos": true}')

    def test_prompts_that_begin_alike_are_found_in_the_prefix_cache(self):
        shape = ["--dataset-name", "generated-shared-prefix", "--gsp-num-groups", "2"]
        shape += ["--gsp-prompts-per-group", str(NUM_PROMPTS // 2), "--gsp-output-len", "8"]
        shape += ["--gsp-system-prompt-len", "200", "--gsp-question-len", "16"]
        served = self.check("sglang", *shape, "--max-concurrency", "2")
        # Of each group's common tokens all but the first two prompts find three blocks of 64.
        num_found = (NUM_PROMPTS - 2 * 2) * 3 * 64
        self.assertGreaterEqual(served("augur_prefix_cache_hits_total"), num_found)


if __name__ == "__main__":
    unittest.main()
