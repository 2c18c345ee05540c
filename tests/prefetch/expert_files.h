// Experts in files, for tests: layers of bf16, F16 and float32 matrices, at odd offsets too.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/reference_ops.h"
#include "prefetch/expert_store.h"
#include "tests/temp_folder.h"

namespace augur {

/// Layer 0 has no experts; layer 1 is bf16, layer 2 F16, layer 3 float32, a file each. Values are
/// random bits.
class ExpertFiles {
 public:
  static constexpr int kNumExperts = 6;

  ExpertFiles(int64_t hidden_size, int64_t intermediate_size)
      : layout(expert_layout(*ops, hidden_size, intermediate_size)) {
    std::vector<std::vector<ExpertSource>> sources(1);
    std::mt19937 generator(7);
    for (int layer = 1; layer <= 3; ++layer) {
      const auto format = static_cast<WeightFormat>(layer - 1);
      std::string bytes(static_cast<size_t>(97 * layer), 'h');  // odd, even, odd
      const auto add = [&](int64_t num_rows, int64_t num_cols) {
        const TensorSource place = {layer - 1, format, static_cast<int64_t>(bytes.size()), num_rows,
                                    num_cols};
        for (int64_t i = 0; i < place.num_bytes(); ++i) bytes += static_cast<char>(generator());
        return place;
      };
      sources.emplace_back();
      for (int expert = 0; expert < kNumExperts; ++expert) {
        const TensorSource down = add(hidden_size, intermediate_size);
        const TensorSource gate = add(intermediate_size, hidden_size);
        const TensorSource up = add(intermediate_size, hidden_size);
        sources.back().push_back({gate, up, down});
      }
      files.emplace_back(folder.write("layer" + std::to_string(layer), bytes));
    }
    store = std::make_unique<ExpertStore>(files, layout, std::move(sources));
  }

  std::vector<ExpertKey> keys() const {
    std::vector<ExpertKey> keys;
    for (int layer = 1; layer <= 3; ++layer) {
      for (int expert = 0; expert < kNumExperts; ++expert) keys.push_back({layer, expert});
    }
    return keys;
  }
  /// What ExpertStore::read makes of the expert.
  std::vector<std::byte> block(ExpertKey key) const {
    std::vector<std::byte> block(static_cast<size_t>(layout.block_bytes));
    ExpertStore::Scratch scratch;
    store->read(key, *ops, block.data(), scratch);
    return block;
  }

  TempFolder folder;
  std::unique_ptr<Ops> ops = make_reference_ops(1);
  ExpertLayout layout;
  std::vector<File> files;
  std::unique_ptr<ExpertStore> store;
};

}  // namespace augur
