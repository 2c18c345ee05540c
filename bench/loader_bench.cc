// Loading random experts from files, past the page cache, beside what the device gives to plain
// reads of 1 MiB; and how long demand for one expert takes, alone and while prefetch keeps the
// device busy.
//
// The experts lie in a file of random values that is made in the folder for temporary files and
// removed at the end: 256 MiB as a checkpoint has them, and as much packed.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/memory.h"
#include "prefetch/direct_file.h"
#include "prefetch/loader.h"
#include "prefetch/packed_writer.h"

namespace augur {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kFileBytes = int64_t{256} << 20;
constexpr int kNumSlots = 24;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "augur_bench_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp " + pattern);
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Experts of one shape, 256 MiB of them, in a checkpoint's layout and packed.
class Experts {
 public:
  Experts(const std::filesystem::path& folder, int64_t hidden_size, int64_t intermediate_size)
      : layout_(expert_layout(*ops_, hidden_size, intermediate_size)) {
    const int64_t matrix_bytes = hidden_size * intermediate_size * 2;
    num_experts_ = static_cast<int>(kFileBytes / (3 * matrix_bytes));
    const std::string name = fmt::format("{}x{}", hidden_size, intermediate_size);
    // As in safetensors: data begins anywhere.
    constexpr int64_t kHeaderBytes = 4321;
    write_random(folder / name, kHeaderBytes + num_experts_ * 3 * matrix_bytes);
    files_.emplace_back(folder / name);
    std::vector<ExpertSource> sources;
    for (int expert = 0; expert < num_experts_; ++expert) {
      const auto matrix = [&](int idx, int64_t num_rows, int64_t num_cols) {
        return TensorSource{0, WeightFormat::kBF16,
                            kHeaderBytes + (expert * 3 + idx) * matrix_bytes, num_rows, num_cols};
      };
      sources.push_back({matrix(0, intermediate_size, hidden_size),
                         matrix(1, intermediate_size, hidden_size),
                         matrix(2, hidden_size, intermediate_size)});
    }
    store_ = std::make_unique<ExpertStore>(files_, layout_,
                                           std::vector<std::vector<ExpertSource>>{sources});
    write_packed_file(folder / (name + ".packed"), *store_, *ops_, {.num_threads = 2});
    packed_ = std::make_unique<PackedFile>(folder / (name + ".packed"));
    packed_store_ = std::make_unique<ExpertStore>(*packed_);
    slots_ = ops_->allocate(layout_.block_bytes * kNumSlots + kDirectAlignment);
    // The first touch of fresh memory is the kernel's work.
    std::memset(slots_.data(), 0, static_cast<size_t>(slots_.num_bytes()));
    auto address = reinterpret_cast<uintptr_t>(slots_.data());
    address = (address + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
    memory_ = {reinterpret_cast<std::byte*>(address), layout_.block_bytes, kNumSlots};
  }

  Loader loader(bool is_packed, const LoaderOptions& options) const {
    return {is_packed ? *packed_store_ : *store_, *ops_, memory_, options};
  }
  const File& file(bool is_packed) const { return is_packed ? packed_->file() : files_[0]; }
  int num_experts() const { return num_experts_; }
  int64_t expert_bytes() const { return layout_.block_bytes; }

 private:
  static void write_random(const std::filesystem::path& path, int64_t num_bytes) {
    OutputFile file(path);
    std::mt19937_64 generator(1);
    std::vector<uint64_t> piece(1 << 17);
    for (int64_t offset = 0; offset < num_bytes; offset += int64_t{1} << 20) {
      for (uint64_t& value : piece) value = generator();
      file.write_at(offset, piece.data(), std::min(int64_t{1} << 20, num_bytes - offset));
    }
    file.sync();
    file.close();
  }

  std::unique_ptr<Ops> ops_ = make_cpu_ops(1);
  ExpertLayout layout_;
  int num_experts_ = 0;
  std::vector<File> files_;
  std::unique_ptr<ExpertStore> store_;
  std::unique_ptr<PackedFile> packed_;
  std::unique_ptr<ExpertStore> packed_store_;
  Buffer slots_;
  SlotMemory memory_;
};

// The bound: reads of 1 MiB at random places, `depth` at a time, into memory and no further.
void device_bench(benchmark::State& state, const File& file) {
  constexpr int64_t kReadBytes = int64_t{1} << 20;
  const int depth = static_cast<int>(state.range(0));
  const DirectFile direct(file);
  if (!direct.is_open()) {
    state.SkipWithError("no direct I/O in the folder for temporary files");
    return;
  }
  const std::unique_ptr<BlockReader> reader =
      make_block_reader(depth == 1 ? ReadMethod::kPread : ReadMethod::kAuto, depth);
  // In huge pages, as the loader's: into small ones the same reads take up to twice as long.
  const Buffer memory = cpu::allocate_host(std::max(depth * kReadBytes, 2 * kReadBytes));
  std::memset(memory.data(), 0, static_cast<size_t>(memory.num_bytes()));
  std::mt19937 generator(2);
  const int64_t num_places = file.num_bytes() / kReadBytes;
  const auto begin = [&](int tag) {
    reader->begin({direct.descriptor(), &file.path(),
                   static_cast<int64_t>(generator()) % num_places * kReadBytes, kReadBytes,
                   memory.data() + tag * kReadBytes, tag});
  };
  for (int tag = 0; tag < depth; ++tag) begin(tag);
  int64_t num_reads = 0;
  for (auto _ : state) {
    const auto ended = reader->wait(/*blocks=*/true);
    num_reads += std::ssize(ended);
    for (const BlockReadEnd& end : ended) begin(end.tag);
  }
  for (int left = depth; left > 0;) {
    left -= static_cast<int>(reader->wait(/*blocks=*/true).size());
  }
  state.SetBytesProcessed(num_reads * kReadBytes);
}

// As many fetches under way as there are slots; one iteration ends one fetch.
void throughput_bench(benchmark::State& state,
                      const Experts& experts,
                      bool is_packed,
                      const LoaderOptions& options,
                      FetchPriority priority) {
  Loader loader = experts.loader(is_packed, options);
  std::mt19937 generator(3);
  const auto start = [&](int slot) {
    loader.start({0, static_cast<int32_t>(generator() % experts.num_experts())}, slot, priority);
  };
  for (int slot = 0; slot < kNumSlots; ++slot) start(slot);
  const auto bytes_so_far = [&] {
    return loader.counters().read_bytes[static_cast<size_t>(priority)];
  };
  const int64_t first_bytes = bytes_so_far();
  rusage before;
  getrusage(RUSAGE_SELF, &before);
  const Clock::time_point begin = Clock::now();
  for (auto _ : state) {
    for (const FetchEnd& end : loader.take_ended(/*wait=*/true)) {
      if (end.outcome != FetchOutcome::kDone) state.SkipWithError(end.error.c_str());
      start(end.slot);
    }
  }
  const double seconds = seconds_since(begin);
  rusage after;
  getrusage(RUSAGE_SELF, &after);
  const auto cpu_seconds = [](const rusage& usage) {
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  state.SetBytesProcessed(bytes_so_far() - first_bytes);
  state.counters["cores"] = (cpu_seconds(after) - cpu_seconds(before)) / seconds;
}

// One demand at a time; the other slots are kept full of prefetch where `is_loaded`.
void demand_bench(benchmark::State& state, const Experts& experts, bool is_packed, bool is_loaded) {
  Loader loader = experts.loader(is_packed, {});
  std::mt19937 generator(4);
  const auto start = [&](int slot, FetchPriority priority) {
    loader.start({0, static_cast<int32_t>(generator() % experts.num_experts())}, slot, priority);
  };
  std::vector<bool> is_free(kNumSlots, true);
  const auto take = [&](bool wait) {
    for (const FetchEnd& end : loader.take_ended(wait)) is_free[end.slot] = true;
  };
  std::vector<double> times_us;
  for (auto _ : state) {
    if (is_loaded) {
      for (int slot = 1; slot < kNumSlots; ++slot) {
        if (!is_free[slot]) continue;
        is_free[slot] = false;
        start(slot, FetchPriority::kNextLayer);
      }
    }
    // The engine computes for a while between two demands: prefetch gets going.
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + generator() % 2000));
    take(/*wait=*/false);
    const Clock::time_point begin = Clock::now();
    is_free[0] = false;
    start(0, FetchPriority::kDemand);
    while (!is_free[0]) take(/*wait=*/true);
    const double seconds = seconds_since(begin);
    state.SetIterationTime(seconds);
    times_us.push_back(seconds * 1e6);
  }
  std::sort(times_us.begin(), times_us.end());
  state.counters["p50_us"] = times_us[times_us.size() / 2];
  state.counters["p95_us"] = times_us[times_us.size() * 95 / 100];
  const LoaderCounters counters = loader.counters();
  state.counters["queued_us"] =
      static_cast<double>(counters.demand_wait_us) / static_cast<double>(counters.num_demand_waits);
  state.SetBytesProcessed(state.iterations() * experts.expert_bytes());
}

