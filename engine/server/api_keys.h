// The keys that let requests in.
//
// A file has one key a line: KEY, NAME KEY, or NAME KEY admin; '#' begins a comment. A key without
// a name is called "key1", "key2", ... by its line. Names are what logs, fair queueing and cache
// isolation see; the keys themselves are never shown.
// Comparison takes the same time whatever is right about a wrong key: digests of equal length are
// compared whole, and against every key.
// Threading: immutable.
#pragma once

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
  /// Throws ConfigError, with file and line, for a file that cannot be read, others may write or
  /// read (mode beyond 0640), an empty list, a key shorter than 16 or longer than 512 characters or
  /// with characters outside printable ASCII, a repeated name or key, or an unknown third word.
  static ApiKeys from_file(const std::filesystem::path& file);

  /// The key that an Authorization header ("Bearer KEY") gives, or null.
  const ApiKey* find(std::string_view authorization) const;

 private:
  struct Entry;
  std::vector<Entry> entries_;
};

}  // namespace augur::server
