// A model whose experts do not all fit answers as the one that holds them all, bit for bit.
#include "engine/model/expert_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "configs/config_error.h"
#include "engine/model/model_loader.h"
#include "engine/schedule/engine.h"
#include "prefetch/packed_writer.h"
#include "tests/model/random_steps.h"
#include "tests/model/small_checkpoint.h"
#include "tests/model/store_fetcher.h"

namespace augur {
namespace {

using test::RandomSteps;
using test::StoreFetcher;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Four layers of experts, 20 of them, top 3; the first layer is dense.
struct SmallModel {
  static constexpr std::string_view kConfigJson = R"({
  "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "hidden_act": "silu",
  "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32, "n_routed_experts": 20,
  "n_shared_experts": 1, "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 1,
  "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0, "vocab_size": 96,
  "partial_rotary_factor": 0.5, "attention_bias": false, "use_qk_norm": true,
  "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "num_nextn_predict_layers": 0,
  "eos_token_id": 2})";
};
constexpr int kMoeLayers = 4;
constexpr int kExperts = 20;
constexpr int kTopK = 3;

// Whoever the draw says goes first.
class RandomPolicy final : public EvictionPolicy {
 public:
  RandomPolicy(int num_slots, uint64_t seed)
      : EvictionPolicy(num_slots), is_filled_(num_slots), random_(seed) {}

  int choose_victim(const std::function<bool(int slot)>& is_evictable) const override {
    std::vector<int> admitted;
    for (size_t slot = 0; slot < is_filled_.size(); ++slot) {
      if (is_filled_[slot] && is_evictable(static_cast<int>(slot))) {
        admitted.push_back(static_cast<int>(slot));
      }
    }
    return admitted.empty() ? -1 : admitted[random_() % admitted.size()];
  }

 private:
  void filled(int slot, ExpertKey) override { is_filled_[slot] = true; }
  void used(int, ExpertKey, int64_t) override {}
  void unneeded(int, ExpertKey) override {}
  void evicted(int slot, ExpertKey) override { is_filled_[slot] = false; }

  std::vector<bool> is_filled_;
  mutable std::mt19937_64 random_;
};

enum class Policy { kLru, kLfu, kLeastStale, kRandom };

struct Case {
  PrecisionChoice precision = PrecisionChoice::kBF16;
  int num_slots = 0;
  Policy policy = Policy::kLru;
  bool prefetches = false;
  bool reads_files = false;  // by the loader, with its threads; otherwise by a fetcher that ends
                             // fetches in random order
  uint64_t seed = 0;
};

class ExpertMemoryTest : public test::SmallCheckpointTest<SmallModel> {
 protected:
  static std::unique_ptr<LoadedModel> load_pooled(const Case& test) {
    EngineConfig pooled = config(test.precision);
    pooled.cache.experts.device_bytes = int64_t{1} << 30;  // as many as there are; see below
    pooled.prefetch.enabled = test.prefetches;
    pooled.prefetch.adapts = false;
    LoadListener listener;
    listener.on_expert_memory = [&](ExpertMemory::Parts& parts, const ExpertStore& store,
                                    const Ops& ops) {
      parts.num_slots = test.num_slots;
      parts.make_policy = [&](int num_slots, double) -> std::unique_ptr<EvictionPolicy> {
        switch (test.policy) {
          case Policy::kLru:
            return make_lru_policy(num_slots);
          case Policy::kLfu:
            return make_lfu_policy(num_slots, 50);
          case Policy::kLeastStale:
            return make_least_stale_policy(num_slots);
          case Policy::kRandom:
            break;
        }
        return std::make_unique<RandomPolicy>(num_slots, test.seed);
      };
      if (test.reads_files) return;
      parts.make_fetcher = [&](const SlotMemory& slots) {
        return std::make_unique<StoreFetcher>(store, ops, slots, test.seed);
      };
    };
    return load_model(pooled, listener);
  }