void add_benches(const Experts& large, const Experts& small) {
  constexpr double kSeconds = 0.7;
  for (const bool is_packed : {false, true}) {
    // Each file has a rate of its own: where it lies on the device matters.
    benchmark::RegisterBenchmark(
        fmt::format("device/{}/reads_of_1MiB", is_packed ? "packed" : "checkpoint").c_str(),
        device_bench, std::cref(large.file(is_packed)))
        ->ArgName("depth")
        ->Arg(1)
        ->Arg(4)
        ->UseRealTime()
        ->MinTime(kSeconds);
  }
  for (const auto& [experts, size] : {std::pair(&large, "9MiB"), std::pair(&small, "1.5MiB")}) {
    for (const bool is_packed : {false, true}) {
      const std::string name = fmt::format("{}/{}", is_packed ? "packed" : "checkpoint", size);
      for (const ReadMethod method : {ReadMethod::kAuto, ReadMethod::kPread}) {
        LoaderOptions options;
        options.method = method;
        const char* method_name = method == ReadMethod::kPread ? "pread" : "auto";
        benchmark::RegisterBenchmark(fmt::format("load/{}/{}", name, method_name).c_str(),
                                     throughput_bench, std::cref(*experts), is_packed, options,
                                     FetchPriority::kDemand)
            ->UseRealTime()
            ->MinTime(kSeconds);
      }
      benchmark::RegisterBenchmark(fmt::format("load_as_prefetch/{}", name).c_str(),
                                   throughput_bench, std::cref(*experts), is_packed,
                                   LoaderOptions(), FetchPriority::kNextLayer)
          ->UseRealTime()
          ->MinTime(kSeconds);
      for (const bool is_loaded : {false, true}) {
        benchmark::RegisterBenchmark(
            fmt::format("demand/{}/{}", name, is_loaded ? "beside_prefetch" : "alone").c_str(),
            demand_bench, std::cref(*experts), is_packed, is_loaded)
            ->UseManualTime()
            ->MinTime(kSeconds)
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

}  // namespace
}  // namespace augur

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const augur::TempFolder folder;
  const augur::Experts large(folder.path(), /*hidden_size=*/2048, /*intermediate_size=*/768);
  const augur::Experts small(folder.path(), /*hidden_size=*/1024, /*intermediate_size=*/256);
  std::printf("experts in %s; %s\n", folder.path().c_str(),
              large.loader(/*is_packed=*/true, {}).description().c_str());
  augur::add_benches(large, small);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
