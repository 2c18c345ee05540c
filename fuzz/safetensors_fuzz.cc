// Reads arbitrary bytes as a safetensors file.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "configs/config_error.h"
#include "engine/model/safetensors.h"

namespace augur {
namespace {

// The input is a file: its length prefix, header and data. What is accepted must hold together.
void read(std::string_view file) {
  constexpr size_t kLengthBytes = 8;
  if (file.size() < kLengthBytes) return;
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    header_bytes |= static_cast<uint64_t>(static_cast<unsigned char>(file[i])) << (8 * i);
  }
  // A wrong length would end nearly every run here, so it is taken as far as the file goes.
  const size_t rest = file.size() - kLengthBytes;
  const size_t used = static_cast<size_t>(header_bytes % (rest + 1));
  const auto data_offset = static_cast<int64_t>(kLengthBytes + used);
  const auto data_bytes = static_cast<int64_t>(rest - used);
  const auto tensors = parse_safetensors_header(file.substr(kLengthBytes, used), data_offset,
                                                data_bytes, "fuzz", {.max_tensors = 1000});
  int64_t end = data_offset;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != end || tensor.num_bytes < 0) std::abort();
    int64_t num_bits = bits_of(tensor.dtype);
    for (const int64_t dim : tensor.shape) num_bits *= dim;
    if (num_bits != tensor.num_bytes * 8) std::abort();
    end += tensor.num_bytes;
  }
  if (end != static_cast<int64_t>(file.size())) std::abort();
}

}  // namespace
}  // namespace augur

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    augur::read({reinterpret_cast<const char*>(data), size});
  } catch (const augur::ConfigError&) {
  }
  return 0;
}
