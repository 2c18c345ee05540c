// The program as people run it: augur-score with the demo model, in a process of its own.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <boost/json/parse.hpp>

#include <chrono>
#include <thread>
#include <vector>

#include "cache/routing_trace.h"
#include "tests/temp_folder.h"
#include "tools/random_checkpoint.h"

namespace augur::score {
namespace {

using testing::HasSubstr;

constexpr const char* kDemoModel = AUGUR_SOURCE_DIR "/models/tiny-glm4-moe";

class ProgramTest : public testing::Test {
 protected:
  /// Starts the program with stdout and stderr in files. Returns its process id.
  pid_t start(std::vector<std::string> arguments, const std::string& model = kDemoModel) {
    arguments.insert(arguments.begin(),
                     {AUGUR_SCORE_PROGRAM, "--model", model, "--set", "kv_cache.bytes=64MiB"});
    fflush(nullptr);  // or the child would write what is buffered a second time
    const pid_t child = fork();
    if (child != 0) return child;
    const bool is_redirected = freopen(folder_.file("stdout").c_str(), "w", stdout) != nullptr &&
                               freopen(folder_.file("stderr").c_str(), "w", stderr) != nullptr;
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    if (is_redirected) execv(AUGUR_SCORE_PROGRAM, argv.data());
    _exit(127);
  }
  static int wait_for(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int run(const std::vector<std::string>& arguments) { return wait_for(start(arguments)); }
  std::string in(const std::string& text) { return folder_.write("in.jsonl", text); }
  std::string out() const { return folder_.file("out.jsonl"); }
  boost::json::value row(size_t index) const {
    std::istringstream rows(folder_.read("out.jsonl"));
    std::string line;
    for (size_t i = 0; i <= index; ++i) std::getline(rows, line);
    return boost::json::parse(line);
  }
  TempFolder folder_;
};

TEST_F(ProgramTest, ScoresText) {
  const std::string input =
      in("{\"id\":\"likely\",\"text\":\"The capital of France is Paris.\"}\n"
         "{\"id\":\"less\",\"text\":\"The capital of France is Lard.\"}\n");
  EXPECT_EQ(run({"-i", input, "-o", out(), "--summary", folder_.file("summary")}), 0)
      << folder_.read("stderr");
  EXPECT_GT(row(0).at("logprob_sum").to_number<double>(),
            row(1).at("logprob_sum").to_number<double>() + 3);
  const boost::json::value summary = boost::json::parse(folder_.read("summary"));
  EXPECT_EQ(summary.at("documents"), 2);
  EXPECT_EQ(summary.at("is_complete"), true);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("bytes: 64MiB"));
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("# --set"));
}

// Its figures could pass for an answer: the last thing it says is that they are none.
TEST_F(ProgramTest, ClosesWithAWarningWhereRoutingWasForced) {
  std::string trace = "step,turn,phase,position,layer,experts\n";
  for (int layer = 1; layer < 7; ++layer) {
    trace += "0,0,0,0," + std::to_string(layer) + ",3 1 4 15\n";
  }
  const std::string input = in("{\"id\":1,\"text\":\"The capital of France is Paris.\"}\n");
  const std::string setting =
      "execution.routing_trace=" + folder_.write("trace.csv", trace).string();
  EXPECT_EQ(run({"-i", input, "-o", out(), "--set", setting}), 0) << folder_.read("stderr");
  std::istringstream lines(folder_.read("stderr"));
  std::string last;
  for (std::string line; std::getline(lines, line);) last = line;
  EXPECT_THAT(last, HasSubstr("the output is meaningless"));
  EXPECT_EQ(run({"-i", input, "-o", out(), "--resume"}), 1) << "not to be mixed with true ones";
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("routing_trace"));
  folder_.write("trace.csv", "step,turn,phase,position,layer,experts\n0,0,0,0,1,3 1 4 15\n");
  EXPECT_EQ(run({"-i", input, "-o", folder_.file("other"), "--set", setting}), 1);
  EXPECT_THAT(folder_.read("stderr"),
              HasSubstr("routing of layers: 1; accepted: at least the model's 6"));
}

