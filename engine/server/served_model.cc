#include "engine/server/served_model.h"

#include <fmt/format.h>

#include <random>

#include "configs/config_error.h"
#include "engine/model/route_metrics.h"
#include "engine/schedule/validation.h"
#include "engine/text/utf8.h"

namespace augur::server {
namespace {

/// The name of the model's folder.
std::string folder_name(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder.lexically_normal();
  const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
  std::string storage;
  return std::string(valid_utf8_or_repaired(name, storage));
}

std::vector<std::string> lossy_modes_of(const LoadedModel& model) {
  std::vector<std::string> modes;
  if (model.route_memory != nullptr && model.route_memory->is_lossy()) {
    modes.emplace_back("route_cache");
  }
  if (model.weights.low_bit_experts != nullptr) modes.emplace_back("low_bit_experts");
  if (model.weights.int8_expert_slots != nullptr) modes.emplace_back("int8_experts");
  if (model.decoder->limits().kv_format != KvFormat::kNative) modes.emplace_back("int8_kv_cache");
  if (model.routing_driver != nullptr) modes.emplace_back("routing_trace");
  return modes;
}

ApiLimits api_limits(const ServerLimitsConfig& limits) {
  return {.max_n = limits.max_n,
          .max_prompts = limits.max_prompts,
          .max_sequences = limits.max_sequences,
          .max_stop_strings = limits.max_stop_strings,
          .max_logit_bias = limits.max_logit_bias,
          .max_logprobs = limits.max_logprobs};
}

std::string system_prompt_text(const ApiContext& context, const std::string& system_prompt) {
  if (context.chat_template == nullptr) {
    throw ConfigError("warmup.system_prompts", "the model has no chat template; accepted: prompts");
  }
  boost::json::object message;
  message["role"] = "system";
  message["content"] = system_prompt;
  ChatInput input;
  input.messages.push_back(std::move(message));
  try {
    return context.chat_template->render(input);
  } catch (const TemplateError& error) {
    throw ConfigError("warmup.system_prompts",
                      fmt::format("the chat template refuses it: {}", error.what()));
  }
}

}  // namespace

std::string default_model_name(const EngineConfig& config) {
  const std::vector<std::string>& names = config.server.served_model_names;
  return names.empty() ? folder_name(config.model.path) : names.front();
}

ServedModel::ServedModel(const EffectiveConfig& effective, const LoadListener& listener)
    : model_(load_model(effective.config, listener)),
      setup_(make_engine_setup(effective.config, *model_)),
      lossy_modes_(lossy_modes_of(*model_)) {
  const ServerConfig& server = effective.config.server;
  // Requests without a seed draw differently from one start of the server to the next.
  std::random_device device;
  setup_->options.seed = uint64_t{device()} << 32 | device();
  const Tokenizer* const tokenizer = model_->tokenizer ? &*model_->tokenizer : nullptr;
  engine_ = std::make_unique<Engine>(setup_->options, *model_->decoder, tokenizer);

  context_.model_names = server.served_model_names;
  if (context_.model_names.empty()) {
    context_.model_names.push_back(default_model_name(effective.config));
  }
  context_.fingerprint = "augur-" AUGUR_VERSION;
  for (const std::string& mode : lossy_modes_) context_.fingerprint += "+" + mode;
  context_.accepts_any_model = server.accept_any_model;
  context_.is_strict = server.strict_fields;
  context_.tokenizer = tokenizer;
  context_.chat_template = model_->chat_template ? &*model_->chat_template : nullptr;
  context_.generation = model_->description.generation;
  context_.limits = model_->decoder->limits();
  context_.eos_token_ids = model_->config().eos_token_ids;
  context_.bounds = api_limits(server.limits);
}

void ServedModel::warm_up(const WarmupConfig& config, const std::vector<std::string>& salts) {
  std::vector<std::pair<std::string, std::string>> texts;  // key of the configuration, text
  for (const std::string& prompt : config.prompts) texts.emplace_back("warmup.prompts", prompt);
  for (const std::string& prompt : config.system_prompts) {
    texts.emplace_back("warmup.system_prompts", system_prompt_text(context_, prompt));
  }
  if (!texts.empty() && context_.tokenizer == nullptr) {
    throw ConfigError("warmup", "the model has no tokenizer; accepted: no prompts");
  }
  int64_t num_requests = 0;
  for (const auto& [key, text] : texts) {
    // A template writes its special tokens itself.
    const bool add_special_tokens = key == "warmup.prompts";
    const std::vector<int32_t> ids = context_.tokenizer->encode(text, add_special_tokens);
    for (const std::string& salt : salts) {
      Request request;
      request.id = fmt::format("warmup-{}", num_requests++);
      request.prompt_ids = ids;
      request.sampling.max_tokens = 1;
      request.cache_salt = salt;
      if (const std::string problem = engine_->check(request); !problem.empty()) {
        throw ConfigError(key, problem);
      }
      engine_->submit(std::move(request));
    }
  }
  if (num_requests == 0) return;
  const auto start = std::chrono::steady_clock::now();
  while (engine_->step()) {
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  model_->phases.push_back({"warm_up", elapsed.count()});
}

int64_t ServedModel::kv_capacity() const {
  const ModelRunner::Limits& limits = model_->decoder->limits();
  return limits.num_kv_blocks * limits.block_size;
}

ExpertSnapshot ServedModel::snapshot(bool with_experts) const {
  ExpertSnapshot snapshot;
  std::vector<Metric>& metrics = snapshot.metrics;
  if (const ExpertMemory* const memory = model_->weights.expert_memory.get()) {
    const ExpertView view = view_of(*memory, model_->config());
    append_expert_metrics(view, metrics);
    if (with_experts) snapshot.experts = stats_of(view);
  }
  if (model_->weights.low_bit_experts != nullptr) {
    append_low_bit_metrics(model_->weights.low_bit_experts->total(), metrics);
  }
  if (model_->route_memory != nullptr)
    append_route_metrics(model_->route_memory->report(), metrics);
  return snapshot;
}

}  // namespace augur::server
