#include "engine/model/safetensors_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

// A JSON string, quotes included.
std::string json_string(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      json += c;
    }
  }
  return json + "\"";
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorInfo> tensors)
    : tensors_(std::move(tensors)), file_(path) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  for (TensorInfo& tensor : tensors_) {
    int64_t num_bits = bits_of(tensor.dtype);
    for (const int64_t dim : tensor.shape) {
      AUGUR_REQUIRE(dim >= 0 && !__builtin_mul_overflow(num_bits, dim, &num_bits),
                    tensor.name + ": " + describe(tensor));
    }
    AUGUR_REQUIRE(num_bits % 8 == 0, tensor.name + ": " + describe(tensor));
    tensor.num_bytes = num_bits / 8;
    tensor.offset = bytes_wanted_;  // within the data, until the header's length is known
    bytes_wanted_ += tensor.num_bytes;
    header += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          json_string(tensor.name), name_of(tensor.dtype),
                          fmt::join(tensor.shape, ","), tensor.offset, bytes_wanted_);
  }
  header += '}';
  // The data begins at a multiple of 64, so that readers which map the file see it aligned.
  while ((header.size() + 8) % 64 != 0) header += ' ';

  std::array<unsigned char, 8> length_bytes = {};
  for (size_t i = 0; i < 8; ++i) {
    length_bytes[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  }
  file_.write_at(0, length_bytes.data(), 8);
  file_.write_at(8, header.data(), static_cast<int64_t>(header.size()));
  for (TensorInfo& tensor : tensors_) tensor.offset += 8 + static_cast<int64_t>(header.size());
}

void SafetensorsWriter::write(size_t tensor_idx,
                              int64_t byte_in_tensor,
                              const void* data,
                              int64_t num_bytes) {
  const TensorInfo& tensor = tensors_.at(tensor_idx);
  AUGUR_REQUIRE(
      byte_in_tensor >= 0 && num_bytes >= 0 && byte_in_tensor + num_bytes <= tensor.num_bytes,
      fmt::format("{}: bytes {} + {}", tensor.name, byte_in_tensor, num_bytes));
  file_.write_at(tensor.offset + byte_in_tensor, data, num_bytes);
  bytes_written_ += num_bytes;
}

void SafetensorsWriter::write(size_t tensor_idx, const void* data) {
  write(tensor_idx, 0, data, tensors_.at(tensor_idx).num_bytes);
}

void SafetensorsWriter::finish() {
  AUGUR_REQUIRE(bytes_written_ == bytes_wanted_,
                fmt::format("{} of {} bytes written", bytes_written_.load(), bytes_wanted_));
  file_.close();
}

}  // namespace augur
