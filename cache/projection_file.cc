#include "cache/projection_file.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "configs/config_error.h"
#include "kernels/require.h"

namespace augur {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is written as memory lies");

constexpr std::string_view kMagic = "AUGRPRJ1";
constexpr int64_t kHashBytes = 8;
constexpr uint32_t kMaxLayers = 4096;

struct Header {
  char magic[8];
  uint32_t hidden_size;
  uint32_t dims;
  uint32_t num_layers;
  uint32_t zero;
};
static_assert(sizeof(Header) == 24);

int64_t num_layer_floats(const Header& header) {
  return (int64_t{header.hidden_size} + 1) * header.dims;
}
int64_t num_file_bytes(const Header& header) {
  return int64_t{sizeof(Header)} + num_layer_floats(header) * header.num_layers * 4 + kHashBytes;
}

// Source: Fowler, Noll and Vo; each step is a bijection, so one changed byte always shows.
uint64_t fnv1a(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3u;
  return hash;
}

void append(std::string& bytes, const void* from, size_t num_bytes) {
  bytes.append(static_cast<const char*>(from), num_bytes);
}

Header decode_header(std::string_view bytes, const std::string& where) {
  Header header;
  if (bytes.size() < sizeof(header) || !bytes.starts_with(kMagic)) {
    throw ConfigError(where, "is not a file of projections: it should begin with " +
                                 std::string(kMagic) + " and a header of 24 bytes");
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.hidden_size < 1 || header.hidden_size > Projection::kMaxHiddenSize ||
      header.dims < Projection::kMinDims || header.dims > Projection::kMaxDims ||
      header.num_layers < 1 || header.num_layers > kMaxLayers || header.zero != 0) {
    throw ConfigError(where, "declares " + std::to_string(header.num_layers) + " projections of " +
                                 std::to_string(header.hidden_size) + " to " +
                                 std::to_string(header.dims) +
                                 "; accepted: 1 to 4096, of 1 to 65536 to 3 to 64");
  }
  return header;
}

}  // namespace

std::string encode_projections(std::span<const Projection> by_layer) {
  AUGUR_REQUIRE(!by_layer.empty() && by_layer.size() <= kMaxLayers,
                std::to_string(by_layer.size()) + " projections");
  const Projection& first = by_layer.front();
  Header header = {{},
                   static_cast<uint32_t>(first.hidden_size()),
                   static_cast<uint32_t>(first.dims()),
                   static_cast<uint32_t>(by_layer.size()),
                   0};
  kMagic.copy(header.magic, sizeof(header.magic));
  std::string bytes;
  bytes.reserve(static_cast<size_t>(num_file_bytes(header)));
  append(bytes, &header, sizeof(header));
  for (const Projection& projection : by_layer) {
    AUGUR_REQUIRE(projection.is_present() && projection.dims() == first.dims() &&
                      projection.hidden_size() == first.hidden_size(),
                  "projections are absent or differ in shape");
    append(bytes, projection.offset().data(), projection.offset().size_bytes());
    for (int64_t h = 0; h < first.hidden_size(); ++h) {
      for (int d = 0; d < first.dims(); ++d) {
        const float value = projection.matrix().at(h, d);
        append(bytes, &value, sizeof(value));
      }
    }
  }
  const uint64_t hash = fnv1a(bytes);
  append(bytes, &hash, sizeof(hash));
  return bytes;
}

std::vector<Projection> decode_projections(std::string_view bytes, const std::string& where) {
  const Header header = decode_header(bytes, where);
  if (std::ssize(bytes) != num_file_bytes(header)) {
    throw ConfigError(where, "is " + std::to_string(bytes.size()) + " bytes long; its header " +
                                 "declares " + std::to_string(num_file_bytes(header)));
  }
  uint64_t hash = 0;
  std::memcpy(&hash, bytes.data() + bytes.size() - kHashBytes, sizeof(hash));
  if (hash != fnv1a(bytes.substr(0, bytes.size() - kHashBytes))) {
    throw ConfigError(where, "is damaged: its bytes do not match the hash at its end");
  }
  const char* next = bytes.data() + sizeof(header);
  const auto take = [&] {
    float value = 0;
    std::memcpy(&value, next, sizeof(value));
    next += sizeof(value);
    if (!std::isfinite(value)) throw ConfigError(where, "holds a value that is not finite");
    return value;
  };
  std::vector<Projection> by_layer;
  by_layer.reserve(header.num_layers);
  for (uint32_t layer = 0; layer < header.num_layers; ++layer) {
    std::vector<float> offset(header.dims);
    for (float& value : offset) value = take();
    TiledMatrix matrix(header.hidden_size, static_cast<int>(header.dims));
    for (int64_t h = 0; h < matrix.depth(); ++h) {
      for (int d = 0; d < matrix.num_cols(); ++d) matrix.at(h, d) = take();
    }
    by_layer.emplace_back(std::move(matrix), std::move(offset));
  }
  return by_layer;
}

void save_projections(const std::filesystem::path& path, std::span<const Projection> by_layer) {
  const std::string bytes = encode_projections(by_layer);
  std::filesystem::path part = path;
  part += ".part";
  std::ofstream file(part, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), std::ssize(bytes));
  file.close();
  if (!file) throw ConfigError(part.string(), "cannot be written");
  std::error_code error;
  std::filesystem::rename(part, path, error);
  if (error) throw ConfigError(path.string(), "cannot be replaced: " + error.message());
}

std::vector<Projection> load_projections(const std::filesystem::path& path,
                                         int num_layers,
                                         int64_t hidden_size,
                                         int dims) {
  const std::string where = path.string();
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    throw ConfigError(where, "is missing or not a regular file");
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes(sizeof(Header), '\0');
  file.read(bytes.data(), std::ssize(bytes));
  if (!file) throw ConfigError(where, "cannot be read, or is shorter than a header of 24 bytes");
  const Header header = decode_header(bytes, where);
  if (header.num_layers != static_cast<uint32_t>(num_layers) || header.hidden_size != hidden_size ||
      header.dims != static_cast<uint32_t>(dims)) {
    throw ConfigError(where, "holds " + std::to_string(header.num_layers) + " projections of " +
                                 std::to_string(header.hidden_size) + " to " +
                                 std::to_string(header.dims) + "; this model and configuration " +
                                 "need " + std::to_string(num_layers) + " of " +
                                 std::to_string(hidden_size) + " to " + std::to_string(dims));
  }
  bytes.resize(static_cast<size_t>(num_file_bytes(header)) + 1);  // one more, to find what follows
  file.read(bytes.data() + sizeof(header), std::ssize(bytes) - int64_t{sizeof(header)});
  bytes.resize(sizeof(header) + static_cast<size_t>(file.gcount()));
  return decode_projections(bytes, where);
}

}  // namespace augur