TEST_F(ProgramTest, AnswersAndContinues) {
  const std::string input = in(
      "{\"id\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Name the capital of Japan.\"}]}\n"
      "{\"id\":2,\"prompt\":\"The capital of France is\"}\n");
  EXPECT_EQ(run({"-i", input, "-o", out(), "--mode", "generate", "--temperature", "0", "--stop",
                 ".", "--max-tokens", "20"}),
            0)
      << folder_.read("stderr");
  EXPECT_THAT(std::string(row(0).at("text").as_string()), HasSubstr("Tokyo"));
  EXPECT_EQ(row(1).at("text"), " Paris");
  EXPECT_EQ(row(1).at("finish_reason"), "stop");
}

TEST_F(ProgramTest, WritesRowsAndNothingElseToStandardOutput) {
  EXPECT_EQ(run({"-i", in("{\"text\":\"abc\"}\nbad\n"), "-o", "-"}), 2);
  const std::string rows = folder_.read("stdout");
  EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 1);
  EXPECT_EQ(boost::json::parse(rows).at("id"), 1);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("warning: bad line: {\"line\":2"));
}

TEST_F(ProgramTest, EndsWithItsDocumentedStatus) {
  const std::string input = in("{\"text\":\"abc\"}\n");
  EXPECT_EQ(run({"-i", input}), 1);
  EXPECT_EQ(run({"-i", folder_.file("absent"), "-o", out()}), 1);
  EXPECT_EQ(run({"-i", input, "-o", out(), "--set", "execution.isa=sse"}), 1);
  EXPECT_EQ(run({"-i", input, "-o", out(), "--set", "model.path=" + folder_.file("")}), 0)
      << "--model counts after --set";
  EXPECT_EQ(run({"-i", input, "-o", out()}), 1) << "the output is there";
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("--overwrite starts anew"));
  EXPECT_EQ(run({"-i", input, "-o", "/dev/full"}), 3);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("No space left on device"));
  EXPECT_EQ(run({"-i", in("bad\n{\"text\":\"abc\"}\n"), "-o", out(), "--overwrite", "--strict"}),
            2);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("in.jsonl:1: is not valid JSON"));
}

TEST_F(ProgramTest, SettingsThatNoLineCouldRunWithAreRefusedAtOnce) {
  EXPECT_EQ(
      run({"-i", in("{\"text\":\"abc\"}\n"), "-o", out(), "--mode", "generate", "--top-p", "1.5"}),
      1);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("top_p is 1.5"));
}

TEST_F(ProgramTest, PrintsAConfigurationThatItReads) {
  EXPECT_EQ(run({"--print-config"}), 0);
  const std::string file = folder_.write("config.yaml", folder_.read("stdout"));
  EXPECT_EQ(run({"--print-config", "--config", file}), 0);
  EXPECT_THAT(folder_.read("stdout"), HasSubstr("# " + file));
}

TEST_F(ProgramTest, GoesOnWhereASignalStoppedIt) {
  std::string documents;
  for (int i = 0; i < 400; ++i)
    documents +=
        "{\"id\":" + std::to_string(i) + ",\"prompt\":\"Number " + std::to_string(i) + " is\"}\n";
  const std::vector<std::string> arguments = {"-i",
                                              in(documents),
                                              "-o",
                                              out(),
                                              "--mode",
                                              "generate",
                                              "--temperature",
                                              "1",
                                              "--resume",
                                              "--max-tokens",
                                              "40",
                                              "--ignore-eos",
                                              "--set",
                                              "execution.max_batch_size=8"};
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    const pid_t child = start(arguments);
    // Long enough that some rows stand in the output (they are flushed once a second).
    const auto size_before = folder_.read("out.jsonl").size();
    for (int i = 0; i < 600 && folder_.read("out.jsonl").size() <= size_before; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, signal);
    const int status = wait_for(child);
    if (status == 0) break;  // a fast machine is done before
    EXPECT_EQ(status, signal == SIGKILL ? -SIGKILL : 128 + signal) << folder_.read("stderr");
    if (signal != SIGKILL) {
      EXPECT_THAT(folder_.read("stderr"), HasSubstr("interrupted; go on with: "));
    }
  }
  EXPECT_EQ(run(arguments), 0) << folder_.read("stderr");
  const std::string resumed = folder_.read("out.jsonl");
  EXPECT_EQ(std::count(resumed.begin(), resumed.end(), '\n'), 400);
  std::vector<std::string> again = arguments;
  std::replace(again.begin(), again.end(), std::string("--resume"), std::string("--overwrite"));
  EXPECT_EQ(run(again), 0);
  EXPECT_EQ(folder_.read("out.jsonl"), resumed);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

