#include "engine/model/model_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "configs/config_error.h"
#include "engine/model/expert_memory_plan.h"
#include "engine/model/limits_plan.h"
#include "engine/model/low_bit_experts.h"
#include "engine/model/prefetching.h"
#include "engine/model/route_memory_plan.h"
#include "engine/model/weight_plan.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/reference_ops.h"
#include "kernels/cuda/cuda_ops.h"
#include "prefetch/packed_writer.h"

namespace augur {
namespace {

using Clock = std::chrono::steady_clock;

int num_cores() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int resolve_num_threads(const ExecutionConfig& execution) {
  return execution.num_threads > 0 ? static_cast<int>(execution.num_threads) : num_cores();
}

bool chooses_cuda(const ExecutionConfig& execution) {
  const bool is_reference = execution.precision == PrecisionChoice::kReference;
  switch (execution.device) {
    case DeviceChoice::kCpu:
      return false;
    case DeviceChoice::kCuda:
      if (num_cuda_devices() == 0) throw ConfigError("execution.device", "cuda: " + why_no_cuda());
      if (is_reference) {
        throw ConfigError("execution.precision", "reference runs on the CPU: set device to cpu");
      }
      return true;
    case DeviceChoice::kAuto:
      // Who asks for the reference or an instruction set asks for the CPU.
      return !is_reference && execution.isa == IsaChoice::kAuto && num_cuda_devices() > 0;
  }
  return false;
}

std::unique_ptr<Ops> make_host_ops(const ExecutionConfig& execution) {
  const int num_threads = resolve_num_threads(execution);
  if (execution.precision == PrecisionChoice::kReference) {
    return make_reference_ops(num_threads);
  }
  std::optional<cpu::Isa> isa;
  switch (execution.isa) {
    case IsaChoice::kAuto:
      break;
    case IsaChoice::kPortable:
      isa = cpu::Isa::kPortable;
      break;
    case IsaChoice::kAvx2:
      isa = cpu::Isa::kAvx2;
      break;
    case IsaChoice::kAvx512:
      isa = cpu::Isa::kAvx512;
      break;
    case IsaChoice::kAmx:
      isa = cpu::Isa::kAmx;
      break;
  }
  if (isa && !cpu::has_isa(*isa)) {
    throw ConfigError("execution.isa",
                      fmt::format("this machine has no {}; it has {} and those before it",
                                  cpu::isa_name(*isa), cpu::isa_name(cpu::best_isa())));
  }
  // With fewer threads than cores another process may use the first ones: the kernel chooses then.
  return make_cpu_ops(num_threads, isa, execution.pin_threads && num_threads == num_cores());
}

// The CUDA device where it is to be used and can run the model. Where the choice was left to us and
// it cannot, the CPU, and the listener is told why.
std::unique_ptr<Ops> make_ops(const ExecutionConfig& execution,
                              const ModelConfig& model,
                              const LoadListener& listener) {
  if (!chooses_cuda(execution)) return make_host_ops(execution);
  std::unique_ptr<Ops> ops = make_cuda_ops();
  ModelRunner::Limits limits;
  limits.max_seqs = execution.max_batch_size;
  const std::string problem = ops->why_unsupported(Decoder::step_limits(model, limits, *ops));
  if (problem.empty()) return ops;
  if (execution.device == DeviceChoice::kCuda) throw ConfigError("execution.device", problem);
  if (listener.on_message) listener.on_message(problem + "; running on the CPU");
  return make_host_ops(execution);
}

class PhaseTimer {
 public:
  explicit PhaseTimer(std::vector<PhaseTime>& phases) : phases_(phases) {}
  void end(std::string name) {
    const Clock::time_point now = Clock::now();
    phases_.push_back({std::move(name), std::chrono::duration<double>(now - start_).count()});
    start_ = now;
  }

