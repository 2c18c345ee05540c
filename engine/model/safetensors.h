// The header of a safetensors file: which tensors lie where.
//
// Format: 8 bytes little-endian length, a JSON object of that length, then the tensors' data.
// Source: the safetensors README, https://github.com/huggingface/safetensors. Everything that the
// header says is checked against itself and against the file before anything is sized by it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "prefetch/file.h"

namespace augur {

/// Every data type of the format; Augur computes with some (see weight_plan.h).
enum class TensorDType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

/// As in the file, "BF16".
std::string_view name_of(TensorDType dtype);
int64_t bits_of(TensorDType dtype);

struct TensorInfo {
  std::string name;
  TensorDType dtype = TensorDType::kF32;
  std::vector<int64_t> shape;  // empty for a scalar
  int32_t file_idx = 0;        // which of a checkpoint's files
  int64_t offset = 0;          // bytes from the start of the file
  int64_t num_bytes = 0;
};

/// "BF16 [160, 64]", for messages.
std::string describe(const TensorInfo& tensor);

struct SafetensorsLimits {
  int64_t max_header_bytes = 100'000'000;  // what other readers accept
  int64_t max_tensors = 1'000'000;         // the largest published models have some 200,000
  int64_t max_name_bytes = 1'024;
  int64_t max_dims = 16;
};

/// Reads and checks the header of `file`; tensors come in the order of their data. Throws
/// ConfigError naming the file and the tensor when the header is too long, not JSON, has duplicate
/// names, unknown data types, shapes that overflow or disagree with the bytes, or data that
/// overlaps, leaves holes, or does not end where the file ends.
std::vector<TensorInfo> read_safetensors_header(const File& file,
                                                const SafetensorsLimits& limits = {});

/// The same for a header already in memory. `data_offset` is where the data begins in the file,
/// `data_bytes` how much there is, `where` the file's name for errors.
std::vector<TensorInfo> parse_safetensors_header(std::string_view json,
                                                 int64_t data_offset,
                                                 int64_t data_bytes,
                                                 const std::string& where,
                                                 const SafetensorsLimits& limits = {});

}  // namespace augur
