#include "engine/model/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/in_quotes.h"

namespace augur {
namespace {

struct DTypeFacts {
  TensorDType dtype;
  std::string_view name;
  int bits;
};

// In the order of the enumeration.
constexpr std::array<DTypeFacts, 22> kDTypes = {{
    {TensorDType::kBool, "BOOL", 8},
    {TensorDType::kF4, "F4", 4},
    {TensorDType::kF6E2M3, "F6_E2M3", 6},
    {TensorDType::kF6E3M2, "F6_E3M2", 6},
    {TensorDType::kU8, "U8", 8},
    {TensorDType::kI8, "I8", 8},
    {TensorDType::kF8E5M2, "F8_E5M2", 8},
    {TensorDType::kF8E4M3, "F8_E4M3", 8},
    {TensorDType::kF8E8M0, "F8_E8M0", 8},
    {TensorDType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8},
    {TensorDType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8},
    {TensorDType::kI16, "I16", 16},
    {TensorDType::kU16, "U16", 16},
    {TensorDType::kF16, "F16", 16},
    {TensorDType::kBF16, "BF16", 16},
    {TensorDType::kI32, "I32", 32},
    {TensorDType::kU32, "U32", 32},
    {TensorDType::kF32, "F32", 32},
    {TensorDType::kC64, "C64", 64},
    {TensorDType::kF64, "F64", 64},
    {TensorDType::kI64, "I64", 64},
    {TensorDType::kU64, "U64", 64},
}};

std::optional<TensorDType> dtype_named(std::string_view name) {
  for (const DTypeFacts& facts : kDTypes) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

constexpr int64_t kLengthBytes = 8;

// Reads one header; the members are what its errors and checks need.
class HeaderParser {
 public:
  HeaderParser(int64_t data_offset,
               int64_t data_bytes,
               const std::string& where,
               const SafetensorsLimits& limits)
      : data_offset_(data_offset), data_bytes_(data_bytes), where_(where), limits_(limits) {}

  std::vector<TensorInfo> parse(std::string_view json);

 private:
  [[noreturn]] void fail(const std::string& what) const { throw ConfigError(where_, what); }
  [[noreturn]] void fail(std::string_view tensor, const std::string& what) const {
    throw ConfigError(where_, "tensor " + in_quotes(tensor) + ": " + what);
  }

  TensorInfo parse_tensor(std::string_view name, simdjson::dom::element value) const;
  std::vector<int64_t> parse_shape(std::string_view name, simdjson::dom::element value) const;
  std::pair<int64_t, int64_t> parse_range(std::string_view name,
                                          simdjson::dom::element value) const;
  int64_t expected_bytes(const TensorInfo& tensor) const;
  void check_metadata(simdjson::dom::element value) const;
  void check_names_differ(const std::vector<TensorInfo>& tensors) const;
  void check_data_is_covered(const std::vector<TensorInfo>& tensors) const;

  const int64_t data_offset_;
  const int64_t data_bytes_;
  const std::string& where_;
  const SafetensorsLimits& limits_;
};

std::vector<TensorInfo> HeaderParser::parse(std::string_view json) {
  // Also refuses a byte order mark and leading space, as the format does.
  if (json.empty() || json.front() != '{') fail("the header does not begin with '{'");
  simdjson::dom::parser parser(static_cast<size_t>(limits_.max_header_bytes));
  simdjson::dom::object root;
  const simdjson::error_code error = parser.parse(json.data(), json.size()).get(root);
  if (error) fail(fmt::format("the header is not JSON: {}", simdjson::error_message(error)));

  std::vector<TensorInfo> tensors;
  bool has_metadata = false;
  for (const auto [name, value] : root) {
    if (name == "__metadata__") {
      if (std::exchange(has_metadata, true)) fail("the header has two '__metadata__' entries");
      check_metadata(value);
      continue;
    }
    if (static_cast<int64_t>(tensors.size()) >= limits_.max_tensors) {
      fail(fmt::format("more than {} tensors", limits_.max_tensors));
    }
    tensors.push_back(parse_tensor(name, value));
  }
  check_names_differ(tensors);
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.num_bytes) < std::pair(b.offset, b.num_bytes);
  });
  check_data_is_covered(tensors);
  return tensors;
}