 private:
  std::vector<PhaseTime>& phases_;
  Clock::time_point start_ = Clock::now();
};

std::string describe_plan(const WeightPlan& plan) {
  const auto millions = static_cast<double>(plan.num_values) * 1e-6;
  std::string text = millions < 1000 ? fmt::format("{:.1f} million", millions)
                                     : fmt::format("{:.2f} billion", millions * 1e-3);
  text += fmt::format(" parameters in {} tensors, {} stored", plan.num_tensors,
                      format_bytes(plan.total_stored_bytes()));
  if (plan.num_rounded_f16 + plan.num_rounded_f32 > 0) {
    text += fmt::format("; {} F16 and {} F32 matrices rounded to bf16", plan.num_rounded_f16,
                        plan.num_rounded_f32);
  }
  if (plan.num_draft_tensors > 0) {
    text += fmt::format("; {} tensors of a draft layer read past", plan.num_draft_tensors);
  }
  if (plan.num_unused_tensors > 0) {
    text += fmt::format("; {} tensors not used, {} among them", plan.num_unused_tensors,
                        plan.some_unused.front());
  }
  return text;
}

}  // namespace

std::filesystem::path demo_model_folder() {
  if (const char* folder = std::getenv("AUGUR_DEMO_MODEL")) return folder;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    const std::filesystem::path installed =
        program.parent_path() / ".." / "share" / "augur" / "models" / "tiny-glm4-moe";
    if (std::filesystem::exists(installed / "config.json", error)) {
      return installed.lexically_normal();
    }
  }
  return AUGUR_SOURCE_MODELS "/tiny-glm4-moe";
}

