"""What the openai package gets from the server: answers, streamed and whole."""

import unittest

import openai

from server import MODEL_NAME, Server

PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "Name the capital of Japan."}]
LONG_TEXT = "The server keeps keys and values of what it has computed. " * 40


class OpenAiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())
        cls.client = cls.enterClassContext(
            openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)
        )

    def complete(self, prompt=PROMPT, **fields):
        fields = {"max_tokens": 8, "temperature": 0, **fields}
        return self.client.completions.create(model=MODEL_NAME, prompt=prompt, **fields)

    def chat(self, messages=QUESTION, **fields):
        fields = {"max_completion_tokens": 16, "temperature": 0, **fields}
        return self.client.chat.completions.create(model=MODEL_NAME, messages=messages, **fields)

    def tokens_of(self, text):
        return self.server_json("/v1/tokenize", {"prompt": text})["tokens"]

    def server_json(self, path, body):
        return self.client.post(path.removeprefix("/v1"), body=body, cast_to=dict[str, object])


class Models(OpenAiTest):
    def test_list_names_the_served_model(self):
        models = self.client.models.list().data
        self.assertEqual([model.id for model in models], [MODEL_NAME])
        self.assertEqual(self.client.models.retrieve(MODEL_NAME).id, MODEL_NAME)


class Completions(OpenAiTest):
    def test_a_text_is_continued(self):
        answer = self.complete()
        self.assertEqual(answer.object, "text_completion")
        self.assertEqual(answer.model, MODEL_NAME)
        self.assertTrue(answer.choices[0].text.startswith(" Paris."), answer.choices[0].text)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 8)
        self.assertEqual(answer.usage.prompt_tokens, len(self.tokens_of(PROMPT)))
        self.assertEqual(
            answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens
        )

    def test_a_stream_says_what_the_whole_answer_says(self):
        whole = self.complete(max_tokens=24)
        chunks = list(self.complete(max_tokens=24, stream=True))
        self.assertEqual("".join(c.choices[0].text for c in chunks), whole.choices[0].text)
        self.assertGreater(len(chunks), 10)
        reasons = [c.choices[0].finish_reason for c in chunks]
        self.assertEqual(reasons[-1], "length")
        self.assertEqual(set(reasons[:-1]), {None})
        self.assertEqual(len({c.id for c in chunks}), 1)
        self.assertTrue(all(c.usage is None for c in chunks))

    def test_include_usage_adds_a_last_chunk_without_choices(self):
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, 8)
        self.assertTrue(all(c.usage is None for c in chunks[:-1]))

    def test_n_gives_choices_that_differ(self):
        answer = self.complete(n=4, temperature=1, max_tokens=16, seed=3)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2, 3])
        self.assertGreater(len({c.text for c in answer.choices}), 1)
        self.assertEqual(answer.usage.completion_tokens, 64)
        chunks = self.complete(n=4, temperature=1, max_tokens=16, seed=3, stream=True)
        streamed = [""] * 4
        for chunk in chunks:
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        self.assertEqual(streamed, [c.text for c in answer.choices])

    def test_a_seed_makes_draws_repeat(self):
        def text(seed):
            return self.complete(temperature=1, max_tokens=32, seed=seed).choices[0].text

        self.assertEqual(text(7), text(7))
        self.assertEqual(self.complete().choices[0].text, self.complete().choices[0].text)
        self.assertGreater(len({text(seed) for seed in range(4)}), 1)

    def test_a_stop_string_ends_the_text_before_it(self):
        whole = self.complete(max_tokens=24)
        text = whole.choices[0].text
        stop = text[9:14]  # across tokens
        self.assertNotIn(stop, text[:9])
        answer = self.complete(max_tokens=24, stop=[stop])
        self.assertEqual(answer.choices[0].text, text[:9])
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertLess(answer.usage.completion_tokens, whole.usage.completion_tokens)
        streamed = "".join(
            c.choices[0].text for c in self.complete(max_tokens=24, stop=stop, stream=True)
        )
        self.assertEqual(streamed, text[:9])

    def test_log_probabilities_stand_beside_each_token(self):
        logprobs = self.complete(logprobs=3).choices[0].logprobs
        self.assertEqual(len(logprobs.tokens), 8)
        for token, logprob, top, offset in zip(
            logprobs.tokens,
            logprobs.token_logprobs,
            logprobs.top_logprobs,
            logprobs.text_offset,
            strict=True,
        ):
            self.assertLessEqual(logprob, 0)
            self.assertEqual(len(top), 3)
            self.assertEqual(max(top.values()), top[token])  # greedy
            self.assertEqual(top[token], logprob)
            self.assertTrue("".join(logprobs.tokens)[offset:].startswith(token))

    def test_echo_gives_the_prompt_back_and_scores_it(self):
        answer = self.complete(echo=True, max_tokens=0, logprobs=1)
        choice = answer.choices[0]
        self.assertEqual(choice.text, PROMPT)
        self.assertEqual("".join(choice.logprobs.tokens), PROMPT)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        self.assertTrue(all(value < 0 for value in choice.logprobs.token_logprobs[1:]))
        self.assertEqual(answer.usage.completion_tokens, 0)
        echoed = self.complete(echo=True)
        self.assertEqual(echoed.choices[0].text, PROMPT + self.complete().choices[0].text)

    def test_token_ids_are_prompts_too(self):
        ids = self.tokens_of(PROMPT)
        self.assertEqual(self.complete(prompt=ids).choices[0].text, self.complete().choices[0].text)

    def test_lists_of_prompts_are_answered_in_order(self):
        prompts = [PROMPT, "The capital of Japan is", "Git is a"]
        single = [self.complete(prompt=p).choices[0].text for p in prompts]
        listed = self.complete(prompt=prompts)
        self.assertEqual([c.text for c in listed.choices], single)
        ids = [self.tokens_of(p) for p in prompts]
        self.assertEqual([c.text for c in self.complete(prompt=ids).choices], single)
        self.assertEqual([c.index for c in self.complete(prompt=prompts, n=2).choices], [*range(6)])

    def test_logit_bias_forces_and_forbids_a_token(self):
        wanted = self.tokens_of(" London")[0]
        forced = self.complete(max_tokens=1, logit_bias={str(wanted): 100}, logprobs=0)
        piece = self.server_json("/v1/detokenize", {"tokens": [wanted]})["prompt"]
        self.assertEqual(forced.choices[0].text, piece)
        likeliest = self.tokens_of(" Paris")[0]
        forbidden = self.complete(max_tokens=1, logit_bias={str(likeliest): -100})
        self.assertFalse(forbidden.choices[0].text.startswith(" Par"))