TensorInfo HeaderParser::parse_tensor(std::string_view name, simdjson::dom::element value) const {
  if (name.empty() || static_cast<int64_t>(name.size()) > limits_.max_name_bytes) {
    fail(name,
         fmt::format("a name of {} bytes; accepted: 1 to {}", name.size(), limits_.max_name_bytes));
  }
  simdjson::dom::object entry;
  if (value.get(entry)) fail(name, "its entry is not an object");

  std::optional<TensorDType> dtype;
  std::optional<std::vector<int64_t>> shape;
  std::optional<std::pair<int64_t, int64_t>> range;
  for (const auto [key, field] : entry) {
    if (key == "dtype" && !dtype) {
      std::string_view text;
      if (field.get(text)) fail(name, "'dtype' is not a string");
      dtype = dtype_named(text);
      if (!dtype) fail(name, "unknown dtype " + in_quotes(text));
    } else if (key == "shape" && !shape) {
      shape = parse_shape(name, field);
    } else if (key == "data_offsets" && !range) {
      range = parse_range(name, field);
    } else {
      fail(name, "unknown or repeated key " + in_quotes(key) +
                     "; accepted: dtype, shape and data_offsets, each once");
    }
  }
  if (!dtype || !shape || !range) fail(name, "dtype, shape or data_offsets is missing");

  TensorInfo tensor;
  tensor.name = std::string(name);
  tensor.dtype = *dtype;
  tensor.shape = std::move(*shape);
  tensor.num_bytes = range->second - range->first;
  tensor.offset = data_offset_ + range->first;
  const int64_t expected = expected_bytes(tensor);
  if (tensor.num_bytes != expected) {
    fail(name, fmt::format("{} takes {} bytes, but data_offsets [{}, {}] span {}", describe(tensor),
                           expected, range->first, range->second, tensor.num_bytes));
  }
  return tensor;
}

std::vector<int64_t> HeaderParser::parse_shape(std::string_view name,
                                               simdjson::dom::element value) const {
  simdjson::dom::array dims;
  if (value.get(dims)) fail(name, "'shape' is not a list");
  std::vector<int64_t> shape;
  for (const simdjson::dom::element dim : dims) {
    int64_t size = 0;
    if (dim.get(size) || size < 0) fail(name, "'shape' holds something else than sizes");
    if (static_cast<int64_t>(shape.size()) >= limits_.max_dims) {
      fail(name, fmt::format("more than {} dimensions", limits_.max_dims));
    }
    shape.push_back(size);
  }
  return shape;
}

std::pair<int64_t, int64_t> HeaderParser::parse_range(std::string_view name,
                                                      simdjson::dom::element value) const {
  simdjson::dom::array ends;
  if (value.get(ends)) fail(name, "'data_offsets' is not a list");
  std::array<int64_t, 2> range = {};
  size_t num_ends = 0;
  for (const simdjson::dom::element end : ends) {
    if (num_ends == 2 || end.get(range[num_ends])) {
      num_ends = 0;
      break;
    }
    ++num_ends;
  }
  if (num_ends != 2 || range[0] < 0) fail(name, "'data_offsets' is not a pair of offsets");
  if (range[0] > range[1]) {
    fail(name, fmt::format("data_offsets [{}, {}] end before they begin", range[0], range[1]));
  }
  if (range[1] > data_bytes_) {
    fail(name, fmt::format("its data ends at byte {} of the data, but the file holds {} bytes of "
                           "data: the file is truncated or its header is wrong",
                           range[1], data_bytes_));
  }
  return {range[0], range[1]};
}

