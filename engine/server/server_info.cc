#include "engine/server/server_info.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "configs/engine_config.h"

namespace augur::server {
namespace {

namespace json = boost::json;

json::object limits_object(const ModelRunner::Limits& limits) {
  json::object object;
  object["max_context"] = limits.max_context;
  object["max_batch_size"] = limits.max_seqs;
  object["max_tokens_per_step"] = limits.max_tokens;
  object["num_kv_blocks"] = limits.num_kv_blocks;
  object["kv_block_size"] = limits.block_size;
  object["vocab_size"] = limits.vocab_size;
  return object;
}

// What SGLang's benchmarks read of each scheduler; here there is one.
json::object internal_state(const ModelRunner::Limits& limits) {
  json::object object;
  object["effective_max_running_requests_per_dp"] = limits.max_seqs;
  object["memory_usage"].emplace_object()["token_capacity"] =
      limits.num_kv_blocks * limits.block_size;
  return object;
}

json::object config_object(const EffectiveConfig& effective) {
  EngineConfig config = effective.config;  // a schema points into a config that may change
  json::object object;
  for (const ConfigField& field : list_fields(config).fields) {
    object[field.path] = format_value(field);
  }
  return object;
}

}  // namespace

std::string server_info_body(const EffectiveConfig& effective,
                             const ServedModel& served,
                             const EngineFigures& figures) {
  const LoadedModel& model = served.model();
  json::object body;
  body["version"] = AUGUR_VERSION;
  body["model_path"] = model.folder.string();
  body["tokenizer_path"] = model.folder.string();
  body["served_model_name"] = served.context().model_names.front();
  body["limits"] = limits_object(served.context().limits);
  body["vocab_size"] = served.context().limits.vocab_size;
  body["max_model_len"] = served.context().limits.max_context;
  json::array& lossy = body["lossy_modes"].emplace_array();
  for (const std::string& mode : served.lossy_modes()) lossy.emplace_back(mode);
  json::object& memory = body["memory_bytes"].emplace_object();
  for (const MemoryItem& item : model.memory.items) memory[item.name] = item.num_bytes;
  json::object& phases = body["startup_seconds"].emplace_object();
  for (const PhaseTime& phase : served.phases()) phases[phase.name] = phase.seconds;
  json::object& counters = body["engine"].emplace_object();
  counters["num_running"] = figures.num_running;
  counters["num_waiting"] = figures.num_waiting;
  counters["num_steps"] = figures.counters.num_steps;
  counters["num_free_kv_blocks"] = figures.num_free_kv_blocks;
  counters["num_cached_kv_blocks"] = figures.num_cached_kv_blocks;
  body["internal_states"].emplace_array().push_back(internal_state(served.context().limits));
  body["config"] = config_object(effective);
  return json::serialize(body);
}

std::vector<std::pair<std::string, std::string>> config_info(const EffectiveConfig& effective,
                                                             const ServedModel& served) {
  const ModelRunner::Limits& limits = served.context().limits;
  std::string lossy;
  for (const std::string& mode : served.lossy_modes()) lossy += (lossy.empty() ? "" : ",") + mode;
  return {{"version", AUGUR_VERSION},
          {"model", served.context().model_names.front()},
          {"block_size", std::to_string(limits.block_size)},
          {"num_kv_blocks", std::to_string(limits.num_kv_blocks)},
          {"max_batch_size", std::to_string(limits.max_seqs)},
          {"max_context", std::to_string(limits.max_context)},
          {"enable_prefix_caching", effective.config.kv_cache.prefix_cache ? "true" : "false"},
          {"lossy_modes", lossy}};
}

std::string model_info_body(const ServedModel& served) {
  json::object body;
  body["model_path"] = served.model().folder.string();
  body["tokenizer_path"] = served.model().folder.string();
  body["is_generation"] = true;
  body["served_model_name"] = served.context().model_names.front();
  body["max_model_len"] = served.context().limits.max_context;
  return json::serialize(body);
}

}  // namespace augur::server
