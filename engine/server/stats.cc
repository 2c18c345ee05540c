#include "engine/server/stats.h"

#include <fmt/format.h>
#include <unistd.h>
#include <boost/json/serialize.hpp>

#include <cmath>
#include <fstream>
#include <span>

#include "engine/model/expert_metrics.h"

namespace augur::server {
namespace {

// Between steps no expert is in use; a snapshot taken inside one shows who is.
char state_of(const ExpertPool& pool, ExpertKey key) {
  if (pool.is_resident(key)) return pool.num_leases(key) > 0 ? '3' : '2';
  return pool.is_fetching(key) ? '1' : '0';
}

ExpertLayerStats layer_stats(const ExpertView& view, int layer) {
  ExpertLayerStats stats;
  stats.layer = layer;
  stats.counts = view.counters.layer(layer);
  for (int expert = 0; expert < view.pool.shape().num_experts; ++expert) {
    const ExpertKey key{layer, expert};
    const ExpertHistory& history = view.counters.history(key);
    stats.states += state_of(view.pool, key);
    stats.uses.push_back(history.num_uses);
    stats.hits.push_back(history.num_hits);
    stats.prefetches.push_back(history.num_prefetches);
  }
  return stats;
}

/// Writes one object; nested ones are members whose text is made by another.
class JsonObject {
 public:
  JsonObject& add(std::string_view name, int64_t value) {
    return add_raw(name, std::to_string(value));
  }
  JsonObject& add(std::string_view name, double value) {
    return add_raw(name, std::isfinite(value) ? fmt::format("{:.9g}", value) : "null");
  }
  JsonObject& add(std::string_view name, const std::string& value) {
    return add_raw(name, boost::json::serialize(boost::json::string_view(value)));
  }
  JsonObject& add(std::string_view name, std::span<const int64_t> values) {
    return add_raw(name, fmt::format("[{}]", fmt::join(values, ",")));
  }
  JsonObject& add_raw(std::string_view name, std::string_view json) {
    fmt::format_to(std::back_inserter(text_), "{}\"{}\":{}", text_.empty() ? "" : ",", name, json);
    return *this;
  }
  std::string close() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

/// "null" where there is nothing.
template <typename T, typename ToJson>
std::string json_or_null(const std::optional<T>& value, const ToJson& to_json) {
  return value ? to_json(*value) : "null";
}

std::string counts_json(const ExpertUseCounts& counts) {
  JsonObject misses;
  for (int i = 0; i < kNumMissCauses; ++i)
    misses.add(name_of(static_cast<MissCause>(i)), counts.misses[i]);
  return JsonObject()
      .add("uses", counts.num_uses)
      .add("hits", counts.num_hits)
      .add_raw("misses", misses.close())
      .add("prefetches", counts.num_prefetches)
      .add("useful_prefetches", counts.num_useful_prefetches)
      .add("wasted_prefetches", counts.num_wasted_prefetches)
      .close();
}

std::string layer_json(const ExpertLayerStats& layer) {
  return JsonObject()
      .add("layer", int64_t{layer.layer})
      .add("states", layer.states)
      .add("uses", layer.uses)
      .add("hits", layer.hits)
      .add("prefetches", layer.prefetches)
      .add_raw("counts", counts_json(layer.counts))
      .close();
}

std::string experts_json(const ExpertStats& experts) {
  std::string layers;
  for (const ExpertLayerStats& layer : experts.layers) {
    if (!layers.empty()) layers += ',';
    layers += layer_json(layer);
  }
  return JsonObject()
      .add("num_experts", int64_t{experts.num_experts})
      .add("num_slots", int64_t{experts.num_slots})
      .add("num_fetching", int64_t{experts.num_fetching})
      .add("slot_bytes", experts.slot_bytes)
      .add_raw("counts", counts_json(experts.counts))
      .add("demand_bytes", experts.demand_bytes)
      .add("useful_prefetch_bytes", experts.useful_prefetch_bytes)
      .add("wasted_prefetch_bytes", experts.wasted_prefetch_bytes)
      .add("num_failed_fetches", experts.num_failed_fetches)
      .add("stall_s", experts.stall_s)
      .add_raw("layers", "[" + layers + "]")
      .close();
}

std::string loading_json(const Stats::Loading& loading) {
  JsonObject object;
  object.add("phase", loading.phase);
  object.add("share", loading.share.value_or(std::nan("")));
  return object.close();
}

std::string percentiles_json(const Percentiles& times) {
  return JsonObject()
      .add("num_samples", times.num_samples)
      .add("p50_s", times.p50_s)
      .add("p90_s", times.p90_s)
      .add("p99_s", times.p99_s)
      .close();
}

std::string requests_json(const Stats::Requests& requests) {
  return JsonObject()
      .add("running", requests.running)
      .add("waiting", requests.waiting)
      .add("finished", requests.finished)
      .add("aborted", requests.aborted)
      .add("failed", requests.failed)
      .add("refused", requests.refused)
      .close();
}

std::string queue_json(const Stats::Queue& queue) {
  return JsonObject()
      .add("requests", queue.requests)
      .add("max_requests", queue.max_requests)
      .add("tokens", queue.tokens)
      .add("max_tokens", queue.max_tokens)
      .close();
}

std::string kv_json(const Stats::KvCache& kv) {
  return JsonObject()
      .add("block_tokens", kv.block_tokens)
      .add("total_blocks", kv.total_blocks)
      .add("free_blocks", kv.free_blocks)
      .add("cached_blocks", kv.cached_blocks)
      .add("prefix_query_tokens", kv.prefix_query_tokens)
      .add("prefix_hit_tokens", kv.prefix_hit_tokens)
      .add("preemptions", kv.preemptions)
      .close();
}

}  // namespace

std::string_view name_of(ServerState state) {
  switch (state) {
    case ServerState::kLoading:
      return "loading";
    case ServerState::kReady:
      return "ready";
    case ServerState::kDraining:
      return "draining";
    case ServerState::kFailed:
      return "failed";
  }
  return "unknown";
}

ExpertStats stats_of(const ExpertView& view) {
  const ExpertCounters& counters = view.counters;
  ExpertStats stats;
  stats.num_experts = view.pool.shape().num_experts;
  stats.num_slots = view.pool.shape().num_slots;
  stats.num_fetching = view.pool.num_fetching();
  stats.slot_bytes = view.slot_bytes;
  stats.counts = counters.total();
  stats.demand_bytes = counters.demand_bytes();
  stats.useful_prefetch_bytes = counters.useful_prefetch_bytes;
  stats.wasted_prefetch_bytes = counters.wasted_prefetch_bytes;
  stats.num_failed_fetches = counters.num_failed_fetches;
  stats.stall_s = static_cast<double>(counters.stall_us) * 1e-6;
  for (const int layer : view.moe_layers) stats.layers.push_back(layer_stats(view, layer));
  return stats;
}

std::string to_json(const Stats& stats) {
  return JsonObject()
      .add("state", std::string(name_of(stats.state)))
      .add("model", stats.model)
      .add("version", stats.version)
      .add("uptime_s", stats.uptime_s)
      .add_raw("loading", json_or_null(stats.loading, loading_json))
      .add_raw("tokens", JsonObject()
                             .add("prompt", stats.tokens.prompt)
                             .add("generated", stats.tokens.generated)
                             .close())
      .add_raw("requests", requests_json(stats.requests))
      .add_raw("queue", queue_json(stats.queue))
      .add_raw("kv", kv_json(stats.kv))
      .add_raw("ttft", json_or_null(stats.ttft, percentiles_json))
      .add_raw("inter_token", json_or_null(stats.inter_token, percentiles_json))
      .add_raw("resident_bytes", json_or_null(stats.resident_bytes,
                                              [](int64_t bytes) { return std::to_string(bytes); }))
      .add_raw("experts", json_or_null(stats.experts, experts_json))
      .close();
}

std::optional<int64_t> resident_bytes_of_process() {
  std::ifstream file("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  if (!(file >> total_pages >> resident_pages)) return std::nullopt;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

}  // namespace augur::server