constexpr std::string_view kMediumModel = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
  "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
  "head_dim": 64, "vocab_size": 8192, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
  "intermediate_size": 1024, "moe_intermediate_size": 512, "num_experts": 16,
  "num_experts_per_tok": 4, "norm_topk_prob": true, "rope_theta": 1000000.0
})";

// What a person is promised: the weights, the cache as planned (which the prefix cache fills), and
// 200 MB for all the rest, with 50 more for the libraries of CUDA where they are linked.
TEST_F(ProgramTest, StaysWithinItsMemory) {
  if (kIsSanitized) GTEST_SKIP() << "a sanitizer needs memory of its own";
  const RandomCheckpointReport checkpoint =
      write_random_checkpoint({.output = folder_.file("model"),
                               .config_json = kMediumModel,
                               .config_name = "kMediumModel",
                               .shard_bytes = int64_t{1} << 30,
                               .num_threads = 2,
                               .tokenizer = kDemoModel});
  ASSERT_GT(checkpoint.num_bytes, 200'000'000);
  // Long prompts in full batches: every buffer is touched.
  std::string documents;
  for (int i = 0; i < 24; ++i) {
    std::string text;
    for (int word = 0; word < 500; ++word) text += " word" + std::to_string(word * (i + 1));
    documents += "{\"text\":\"" + text + "\"}\n";
  }
  const pid_t child = start({"-i", in(documents), "-o", out(), "--max-tokens-per-document", "1000"},
                            folder_.file("model"));
  int status = 0;
  rusage usage = {};
  wait4(child, &status, 0, &usage);
  ASSERT_EQ(status, 0) << folder_.read("stderr");
  const int64_t kv_bytes = int64_t{64} << 20;
  EXPECT_LT(usage.ru_maxrss * int64_t{1024}, checkpoint.num_bytes + kv_bytes + 250'000'000);
}

/// A third of the demo model's 192 experts.
const std::vector<std::string> kSmallPool = {"--set", "cache.experts.device_bytes=6MiB"};

std::vector<std::string> with(std::vector<std::string> arguments,
                              const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string prompts(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "{\"text\":\"Number " + std::to_string(i) + " is\"}\n";
  return text;
}

TEST_F(ProgramTest, ExpertsThatDoNotAllFitGiveTheSameRowsAndAreReported) {
  const std::vector<std::string> arguments = {"-i",     in(prompts(12)), "-o",           out(),
                                              "--mode", "generate",      "--max-tokens", "8"};
  ASSERT_EQ(run(arguments), 0) << folder_.read("stderr");
  const std::string rows = folder_.read("out.jsonl");
  EXPECT_THAT(folder_.read("stderr"), testing::Not(HasSubstr("waited for experts")));
  ASSERT_EQ(run(with(with(arguments, kSmallPool),
                     {"--overwrite", "--summary", folder_.file("summary.json"), "--expert-report",
                      folder_.file("experts")})),
            0)
      << folder_.read("stderr");
  EXPECT_EQ(folder_.read("out.jsonl"), rows);

  EXPECT_THAT(folder_.read("stderr"),
              testing::AllOf(HasSubstr("found theirs in the pool of 64 of 192"),
                             HasSubstr("experts missed: 1"), HasSubstr("MB on demand"),
                             HasSubstr("waited for experts: ")));
  const boost::json::value summary = boost::json::parse(folder_.read("summary.json"));
  const boost::json::value report = boost::json::parse(folder_.read("experts.json"));
  EXPECT_EQ(report.at("model"), "tiny-glm4-moe");
  EXPECT_EQ(report.at("layers").as_array().size(), 6u);
  int64_t num_uses = 0;
  for (const boost::json::value& layer : report.at("layers").as_array()) {
    EXPECT_EQ(layer.at("experts").as_array().size(), 32u);
    for (const boost::json::value& expert : layer.at("experts").as_array())
      num_uses += expert.at("uses").as_int64();
  }
  EXPECT_GT(num_uses, 500);
  EXPECT_EQ(num_uses, summary.at("experts").at("expert_uses").as_int64());
  for (const auto& [name, value] : summary.at("experts").as_object())
    EXPECT_EQ(report.at("metrics").at(name), value) << name;
  EXPECT_TRUE(folder_.read("experts.svg").ends_with("</svg>\n"));
}

TEST_F(ProgramTest, RecordsTheRoutingOfEveryTokenAndLayer) {
  ASSERT_EQ(run(with({"-i", in(prompts(5)), "-o", out(), "--record-routing", folder_.file("trace")},
                     kSmallPool)),
            0)
      << folder_.read("stderr");
  int64_t num_tokens = 0;
  // The last token of a text predicts nothing, so it is not computed.
  for (int i = 0; i < 5; ++i) num_tokens += row(i).at("num_tokens").as_int64() - 1;
  const RoutingTrace trace = read_routing_trace(folder_.file("trace"));
  EXPECT_EQ(trace.tokens.size(), static_cast<size_t>(num_tokens));
  EXPECT_EQ(trace.num_layers, 6);
  EXPECT_EQ(trace.top_k(), 4);
  const std::string text = folder_.read("trace");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3 + 6 * num_tokens);
  for (const TracedToken& token : trace.tokens) EXPECT_EQ(token.experts_of.size(), 6u);
  EXPECT_THAT(text, HasSubstr("# model tiny-glm4-moe\n"));
}

