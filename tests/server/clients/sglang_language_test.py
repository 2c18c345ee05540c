"""SGLang's language for programs of prompts, against /generate."""

import json
import unittest

import sglang as sgl

from server import Server


@sgl.function
def complete(s, prompt, **options):
    s += prompt + sgl.gen("text", **options)


@sgl.function
def choose(s, prompt, choices):
    s += prompt + sgl.select("choice", choices=choices)


@sgl.function
def fork_two(s, countries):
    s += "The capital of "
    forks = s.fork(len(countries))
    for branch, country in zip(forks, countries):
        branch += f"{country} is" + sgl.gen("city", max_tokens=4)
    s["cities"] = [branch["city"] for branch in forks]


CAPITALS = {"Japan": " Tokyo", "France": " Paris", "Cuba": " Havana", "Egypt": " Cairo"}


class Language(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())
        cls.endpoint = sgl.RuntimeEndpoint(cls.server.url)
        sgl.set_default_backend(cls.endpoint)

    def text_of(self, prompt, **sampling):
        body = {"text": prompt, "sampling_params": {"temperature": 0, **sampling}}
        status, _, answer = self.server.post("/generate", body)
        self.assertEqual(status, 200, answer)
        return json.loads(answer)["text"]

    def test_the_endpoint_knows_its_server(self):
        self.assertIn("tiny-glm4-moe", self.endpoint.get_model_name())
        self.assertIn("version", self.endpoint.get_server_info())
        self.endpoint.flush_cache()

    def test_gen_continues_a_text(self):
        prompt = "The capital of France is"
        state = complete.run(prompt, max_tokens=12, temperature=0)
        self.assertEqual(state["text"], self.text_of(prompt, max_new_tokens=12))
        self.assertEqual(state.text(), prompt + state["text"])
        meta = state.get_meta_info("text")
        self.assertEqual(meta["completion_tokens"], 12)
        self.assertEqual(meta["finish_reason"]["type"], "length")

    def test_gen_stops_before_a_stop_string(self):
        state = complete.run("The capital of France is", max_tokens=40, temperature=0, stop=".")
        self.assertEqual(state["text"], " Paris")

    def test_a_stream_says_what_the_whole_answer_says(self):
        prompt = "Git is"
        state = complete.run(prompt, max_tokens=24, temperature=0, stream=True)
        pieces = list(state.text_iter("text"))
        self.assertEqual("".join(pieces), self.text_of(prompt, max_new_tokens=24))

    def test_log_probabilities_are_told(self):
        state = complete.run(
            "Git is", max_tokens=5, temperature=0, return_logprob=True, top_logprobs_num=2
        )
        meta = state.get_meta_info("text")
        self.assertEqual(len(meta["output_token_logprobs"]), 5)
        for (logprob, token, _), top in zip(
            meta["output_token_logprobs"], meta["output_top_logprobs"], strict=True
        ):
            self.assertEqual(top[0][:2], [logprob, token])  # greedy

    def test_select_takes_the_likeliest_choice(self):
        for country, city in CAPITALS.items():
            state = choose.run(f"The capital of {country} is", choices=list(CAPITALS.values()))
            self.assertEqual(state["choice"], city)

    def test_a_fork_goes_on_from_one_beginning(self):
        state = fork_two.run(list(CAPITALS), temperature=0)
        for country, city in zip(CAPITALS, state["cities"], strict=True):
            prompt = f"The capital of {country} is"
            self.assertEqual(city, self.text_of(prompt, max_new_tokens=4))

    def test_a_batch_runs_side_by_side(self):
        prompts = [f"The capital of {country} is" for country in CAPITALS] * 4
        states = complete.run_batch(
            [{"prompt": prompt, "max_tokens": 8} for prompt in prompts],
            temperature=0,
            num_threads=8,
        )
        expected = {prompt: self.text_of(prompt, max_new_tokens=8) for prompt in set(prompts)}
        self.assertEqual([state["text"] for state in states], [expected[p] for p in prompts])


if __name__ == "__main__":
    unittest.main()
