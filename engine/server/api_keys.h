// The keys that let requests in.
//
// A file has one key a line: KEY, NAME KEY, or NAME KEY admin; a word that begins with '#' begins a
// comment. A key without a name is called "key1", "key2", ... by its line. Names are what logs,
// fair queueing and cache isolation see; the keys themselves are never shown.
// Comparison takes the same time whatever is right about a wrong key: keys are kept padded to one
// length, and what a client sent is compared whole with every one of them.
// Threading: immutable.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace augur::server {

struct ApiKey {
  std::string name;
  bool is_admin = false;
};

class ApiKeys {
 public:
  static constexpr size_t kMinKeyBytes = 16;
  static constexpr size_t kMaxKeyBytes = 512;
  static constexpr size_t kMaxNameBytes = 64;
  static constexpr int64_t kMaxFileBytes = 1 << 20;
  static constexpr size_t kMaxKeys = 1024;  // each costs every request a comparison

  /// Throws ConfigError, with file and line, for a file that cannot be read, others may write or
  /// read (mode beyond 0640), an empty list, a key shorter than 16 or longer than 512 characters or
  /// with characters outside printable ASCII, a repeated name or key, a name of other characters
  /// than letters, digits, '.', '_' and '-', or an unknown third word.
  static ApiKeys from_file(const std::filesystem::path& file);

  /// The names of all keys, in the order of the file.
  std::vector<std::string> names() const;

  /// The key that an Authorization header ("Bearer KEY") gives, or null.
  const ApiKey* find(std::string_view authorization) const;

 private:
  using PaddedKey = std::array<char, kMaxKeyBytes>;
  struct Entry {
    ApiKey key;
    PaddedKey padded;
  };
  static PaddedKey padded(std::string_view key);
  static Entry read_entry(const std::vector<std::string_view>& words,
                          int line_number,
                          const std::string& where);

  std::vector<Entry> entries_;
};

}  // namespace augur::server