TEST_F(ProgramTest, ATraceThatCannotBeWrittenEndsTheRunAsItsOutputWould) {
  EXPECT_EQ(run({"-i", in(prompts(3)), "-o", out(), "--record-routing", "/dev/full"}), 3);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("/dev/full: cannot be written: No space left"));
  EXPECT_EQ(run({"-i", folder_.file("in.jsonl"), "-o", out(), "--resume"}), 0)
      << folder_.read("stderr");
  const std::string rows = folder_.read("out.jsonl");
  EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 3);
}

// A disk that fills up while the run goes on: both files end with whole lines.
TEST_F(ProgramTest, ATraceThatStopsShortIsStillATrace) {
  const std::string input = in(prompts(40));
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {.rlim_cur = 20'001, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const pid_t child = start({"-i", input, "-o", out(), "--record-routing", folder_.file("trace"),
                             "--set", "execution.max_tokens_per_step=64"});
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(wait_for(child), 3) << folder_.read("stderr");
  const std::string text = folder_.read("trace");
  EXPECT_GT(text.size(), 10'000u);
  EXPECT_EQ(text.back(), '\n');
  EXPECT_GT(read_routing_trace(folder_.file("trace")).tokens.size(), 10u);
  const std::string rows = folder_.read("out.jsonl");
  EXPECT_TRUE(rows.empty() || rows.back() == '\n');
}

TEST_F(ProgramTest, RefusesAReportOfExpertsThatAllStayInMemory) {
  EXPECT_EQ(run({"-i", in(prompts(1)), "-o", out(), "--expert-report", folder_.file("e")}), 1);
  EXPECT_THAT(folder_.read("stderr"),
              testing::AllOf(HasSubstr("--expert-report: all experts stay in memory"),
                             HasSubstr("cache.experts.device_bytes"),
                             testing::Not(HasSubstr("loaded in"))));
  EXPECT_FALSE(folder_.has("out.jsonl")) << "nothing was begun";
}

TEST_F(ProgramTest, RefusesToRecordOverItsInput) {
  const std::string input = in(prompts(2));
  EXPECT_EQ(run({"-i", input, "-o", out(), "--record-routing", input}), 1);
  EXPECT_EQ(folder_.read("in.jsonl"), prompts(2));
}

TEST_F(ProgramTest, RefusesACacheLargerThanTheMemory) {
  EXPECT_EQ(
      run({"-i", in("{\"text\":\"a\"}\n"), "-o", out(), "--set", "kv_cache.bytes=1000000GiB"}), 1);
  EXPECT_THAT(folder_.read("stderr"), HasSubstr("does not fit into memory"));
  EXPECT_FALSE(folder_.has("out.jsonl") && !folder_.read("out.jsonl").empty());
}

}  // namespace
}  // namespace augur::score