int64_t HeaderParser::expected_bytes(const TensorInfo& tensor) const {
  int64_t num_bits = bits_of(tensor.dtype);
  for (const int64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(num_bits, dim, &num_bits)) {
      fail(tensor.name, "the size of " + describe(tensor) + " overflows 64 bits");
    }
  }
  if (num_bits % 8 != 0) fail(tensor.name, describe(tensor) + " is not a whole number of bytes");
  return num_bits / 8;
}

void HeaderParser::check_metadata(simdjson::dom::element value) const {
  simdjson::dom::object metadata;
  if (value.get(metadata)) fail("'__metadata__' is not an object");
  for (const auto [key, text] : metadata) {
    if (!text.is_string()) fail("'__metadata__' entry " + in_quotes(key) + " is not a string");
  }
}

void HeaderParser::check_names_differ(const std::vector<TensorInfo>& tensors) const {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) fail(*twin, "is listed twice");
}

void HeaderParser::check_data_is_covered(const std::vector<TensorInfo>& tensors) const {
  int64_t end = data_offset_;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset < end) {
      fail(tensor.name, "its data overlaps that of " + in_quotes(previous->name));
    }
    if (tensor.offset > end) {
      fail(tensor.name,
           fmt::format("{} bytes before its data belong to no tensor", tensor.offset - end));
    }
    end = tensor.offset + tensor.num_bytes;
    previous = &tensor;
  }
  const int64_t num_left = data_offset_ + data_bytes_ - end;
  if (num_left != 0) {
    fail(fmt::format("the last {} bytes of the file belong to no tensor", num_left));
  }
}

}  // namespace

std::string_view name_of(TensorDType dtype) {
  return kDTypes.at(static_cast<size_t>(dtype)).name;
}

int64_t bits_of(TensorDType dtype) {
  return kDTypes.at(static_cast<size_t>(dtype)).bits;
}

std::string describe(const TensorInfo& tensor) {
  return fmt::format("{} [{}]", name_of(tensor.dtype), fmt::join(tensor.shape, ", "));
}

std::vector<TensorInfo> parse_safetensors_header(std::string_view json,
                                                 int64_t data_offset,
                                                 int64_t data_bytes,
                                                 const std::string& where,
                                                 const SafetensorsLimits& limits) {
  return HeaderParser(data_offset, data_bytes, where, limits).parse(json);
}

std::vector<TensorInfo> read_safetensors_header(const File& file, const SafetensorsLimits& limits) {
  const std::string where = file.path().string();
  if (file.num_bytes() < kLengthBytes) {
    throw ConfigError(
        where, fmt::format("is {} bytes long, too short for a safetensors file", file.num_bytes()));
  }
  std::array<unsigned char, kLengthBytes> length_bytes = {};
  file.read_at(0, length_bytes.data(), kLengthBytes);
  if (std::memcmp(length_bytes.data(), "version ", kLengthBytes) == 0) {
    throw ConfigError(where, "is a Git LFS pointer, not the weights; fetch them with git lfs pull");
  }
  uint64_t header_bytes = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) header_bytes = header_bytes << 8 | length_bytes[i];
  if (header_bytes > static_cast<uint64_t>(limits.max_header_bytes)) {
    throw ConfigError(where, fmt::format("its header claims {} bytes; accepted: at most {}. This "
                                         "is not a safetensors file, or it is damaged",
                                         header_bytes, limits.max_header_bytes));
  }
  const int64_t data_offset = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (data_offset > file.num_bytes()) {
    throw ConfigError(where, fmt::format("its header claims {} bytes, but the file has {}: the "
                                         "file is truncated",
                                         header_bytes, file.num_bytes()));
  }
  std::string json(header_bytes, '\0');
  file.read_at(kLengthBytes, json.data(), static_cast<int64_t>(header_bytes));
  return parse_safetensors_header(json, data_offset, file.num_bytes() - data_offset, where, limits);
}

}  // namespace augur