  /// Runs the same random steps on both and compares every logit.
  static void expect_same_logits(LoadedModel& resident, const Case& test, int num_steps) {
    const std::unique_ptr<LoadedModel> pooled = load_pooled(test);
    RandomSteps steps(resident.decoder->limits(), test.seed);
    std::vector<LogitResult> expected, actual;
    for (int i = 0; i < num_steps; ++i) {
      const StepBatch batch = steps.next();
      resident.decoder->run(batch, expected);
      pooled->decoder->run(batch, actual);
      const Tensor& a = resident.decoder->last_logits();
      const Tensor& b = pooled->decoder->last_logits();
      ASSERT_EQ(a.num_rows, batch.num_tokens()) << "all rows are compared";
      ASSERT_EQ(a.num_rows, b.num_rows);
      ASSERT_EQ(0, std::memcmp(a.data, b.data, a.num_rows * a.num_cols * sizeof(float)))
          << "step " << i << ", " << test.num_slots << " slots, seed " << test.seed;
    }
    const ExpertUseCounts total = pooled->weights.expert_memory->counters().total();
    EXPECT_GT(total.num_uses, 0);
    EXPECT_GE(total.num_misses(), std::min(test.num_slots, kExperts));
    EXPECT_TRUE(test.prefetches || total.num_prefetches == 0);
    num_prefetches_ += total.num_prefetches;
    num_useful_prefetches_ += total.num_useful_prefetches;
  }

