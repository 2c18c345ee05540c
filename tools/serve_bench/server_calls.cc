#include "tools/serve_bench/server_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "configs/config_error.h"
#include "tools/serve_bench/chunk_scanner.h"

namespace augur::serve_bench {
namespace {

namespace json = boost::json;

constexpr size_t kMaxBodyBytes = size_t{16} << 20;

class Collector : public ResponseHandler {
 public:
  bool on_body(const ResponseHead& head, std::string_view bytes, int64_t) override {
    body.append(bytes);
    return body.size() <= kMaxBodyBytes;
  }
  void on_end(const ResponseHead& head, const HttpEnd& end, int64_t) override {
    status = head.status;
    how = end;
    is_done = true;
  }

  int status = 0;
  std::string body;
  HttpEnd how;
  bool is_done = false;
};

std::shared_ptr<Collector> call(HttpClient& client,
                                std::string_view method,
                                std::string_view path) {
  const auto answer = std::make_shared<Collector>();
  client.start(method, path, "", answer);
  client.run([&] { return answer->is_done; });
  if (answer->how.kind == HttpEnd::Kind::kConnectFailed)
    throw ConfigError("--url", "the server cannot be reached: " + answer->how.detail);
  if (answer->how.kind != HttpEnd::Kind::kComplete)
    throw ConfigError(std::string(path), "no answer: " + answer->how.detail);
  return answer;
}

void require_success(const Collector& answer, std::string_view path) {
  if (answer.status == 200) return;
  constexpr size_t kMaxMessageBytes = 300;
  const std::string said = ChunkScanner().scan(answer.body).error;
  std::string what = fmt::format("the server answered {}: {}", answer.status,
                                 (said.empty() ? answer.body : said).substr(0, kMaxMessageBytes));
  if (answer.status == 401 || answer.status == 403) what += "; a key is given by --api-key-file";
  throw ConfigError(std::string(path), what);
}

// The number called `key` that comes first, here or further in.
int64_t find_count(const json::value& value, std::string_view key, int depth) {
  constexpr int kMaxDepth = 8;
  if (depth > kMaxDepth) return 0;
  if (const json::object* object = value.if_object()) {
    const json::value* found = object->if_contains(key);
    if (found != nullptr && found->is_int64()) return std::max<int64_t>(0, found->as_int64());
    for (const auto& member : *object)
      if (const int64_t count = find_count(member.value(), key, depth + 1); count > 0) return count;
  } else if (const json::array* array = value.if_array()) {
    for (const json::value& element : *array)
      if (const int64_t count = find_count(element, key, depth + 1); count > 0) return count;
  }
  return 0;
}

}  // namespace

std::string first_model(HttpClient& client) {
  constexpr std::string_view kPath = "/v1/models";
  const auto answer = call(client, "GET", kPath);
  require_success(*answer, kPath);
  json::error_code error;
  const json::value listed = json::parse(answer->body, error);
  json::error_code missing;
  const json::value* id = error ? nullptr : listed.find_pointer("/data/0/id", missing);
  if (id == nullptr || !id->is_string())
    throw ConfigError(std::string(kPath), "the server lists no model; --model NAME names one");
  return std::string(id->as_string());
}

int64_t served_vocab_size(HttpClient& client) {
  for (const char* path : {"/server_info", "/get_server_info"}) {
    const auto answer = call(client, "GET", path);
    if (answer->status != 200) continue;
    json::error_code error;
    const json::value info = json::parse(answer->body, error);
    if (error) continue;
    if (const int64_t size = find_count(info, "vocab_size", 0); size > 0) return size;
  }
  return 0;
}

void flush_server_cache(HttpClient& client) {
  constexpr std::string_view kPath = "/flush_cache";
  require_success(*call(client, "POST", kPath), kPath);
}

}  // namespace augur::serve_bench
