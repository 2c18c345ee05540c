// What is answered does not depend on what else is asked, nor on what is cached.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json/serialize.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "tests/server/demo_server.h"

namespace augur::server {
namespace {

constexpr std::array<std::string_view, 4> kBeginnings{
    "", "The library is free software; you can redistribute it and modify it. ",
    "NAME\\n    printf - format and print data\\n\\nSYNOPSIS\\n    printf FORMAT [ARGUMENT]...\\n",
    "In the beginning there was a machine, and the machine had a keyboard, and on the keyboard "
    "there were many keys, most of which nobody had ever pressed. "};

constexpr std::array<std::string_view, 5> kEndings{"The capital of France is", "It is",
                                                   "Usage: ", "He said that", "def main("};

/// Requests that share beginnings, sampled and greedy, short and long, one or several completions.
std::vector<std::string> make_bodies(std::mt19937& random, int num_bodies) {
  const auto draw = [&](int bound) { return static_cast<int>(random() % bound); };
  std::vector<std::string> bodies;
  for (int i = 0; i < num_bodies; ++i) {
    bodies.push_back(fmt::format(
        R"({{"prompt":"{}{}{}","max_tokens":{},"temperature":{},"seed":{},"n":{},"logprobs":1}})",
        kBeginnings[draw(4)], kBeginnings[draw(4)], kEndings[draw(5)], 1 + draw(16),
        draw(2) == 0 ? "0" : "1.1", draw(1000), 1 + draw(2)));
  }
  return bodies;
}

/// Text, log-probabilities and why it ended: all that says what was computed.
std::string essence(const DemoServer& server, const RawResponse& response) {
  if (response.status != 200) return response.body;
  return boost::json::serialize(server.json(response).at("choices"));
}

/// Asks for each body in a random order over several connections at once.
std::vector<std::string> ask_together(const DemoServer& server,
                                      const std::vector<std::string>& bodies,
                                      std::mt19937& random) {
  std::vector<size_t> order(bodies.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), random);
  std::vector<std::string> answers(bodies.size());
  std::atomic<size_t> next = 0;
  std::vector<std::jthread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      for (size_t at = next++; at < order.size(); at = next++) {
        answers[order[at]] = essence(server, server.post("/v1/completions", bodies[order[at]]));
      }
    });
  }
  clients.clear();
  return answers;
}

class ExactnessTest : public testing::TestWithParam<std::string> {};

TEST_P(ExactnessTest, AnswersAsItDoesAlone) {
  std::mt19937 random(7);
  const std::vector<std::string> bodies = make_bodies(random, 24);
  std::vector<std::string> alone;
  {
    const DemoServer server({"kv_cache.prefix_cache=false"});
    for (const std::string& body : bodies) {
      alone.push_back(essence(server, server.post("/v1/completions", body)));
    }
  }
  // Little memory: sequences are preempted, cached prefixes given up.
  const DemoServer server({GetParam(), "kv_cache.block_size=16", "kv_cache.bytes=3MiB",
                           "execution.max_batch_size=8", "execution.max_tokens_per_step=64",
                           "kv_cache.max_context=256"});
  for (int round = 0; round < 2; ++round) {
    const std::vector<std::string> together = ask_together(server, bodies, random);
    for (size_t i = 0; i < bodies.size(); ++i) EXPECT_EQ(together[i], alone[i]) << bodies[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Settings,
                         ExactnessTest,
                         testing::Values("schedule.policy=fcfs",
                                         "schedule.policy=lpm",
                                         "schedule.policy=priority",
                                         "schedule.fair_queueing=true",
                                         "kv_cache.prefix_cache=false",
                                         "cache.experts.device_bytes=4608KiB"));

}  // namespace
}  // namespace augur::server