  // Of all models of a test.
  static inline int64_t num_prefetches_ = 0;
  static inline int64_t num_useful_prefetches_ = 0;
};
// Thousands of steps in all: every precision, pools from one layer's need to everything, each
// policy and random eviction, with prefetching and without, fetches ending in any order.
TEST_F(ExpertMemoryTest, GivesTheBitsOfTheResidentModelWhateverThePool) {
  uint64_t seed = 100;
  num_prefetches_ = num_useful_prefetches_ = 0;
  for (const PrecisionChoice precision : {PrecisionChoice::kBF16, PrecisionChoice::kReference}) {
    const std::unique_ptr<LoadedModel> resident = load_model(config(precision), {});
    for (const int num_slots : {kTopK, kTopK + 1, kMoeLayers * kTopK, kMoeLayers * kExperts / 4,
                                kMoeLayers * kExperts / 2, kMoeLayers * kExperts}) {
      for (const Policy policy :
           {Policy::kLru, Policy::kLfu, Policy::kLeastStale, Policy::kRandom}) {
        for (const bool prefetches : {false, true}) {
          expect_same_logits(*resident,
                             {.precision = precision,
                              .num_slots = num_slots,
                              .policy = policy,
                              .prefetches = prefetches,
                              .seed = ++seed},
                             /*num_steps=*/24);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(num_prefetches_, 1000) << "prefetching was tested";
  EXPECT_GT(num_useful_prefetches_, 100);
}

TEST_F(ExpertMemoryTest, GivesTheSameBitsWhenItReadsFiles) {
  const std::unique_ptr<LoadedModel> resident = load_model(config(PrecisionChoice::kBF16), {});
  num_prefetches_ = num_useful_prefetches_ = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    expect_same_logits(*resident,
                       {.num_slots = static_cast<int>(kTopK + seed * 5),
                        .policy = static_cast<Policy>(seed % 4),
                        .prefetches = seed % 2 == 0,
                        .reads_files = true,
                        .seed = seed},
                       /*num_steps=*/24);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(num_prefetches_, 0);
}

// Packed experts are read as they are, and only with the checkpoint they were made from.
TEST_F(ExpertMemoryTest, GivesTheSameBitsFromAPackedFile) {
  const std::unique_ptr<LoadedModel> resident = load_model(config(PrecisionChoice::kBF16), {});
  const std::filesystem::path packed = *folder_ / "experts.packed";
  EngineConfig pooled = config(PrecisionChoice::kBF16);
  pooled.cache.experts.device_bytes = 300 << 10;
  write_packed_file(packed, *load_model(pooled, {})->expert_store, *resident->ops, {});
  pooled.cache.experts.packed_file = packed.string();
  pooled.cache.experts.verify = true;
  const std::unique_ptr<LoadedModel> model = load_model(pooled, {});
  RandomSteps steps(resident->decoder->limits(), /*seed=*/5);
  std::vector<LogitResult> expected, actual;
  for (int i = 0; i < 60; ++i) {
    const StepBatch batch = steps.next();
    resident->decoder->run(batch, expected);
    model->decoder->run(batch, actual);
    const Tensor& a = resident->decoder->last_logits();
    ASSERT_EQ(0, std::memcmp(a.data, model->decoder->last_logits().data,
                             a.num_rows * a.num_cols * sizeof(float)));
  }
  pooled.model.path = (std::filesystem::path(AUGUR_SOURCE_DIR) / "models/tiny-glm4-moe").string();
  EXPECT_THROW(load_model(pooled, {}), ConfigError);
}

TEST_F(ExpertMemoryTest, IsPlannedAndTold) {
  EngineConfig pooled = config(PrecisionChoice::kBF16);
  pooled.cache.experts.device_bytes = 300 << 10;
  std::string told;
  LoadListener listener;
  listener.on_message = [&](const std::string& line) { told += line + "\n"; };
  const std::unique_ptr<LoadedModel> model = load_model(pooled, listener);
  EXPECT_THAT(told, AllOf(HasSubstr("pool of 25 of 80 experts (31 %)"),
                          HasSubstr("weights but for the experts")));
  const std::unique_ptr<LoadedModel> resident = load_model(config(PrecisionChoice::kBF16), {});
  EXPECT_EQ(model->memory.total_bytes(), resident->memory.total_bytes() - (80 - 25) * (12 << 10));
}

TEST_F(ExpertMemoryTest, RefusesAPoolThatCannotHoldAToken) {
  EngineConfig pooled = config(PrecisionChoice::kBF16);
  pooled.cache.experts.device_bytes = 30 << 10;
  EXPECT_THAT(message_of<ConfigError>([&] { load_model(pooled, {}); }),
              AllOf(HasSubstr("cache.experts.device_bytes"), HasSubstr("30.0 KiB holds 2 experts"),
                    HasSubstr("at least 36.0 KiB")));
}

// Who needs the expert that cannot be read gets an error; the others get what they always get.
TEST_F(ExpertMemoryTest, AnExpertThatCannotBeReadFailsOnlyThoseWhoNeedIt) {
  class BrokenFetcher final : public ExpertFetcher {
   public:
    BrokenFetcher(std::unique_ptr<ExpertFetcher> inner, ExpertKey broken)
        : inner_(std::move(inner)), broken_(broken) {}
    void start(ExpertKey key, int slot, FetchPriority priority) override {
      inner_->start(key, slot, priority);
    }
    void raise(int slot, FetchPriority priority) override { inner_->raise(slot, priority); }
    void cancel(int slot) override { inner_->cancel(slot); }
    std::span<const FetchEnd> take_ended(bool wait) override {
      const auto ended = inner_->take_ended(wait);
      ended_.assign(ended.begin(), ended.end());
      for (FetchEnd& end : ended_) {
        if (end.key == broken_) end = {end.key, end.slot, FetchOutcome::kFailed, 0, "no such disk"};
      }
      return ended_;
    }

   private:
    const std::unique_ptr<ExpertFetcher> inner_;
    const ExpertKey broken_;
    std::vector<FetchEnd> ended_;
  };

  const std::unique_ptr<LoadedModel> resident = load_model(config(PrecisionChoice::kBF16), {});
  EngineConfig pooled = config(PrecisionChoice::kBF16);
  pooled.cache.experts.device_bytes = 300 << 10;
  LoadListener listener;
  listener.on_expert_memory = [](ExpertMemory::Parts& parts, const ExpertStore&, const Ops&) {
    parts.make_fetcher = [inner = parts.make_fetcher](const SlotMemory& slots) {
      return std::make_unique<BrokenFetcher>(inner(slots), ExpertKey{3, 7});
    };
  };
  const std::unique_ptr<LoadedModel> broken = load_model(pooled, listener);

  const auto answers = [](LoadedModel& model) {
    std::map<std::string, RequestResult> results;
    Engine engine({.max_batch_size = 6, .max_tokens_per_step = 64}, *model.decoder, nullptr);
    for (int i = 0; i < 12; ++i) {
      Request request{.id = std::to_string(i), .prompt_ids = {i + 3, 2 * i + 5}};
      request.sampling = {.max_tokens = 4, .temperature = 0, .ignore_eos = true};
      request.on_finished = [&](RequestResult&& result) { results[result.id] = std::move(result); };
      engine.submit(std::move(request));
    }
    while (engine.step()) continue;
    return results;
  };
  const auto expected = answers(*resident);
  const auto actual = answers(*broken);
  int num_failed = 0;
  for (const auto& [id, result] : actual) {
    if (result.error.empty()) {
      EXPECT_EQ(result.completions[0].output_ids, expected.at(id).completions[0].output_ids);
    } else {
      ++num_failed;
      EXPECT_EQ(result.error, "no such disk");
    }
  }
  EXPECT_GT(num_failed, 0);
  EXPECT_LT(num_failed, 12);
}

}  // namespace
}  // namespace augur
