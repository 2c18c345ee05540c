"""The evaluation harness lm-eval against the server, and augur-score on the same texts.

Its requests are what OpenAI's API was once for: prompts of token ids, echoed, with the
log-probability of every token. They must be those that augur-score writes for the same texts.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

# Nothing is to be asked of a hub; set before its libraries are loaded.
CACHE = tempfile.TemporaryDirectory(prefix="augur-lm-eval-")
os.environ |= {
    "HF_HOME": CACHE.name,
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}

import lm_eval  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from server import MODEL, MODEL_NAME, SOURCE, Server, program  # noqa: E402

TASKS = Path(__file__).resolve().parent / "tasks"
NUM_CAPITALS = 32
NUM_DOCUMENTS = 3
# Both run the float32 reference, whose values do not depend on what else is in a batch; lm-eval
# adds up in another order.
TOLERANCE = 1e-4


def rows_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@functools.cache
def capitals():
    return rows_of(TASKS / "capitals.jsonl")


def documents():
    rows = rows_of(SOURCE / "tests" / "data" / "eval.jsonl")
    return [row["text"] for row in rows[:NUM_DOCUMENTS]]


def scores(rows):
    """What augur-score says of rows of its input: the sum of log-probabilities of each."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command = [program("AUGUR_SCORE"), "--set", "execution.precision=reference"]
        command += ["--input", source, "--output", target]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        return [row["logprob_sum"] for row in rows_of(target)]


@functools.cache
def capital_scores():
    """By item and choice."""
    rows = [
        {"prompt": f"The capital of {item['country']} is", "completion": f" {choice}"}
        for item in capitals()
        for choice in item["choices"]
    ]
    flat = scores(rows)
    return [flat[i : i + 4] for i in range(0, len(flat), 4)]


class LmEvalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Paths in the tasks start at the repository's root.
        before = os.getcwd()
        os.chdir(SOURCE)
        cls.addClassCleanup(os.chdir, before)
        cls.tasks = TaskManager(include_path=str(TASKS), include_defaults=False)
        cls.server = cls.enterClassContext(Server("execution.precision=reference"))

    def model_args(self, path, **further):
        args = {
            "model": MODEL_NAME,
            "base_url": self.server.url + path,
            "tokenizer_backend": "huggingface",
            "tokenizer": str(MODEL),
            "max_length": 4096,
            "max_retries": 1,
            **further,
        }
        return ",".join(f"{key}={value}" for key, value in args.items())

    def evaluate(self, task, model, path, batch_size=1, **further):
        limit = further.pop("limit", None)
        templated = further.pop("apply_chat_template", False)
        result = lm_eval.simple_evaluate(
            model=model,
            model_args=self.model_args(path, **further),
            tasks=[task],
            task_manager=self.tasks,
            batch_size=batch_size,
            limit=limit,
            apply_chat_template=templated,
            log_samples=True,
            bootstrap_iters=0,
        )
        samples = sorted(result["samples"][task], key=lambda sample: sample["doc_id"])
        return result["results"][task], samples

    def check_capitals(self, results, samples):
        expected = capital_scores()
        self.assertEqual(len(samples), NUM_CAPITALS)
        for sample, sums in zip(samples, expected, strict=True):
            found = [float(logprob) for logprob, _ in sample["filtered_resps"]]
            for logprob, wanted in zip(found, sums, strict=True):
                self.assertAlmostEqual(logprob, wanted, delta=TOLERANCE)
        answers = [item["answer"] for item in capitals()]
        num_right = sum(sums.index(max(sums)) == a for sums, a in zip(expected, answers))
        self.assertGreater(num_right, NUM_CAPITALS // 2)  # chance is a quarter
        self.assertAlmostEqual(results["acc,none"], num_right / NUM_CAPITALS)

    def test_choices_are_scored_as_augur_score_scores_them(self):
        self.check_capitals(
            *self.evaluate("augur_capitals", "local-completions", "/v1/completions")
        )

    def test_batches_sent_side_by_side_score_the_same(self):
        self.check_capitals(
            *self.evaluate(
                "augur_capitals",
                "local-completions",
                "/v1/completions",
                batch_size=8,
                num_concurrent=4,
            )
        )

    def test_prompts_sent_as_text_score_the_same(self):
        self.check_capitals(
            *self.evaluate(
                "augur_capitals",
                "local-completions",
                "/v1/completions",
                batch_size=8,
                tokenized_requests=False,
            )
        )

    def test_generate_scores_the_same(self):
        self.check_capitals(
            *self.evaluate("augur_capitals", "sglang-generate", "/generate", batch_size=8)
        )

    def test_documents_are_scored_as_augur_score_scores_them(self):
        _, samples = self.evaluate(
            "augur_documents",
            "local-completions",
            "/v1/completions",
            num_concurrent=3,
            limit=NUM_DOCUMENTS,
        )
        # The harness scores a document's first token after the end-of-text token.
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        rows = [
            {"input_ids": [tokenizer.eos_token_id, *tokenizer(text).input_ids]}
            for text in documents()
        ]
        for sample, wanted in zip(samples, scores(rows), strict=True):
            found = float(sample["filtered_resps"][0])
            self.assertAlmostEqual(found, wanted, delta=TOLERANCE)

    def test_questions_are_answered_alike_in_both_apis(self):
        with_template, samples = self.evaluate(
            "augur_questions",
            "local-chat-completions",
            "/v1/chat/completions",
            num_concurrent=4,
            apply_chat_template=True,
            eos_string="<|endoftext|>",
        )
        said = [sample["filtered_resps"][0] for sample in samples]
        self.assertEqual(len(said), NUM_CAPITALS)
        for text, item in zip(said, capitals(), strict=True):
            body = {
                "messages": [{"role": "user", "content": f"Name the capital of {item['country']}."}],
                "max_tokens": 12,
                "temperature": 0,
                "stop": ["\n", "<|endoftext|>"],
            }
            status, _, answer = self.server.post("/v1/chat/completions", body)
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(answer)["choices"][0]["message"]["content"], text)
        _, samples = self.evaluate(
            "augur_questions",
            "local-completions",
            "/v1/completions",
            num_concurrent=4,
            apply_chat_template=True,
        )
        # Here the harness writes the template and sends token ids.
        self.assertEqual([sample["filtered_resps"][0] for sample in samples], said)

    def test_its_command_line_gives_the_same_accuracy(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"]
            command += ["--model_args", self.model_args("/v1/completions", num_concurrent=2)]
            command += ["--tasks", "augur_capitals", "--include_path", str(TASKS)]
            command += ["--batch_size", "4", "--output_path", folder]
            run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            self.assertEqual(run.returncode, 0, run.stderr[-4000:])
            (file,) = Path(folder).rglob("results_*.json")
            results = json.loads(file.read_text())["results"]["augur_capitals"]
        expected = capital_scores()
        answers = [item["answer"] for item in capitals()]
        num_right = sum(sums.index(max(sums)) == a for sums, a in zip(expected, answers))
        self.assertAlmostEqual(results["acc,none"], num_right / NUM_CAPITALS)


if __name__ == "__main__":
    unittest.main()