class Chat(OpenAiTest):
    def test_a_question_is_answered(self):
        answer = self.chat()
        message = answer.choices[0].message
        self.assertEqual(message.role, "assistant")
        self.assertIn("Tokyo", message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_a_stream_says_what_the_whole_answer_says(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage, whole.usage)
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")

    def test_the_stream_helper_puts_an_answer_together(self):
        with self.client.chat.completions.stream(
            model=MODEL_NAME, messages=QUESTION, temperature=0, max_completion_tokens=16
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, self.chat().choices[0].message.content)

    def test_max_completion_tokens_wins_over_max_tokens(self):
        answer = self.chat(max_completion_tokens=3, max_tokens=9, extra_body={"ignore_eos": True})
        self.assertEqual(answer.usage.completion_tokens, 3)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_log_probabilities_come_with_bytes_and_alternatives(self):
        answer = self.chat(logprobs=True, top_logprobs=2, max_completion_tokens=4)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), 4)
        said = b"".join(bytes(token.bytes) for token in content).decode()
        self.assertEqual(said, answer.choices[0].message.content)
        for token in content:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(token.top_logprobs[0].token, token.token)
            self.assertEqual(token.top_logprobs[0].logprob, token.logprob)

    def test_parts_of_text_are_joined(self):
        parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
        self.assertEqual(
            self.chat(parts).choices[0].message.content, self.chat().choices[0].message.content
        )


class Extensions(OpenAiTest):
    """Fields that are no part of OpenAI's API go through extra_body."""

    def test_top_k_of_one_is_greedy_at_any_temperature(self):
        drawn = self.complete(temperature=1.5, extra_body={"top_k": 1})
        self.assertEqual(drawn.choices[0].text, self.complete().choices[0].text)

    def test_min_p_of_one_is_greedy_at_any_temperature(self):
        drawn = self.complete(temperature=1.5, extra_body={"min_p": 1.0})
        self.assertEqual(drawn.choices[0].text, self.complete().choices[0].text)

    def test_ignore_eos_and_min_tokens_go_on_after_the_end(self):
        self.assertEqual(self.chat(max_completion_tokens=40).choices[0].finish_reason, "stop")
        on = self.chat(max_completion_tokens=40, extra_body={"ignore_eos": True})
        self.assertEqual(on.usage.completion_tokens, 40)
        at_least = self.chat(max_completion_tokens=40, extra_body={"min_tokens": 20})
        self.assertGreaterEqual(at_least.usage.completion_tokens, 20)

    def test_priority_is_taken(self):
        answer = self.complete(extra_body={"priority": -3})
        self.assertEqual(answer.choices[0].text, self.complete().choices[0].text)

    def test_a_second_prompt_that_begins_alike_is_found_in_the_cache(self):
        def cached(salt):
            answer = self.complete(LONG_TEXT, extra_body={"cache_salt": salt})
            return answer.usage.prompt_tokens_details.cached_tokens, answer.choices[0].text

        first, text = cached("a")
        self.assertEqual(first, 0)
        second, same_text = cached("a")
        self.assertGreaterEqual(second, 64)
        self.assertEqual(same_text, text)
        # Another salt is another cache.
        other, same_text = cached("b")
        self.assertEqual(other, 0)
        self.assertEqual(same_text, text)


# The class that the others share has no tests of its own.
del OpenAiTest

if __name__ == "__main__":
    unittest.main()