namespace {

std::optional<RecordedRoutes> read_routes(const ExecutionConfig& execution,
                                          const ModelConfig& model) {
  const std::string& path = execution.routing_trace;
  if (path.empty()) return std::nullopt;
  return fit_routes(read_routing_trace(path), path, model);
}

// What loading from files and generating have in common: plan memory, refuse what does not fit,
// then bring the weights that `make_weights` makes for so many positions and, by layer, experts in
// these formats.
template <typename MakeWeights>
void assemble(LoadedModel& model,
              const EngineConfig& config,
              const WeightPlan& plan,
              const ExpertMemoryPlan& experts,
              const LoadListener& listener,
              PhaseTimer& timer,
              MakeWeights&& make_weights) {
  const auto say = [&](const std::string& line) {
    if (listener.on_message) listener.on_message(line);
  };
  // Refused before anything large is read.
  std::optional<RecordedRoutes> recorded = read_routes(config.execution, model.config());
  Ops& ops = *model.ops;
  const int64_t available_bytes = ops.available_bytes();
  const int64_t max_positions = config.kv_cache.max_context > 0
                                    ? config.kv_cache.max_context
                                    : model.config().max_position_embeddings;
  if (recorded && config.cache.expert_route.enabled) {
    throw ConfigError("cache.expert_route.enabled",
                      "true; with execution.routing_trace no gate decides anything to remember: "
                      "accepted: false");
  }
  const RouteMemoryPlan routes =
      plan_route_memory(config, model.config(), ops, /*has_pool=*/!experts.is_resident(),
                        std::max({config.execution.max_tokens_per_step,
                                  ops.default_tokens_per_step(), config.execution.max_batch_size}));
  const auto weight_bytes = [&](int64_t num_positions, int64_t expert_bytes) {
    return packed_weight_bytes(model.config(), ops, num_positions) - experts.all_bytes +
           expert_bytes;
  };
  const auto limits_for = [&](int64_t expert_bytes, std::optional<KvFormat> format) {
    // Of host memory a quarter of what the rest leaves goes to the page cache and to others.
    const int64_t left_bytes = available_bytes - weight_bytes(max_positions, expert_bytes) -
                               experts.pool_bytes() - experts.low_bit_bytes - routes.max_bytes() -
                               ops.max_step_bytes() - ops.own_bytes();
    EngineConfig chosen = config;
    if (format == KvFormat::kInt8) chosen.kv_cache.dtype = KvDtypeChoice::kInt8;
    return plan_limits(chosen, model.config(), ops,
                       left_bytes - left_bytes / (ops.uses_host_memory() ? 4 : 64));
  };
  const std::optional<CompressionPlan> compressed =
      choose_compression(config, model.config(), experts, ops, limits_for);
  int64_t expert_bytes = experts.is_resident() ? experts.all_bytes : 0;
  std::optional<KvFormat> chosen_format;
  if (compressed) {
    expert_bytes = compressed->int8_experts.after + compressed->other_experts.after;
    chosen_format = compressed->kv_format;
  }
  const ModelRunner::Limits limits = limits_for(expert_bytes, chosen_format);

  model.memory.available_bytes = available_bytes;
  model.memory.items = {
      {experts.is_resident() ? "weights" : "weights but for the experts",
       weight_bytes(limits.max_context, expert_bytes)},
      {fmt::format("KV cache, {} blocks of {} positions in {}", limits.num_kv_blocks,
                   limits.block_size, kv_format_name(limits.kv_format, ops)),
       Decoder::kv_cache_bytes(model.config(), limits, ops)},
      {fmt::format("a step of {} tokens", limits.max_tokens),
       step_bytes(model.config(), limits, ops)},
      {ops.uses_host_memory() ? "program" : "recorded steps and libraries", ops.own_bytes()}};
  if (!experts.is_resident()) {
    model.memory.items.insert(model.memory.items.begin() + 1,
                              {experts.description, experts.pool_bytes()});
  }
  if (experts.low_bit_bytes > 0) {
    model.memory.items.insert(model.memory.items.begin() + 2,
                              {"int8 copies of all experts", experts.low_bit_bytes});
  }
  if (recorded) {
    model.memory.items.push_back(
        {"routing of a step", RoutingDriver::num_bytes(model.config(), limits.max_tokens)});
  }
  if (routes.is_on()) model.memory.items.push_back({routes.description(), routes.max_bytes()});
  say(fmt::format("{}: {}; {}", model.folder.string(), describe_plan(plan), ops.description()));
  if (compressed) say("memory.compression:\n" + compressed->to_string());
  say("memory:\n" + model.memory.to_string());
  if (!model.memory.fits()) {
    throw OutOfMemory(
        fmt::format("{} does not fit into memory:\n{}  What helps: a smaller kv_cache.bytes, "
                    "kv_cache.max_context "
                    "or execution.max_tokens_per_step, keeping fewer experts in memory "
                    "(cache.experts.device_bytes), or a smaller model{}.",
                    model.folder.string(), model.memory.to_string(),
                    ops.uses_host_memory() ? "" : ", or execution.device=cpu"));
  }
  ops.reserve(Decoder::step_limits(model.config(), limits, ops));
  if (routes.is_on()) model.route_memory = std::make_unique<RouteMemory>(routes, limits.max_tokens);
  model.weights = make_weights(limits.max_context,
                               compressed ? compressed->experts : std::vector<ExpertFormat>());
  timer.end("weights");

  model.decoder = std::make_unique<Decoder>(model.config(), model.weights, ops, limits);
  if (recorded) {
    model.routing_driver = std::make_unique<RoutingDriver>(std::move(*recorded), model.config(),
                                                           limits.max_tokens, ops);
    model.decoder->force_routing(model.routing_driver->experts());
    model.decoder->add_routing_observer(*model.routing_driver);
    if (listener.on_warning) listener.on_warning(model.routing_driver->warning());
  }
  if (model.route_memory != nullptr) model.decoder->set_route_memory(model.route_memory.get());
  timer.end("buffers");
}

// The experts where they are read from: the checkpoint's files, or a packed file of them.
void open_expert_store(LoadedModel& model,
                       const ExpertCacheConfig& config,
                       const WeightPlan& plan) {
  const ExpertLayout layout =
      expert_layout(*model.ops, model.config().hidden_size, model.config().moe.intermediate_size);
  model.expert_store =
      std::make_unique<ExpertStore>(model.checkpoint->files(), layout, expert_sources(plan));
  if (config.packed_file.empty()) return;
  model.packed_file.emplace(config.packed_file);
  model.packed_file->require_match(packed_identity(*model.expert_store, *model.ops));
  model.expert_store = std::make_unique<ExpertStore>(*model.packed_file);
}

}  // namespace

