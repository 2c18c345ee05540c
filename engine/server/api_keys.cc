#include "engine/server/api_keys.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "configs/config_error.h"

namespace augur::server {
namespace {

constexpr mode_t kAllowedMode = 0640;

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// Mode and content are of one open file, so that nobody can swap it between the two.
std::string read_private_file(const std::string& name) {
  const auto fail = [&](const std::string& what) { throw ConfigError(name, what); };
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail("cannot be opened: " + std::generic_category().message(errno));
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) fail("is not a plain file");
  if ((status.st_mode & 07777 & ~kAllowedMode) != 0) {
    fail(
        fmt::format("holds keys, but its mode is {:04o}; others must not read or write it: "
                    "chmod 600 or 640",
                    status.st_mode & 07777));
  }
  // One byte more than may be there, so that a file that has grown since is noticed.
  std::string content(static_cast<size_t>(ApiKeys::kMaxFileBytes) + 1, '\0');
  size_t num_read = 0;
  while (num_read < content.size()) {
    const ssize_t count = ::read(descriptor, content.data() + num_read, content.size() - num_read);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot be read: " + std::generic_category().message(errno));
    if (count == 0) break;
    num_read += static_cast<size_t>(count);
  }
  if (num_read > static_cast<size_t>(ApiKeys::kMaxFileBytes)) {
    fail(fmt::format("is larger than the {} bytes that a list of keys may have",
                     ApiKeys::kMaxFileBytes));
  }
  content.resize(num_read);
  return content;
}

// The words of a line up to its comment.
std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  std::vector<std::string_view> words;
  size_t begin = 0;
  while ((begin = line.find_first_not_of(kBlanks, begin)) != std::string_view::npos) {
    if (line[begin] == '#') break;
    const size_t end = std::min(line.find_first_of(kBlanks, begin), line.size());
    words.push_back(line.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

void check_key(std::string_view key, const std::string& where) {
  if (key.size() < ApiKeys::kMinKeyBytes || key.size() > ApiKeys::kMaxKeyBytes) {
    throw ConfigError(where, fmt::format("the key has {} characters; {} to {} are accepted",
                                         key.size(), ApiKeys::kMinKeyBytes, ApiKeys::kMaxKeyBytes));
  }
  if (!std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < '\x7f'; })) {
    throw ConfigError(where, "the key has a character outside printable ASCII");
  }
}

void check_name(std::string_view name, const std::string& where) {
  const bool is_plain = std::all_of(name.begin(), name.end(), [](char c) {
    return is_alphanumeric(c) || c == '.' || c == '_' || c == '-';
  });
  if (!is_plain || name.size() > ApiKeys::kMaxNameBytes) {
    // The name is not quoted: a key may stand in its place by mistake.
    throw ConfigError(where, fmt::format("the first of several words is a name; it has up to {} "
                                         "letters, digits, '.', '_' or '-'",
                                         ApiKeys::kMaxNameBytes));
  }
}

// The text after "Bearer", whose case does not matter; empty when there is none.
std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer";
  if (authorization.size() <= kScheme.size() || authorization[kScheme.size()] != ' ') return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if ((authorization[i] | 0x20) != kScheme[i]) return {};
  }
  const size_t begin = authorization.find_first_not_of(' ', kScheme.size());
  return begin == std::string_view::npos ? std::string_view() : authorization.substr(begin);
}

}  // namespace

ApiKeys::PaddedKey ApiKeys::padded(std::string_view key) {
  PaddedKey bytes{};  // no key holds a zero, so that different keys stay different
  std::copy(key.begin(), key.end(), bytes.begin());
  return bytes;
}

ApiKeys::Entry ApiKeys::read_entry(const std::vector<std::string_view>& words,
                                   int line_number,
                                   const std::string& where) {
  if (words.size() > 3) throw ConfigError(where, "expected KEY, NAME KEY, or NAME KEY admin");
  if (words.size() == 3 && words[2] != "admin") {
    throw ConfigError(where, "the third word can only be \"admin\"");
  }
  const std::string_view key = words.size() == 1 ? words[0] : words[1];
  if (words.size() > 1) check_name(words[0], where);
  check_key(key, where);
  return {{words.size() == 1 ? fmt::format("key{}", line_number) : std::string(words[0]),
           words.size() == 3},
          padded(key)};
}

ApiKeys ApiKeys::from_file(const std::filesystem::path& file) {
  const std::string content = read_private_file(file.string());
  ApiKeys keys;
  int line_number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const auto words = words_of(std::string_view(content).substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    if (words.empty()) continue;
    const std::string where = fmt::format("{}:{}", file.string(), line_number);
    Entry entry = read_entry(words, line_number, where);
    for (const Entry& other : keys.entries_) {
      if (other.padded == entry.padded) {
        throw ConfigError(where, fmt::format("the same key as that of {}", other.key.name));
      }
      if (other.key.name == entry.key.name) {
        throw ConfigError(where, fmt::format("a second key named {}", entry.key.name));
      }
    }
    if (keys.entries_.size() == kMaxKeys) {
      throw ConfigError(where, fmt::format("more than {} keys", kMaxKeys));
    }
    keys.entries_.push_back(std::move(entry));
  }
  if (keys.entries_.empty()) {
    throw ConfigError(file.string(),
                      "has no key; expected a line KEY, NAME KEY, or NAME KEY admin");
  }
  return keys;
}

std::vector<std::string> ApiKeys::names() const {
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.key.name);
  return names;
}

const ApiKey* ApiKeys::find(std::string_view authorization) const {
  const std::string_view token = bearer_token(authorization);
  // Its length and characters are the client's own: to reject by them tells it nothing.
  if (token.empty() || token.size() > kMaxKeyBytes) return nullptr;
  if (token.find('\0') != std::string_view::npos) return nullptr;
  const PaddedKey candidate = padded(token);
  const ApiKey* found = nullptr;
  for (const Entry& entry : entries_) {
    // Volatile: the compiler must not leave the loop once the outcome is certain.
    volatile unsigned char difference = 0;
    for (size_t i = 0; i < kMaxKeyBytes; ++i) {
      difference = static_cast<unsigned char>(
          difference | static_cast<unsigned char>(candidate[i] ^ entry.padded[i]));
    }
    if (difference == 0) found = &entry.key;
  }
  return found;
}

}  // namespace augur::server