std::unique_ptr<LoadedModel> load_model(const EngineConfig& config, const LoadListener& listener) {
  auto model = std::make_unique<LoadedModel>();
  PhaseTimer timer(model->phases);
  model->folder =
      config.model.path.empty() ? demo_model_folder() : std::filesystem::path(config.model.path);
  model->description = read_model_description(model->folder);
  model->checkpoint = Checkpoint::open(model->folder);
  const Checkpoint& checkpoint = *model->checkpoint;
  const WeightPlan plan =
      plan_weights(model->config(), model->description.architecture->names, checkpoint);
  timer.end("headers");

  if (std::filesystem::exists(model->folder / "tokenizer.json")) {
    model->tokenizer = Tokenizer::from_file(model->folder / "tokenizer.json");
    if (model->tokenizer->vocab_size() > model->config().vocab_size) {
      throw ConfigError(
          (model->folder / "tokenizer.json").string(),
          fmt::format("has ids up to {}; config.json says vocab_size {}",
                      model->tokenizer->vocab_size() - 1, model->config().vocab_size));
    }
  }
  model->chat_template = ChatTemplate::from_folder(model->folder);
  timer.end("tokenizer");

  model->ops = make_ops(config.execution, model->config(), listener);
  timer.end("device");
  const ExpertMemoryPlan experts =
      plan_expert_memory(config.cache.experts, model->config(), *model->ops);
  const auto make_weights = [&](int64_t max_context, std::vector<ExpertFormat> formats) {
    ExpertPlaces places;
    places.formats = std::move(formats);
    if (!experts.is_resident()) {
      open_expert_store(*model, config.cache.experts, plan);
      ExpertMemory::Parts parts =
          expert_memory_parts(config, experts, *model->expert_store, *model->ops);
      if (listener.on_expert_memory) {
        listener.on_expert_memory(parts, *model->expert_store, *model->ops);
      }
      places.memory =
          std::make_unique<ExpertMemory>(model->config(), experts.layout, *model->ops, parts);
      if (config.cache.experts.low_bit.enabled) {
        places.low_bit = std::make_unique<LowBitExperts>(
            config.cache.experts.low_bit, model->config(), *model->ops, *model->expert_store,
            places.memory->pool());
        places.memory->expect_substitutes();
      }
    }
    return load_weights(model->config(), checkpoint, plan, *model->ops, max_context,
                        resolve_num_threads(config.execution), std::move(places),
                        listener.on_progress);
  };
  assemble(*model, config, plan, experts, listener, timer, make_weights);
  if (experts.is_resident()) {
    model->checkpoint.reset();
  } else {
    PrefetchConfig prefetch = config.prefetch;
    // What gates would choose is not what runs then.
    if (model->decoder->is_routing_forced()) prefetch.gate_lookahead = false;
    model->weights.expert_memory->start_prefetching(
        make_prefetching(prefetch, model->config(), model->weights, experts.layout.block_bytes,
                         *model->ops, model->route_memory.get()));
  }
  model->decoder->record_decode_steps();
  timer.end("recording");
  return model;
}

std::unique_ptr<LoadedModel> generate_model(const EngineConfig& config,
                                            const ModelDescription& description,
                                            const std::string& name,
                                            const LoadListener& listener) {
  auto model = std::make_unique<LoadedModel>();
  PhaseTimer timer(model->phases);
  model->folder = name;
  model->description = description;
  model->ops = make_ops(config.execution, description.config, listener);
  std::vector<LayerKind>& layers = model->description.config.layers;
  // Room for the weights, a step, and a KV cache of a tenth of the rest.
  const int64_t room =
      (model->ops->available_bytes() - model->ops->max_step_bytes() - model->ops->own_bytes()) /
      10 * 9;
  while (layers.size() > 1 && packed_weight_bytes(model->config(), *model->ops, 1) > room) {
    layers.pop_back();
  }
  timer.end("device");
  if (config.cache.experts.device_bytes > 0) {
    throw ConfigError("cache.experts.device_bytes",
                      "a generated model has no files to read experts from; accepted here: 0");
  }
  if (config.memory.compression.enabled) {
    throw ConfigError("memory.compression.enabled",
                      "a generated model is made in bf16; accepted here: false");
  }
  assemble(*model, config, shapes_only_plan(model->config()), {}, listener, timer,
           [&](int64_t max_context, const std::vector<ExpertFormat>&) {
             return generate_weights(model->config(), *model->ops, max_context);
           });
  return model;
}

}  // namespace augur
