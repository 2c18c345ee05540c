#include "engine/server/http_parser.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <limits>
#include <optional>
#include <utility>

#include "kernels/require.h"

namespace augur::server {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr size_t kMaxLengthDigits = 18;  // fits int64_t

ApiError malformed(std::string message) {
  return bad_request("", std::move(message), "malformed_request");
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == '\x7f';
}

bool is_decimal(char c) {
  return c >= '0' && c <= '9';
}

bool is_host_char(char c) {
  return is_decimal(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("-._~:[]%").find(c) != std::string_view::npos;
}

std::string media_type(std::string_view value) {
  value = value.substr(0, value.find(';'));
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  std::string lower(value);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  }
  return lower;
}

// Whether the request line ends in a version that is well formed, though not one of ours.
bool names_other_version(std::string_view head) {
  constexpr std::string_view kName = "HTTP/";
  const std::string_view line = head.substr(0, head.find('\r'));
  const std::string_view version = line.substr(line.rfind(' ') + 1);  // npos + 1 is 0
  return version.size() == kName.size() + 3 && version.substr(0, kName.size()) == kName &&
         is_decimal(version[5]) && version[6] == '.' && is_decimal(version[7]) &&
         version != "HTTP/1.0" && version != "HTTP/1.1";
}

// What Beast finds. Its own checks end in an error code; ours leave the reason in `refusal`.
class HeadReader final : public http::basic_parser<true> {
 public:
  explicit HeadReader(HttpHead& head) : head_(head) {}

  std::optional<ApiError> refusal;

 private:
  void refuse(ApiError error, beast::error_code& ec) {
    refusal = std::move(error);
    ec = http::error::bad_field;  // any: ends the parsing
  }

  void on_request_impl(http::verb /*verb*/,
                       beast::string_view method,
                       beast::string_view target,
                       int version,
                       beast::error_code& /*ec*/) override {
    head_.method.assign(method.data(), method.size());
    target_.assign(target.data(), target.size());
    head_.is_http_1_0 = version == 10;
  }

  void on_field_impl(http::field field,
                     beast::string_view name,
                     beast::string_view beast_value,
                     beast::error_code& ec) override {
    const std::string_view value(beast_value.data(), beast_value.size());
    switch (field) {
      case http::field::host:
        if (++num_hosts_ > 1) return refuse(malformed("the header Host is given twice"), ec);
        if (!std::all_of(value.begin(), value.end(), is_host_char)) {
          return refuse(malformed("the header Host is no host and port"), ec);
        }
        return;
      case http::field::content_length:
        if (++num_lengths_ > 1 || value.empty() || value.size() > kMaxLengthDigits ||
            !std::all_of(value.begin(), value.end(), is_decimal)) {
          refuse(malformed("Content-Length has to be one number"), ec);
        }
        return;
      case http::field::transfer_encoding:
        if (++num_encodings_ > 1 || !beast::iequals(beast_value, "chunked")) {
          refuse(malformed("Transfer-Encoding can only be \"chunked\""), ec);
        }
        return;
      case http::field::authorization:
        if (has_authorization_) {
          return refuse(malformed("the header Authorization is given twice"), ec);
        }
        has_authorization_ = true;
        head_.authorization = value;
        return;
      case http::field::content_type:
        head_.content_type = media_type(value);
        return;
      case http::field::expect:
        if (!beast::iequals(beast_value, "100-continue")) {
          return refuse({417, "invalid_request_error", "expectation_failed", "",
                         "the header Expect can only be \"100-continue\""},
                        ec);
        }
        head_.expects_continue = true;
        return;
      default:
        break;
    }
    if (beast::iequals(name, "X-Request-Id")) {
      head_.request_id = ++num_request_ids_ == 1 ? value : std::string_view();
    }
  }

  void on_header_impl(beast::error_code& ec) override {
    if (num_hosts_ == 0 && !head_.is_http_1_0) {
      return refuse(malformed("the header Host is missing"), ec);
    }
    if (num_encodings_ > 0 && (num_lengths_ > 0 || head_.is_http_1_0)) {
      return refuse(malformed("Transfer-Encoding beside Content-Length, or in HTTP/1.0"), ec);
    }
    try {
      head_.target = normalise_target(target_);
    } catch (const ApiError& error) {
      return refuse(error, ec);
    }
    if (head_.target.path == "*" && head_.method != "OPTIONS") {
      return refuse(malformed("only OPTIONS can ask for \"*\""), ec);
    }
    head_.has_body = chunked() || content_length().value_or(0) > 0;
    // HTTP/1.0 could ask for it too, by a header that proxies treat differently.
    head_.keeps_alive = !head_.is_http_1_0 && keep_alive();
    head_.expects_continue = head_.expects_continue && !head_.is_http_1_0 && head_.has_body;
  }

  // Only heads are put in, and requests have no reason.
  size_t on_body_impl(beast::string_view, beast::error_code&) override { return 0; }
  size_t on_chunk_body_impl(uint64_t, beast::string_view, beast::error_code&) override { return 0; }
  void on_chunk_header_impl(uint64_t, beast::string_view, beast::error_code&) override {}
  void on_response_impl(int, beast::string_view, int, beast::error_code&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, beast::error_code&) override {}
  void on_finish_impl(beast::error_code&) override {}

  HttpHead& head_;
  std::string target_;
  bool has_authorization_ = false;
  int num_hosts_ = 0;
  int num_lengths_ = 0;
  int num_encodings_ = 0;
  int num_request_ids_ = 0;
};

}  // namespace

HttpParser::HttpParser(int64_t max_header_bytes, int64_t max_body_bytes)
    : max_header_bytes_(max_header_bytes), max_body_bytes_(max_body_bytes), error_(malformed("")) {
  AUGUR_REQUIRE(max_header_bytes > 0 && max_header_bytes < std::numeric_limits<int32_t>::max(),
                "max_header_bytes is " + std::to_string(max_header_bytes));
  AUGUR_REQUIRE(max_body_bytes >= 0, "max_body_bytes is " + std::to_string(max_body_bytes));
}

void HttpParser::reset() {
  state_ = State::kIdle;
  head_ = {};
  body_ = {};  // gives a large body's memory back, which clear() would keep
  head_bytes_ = {};
  line_bytes_ = 0;
  skipped_blank_line_ = false;
  missing_bytes_ = 0;
  chunks_.reset();
}

size_t HttpParser::feed(std::string_view bytes) {
  AUGUR_REQUIRE(state_ != State::kComplete && state_ != State::kFailed, "a request has ended");
  if (bytes.empty()) return 0;
  if (state_ == State::kBody) return chunks_ ? feed_chunks(bytes) : feed_length(bytes);
  state_ = State::kHead;
  return feed_head(bytes);
}

size_t HttpParser::feed_head(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool is_end = take_head_byte(bytes[i]);
    if (is_end) parse_head();
    if (state_ != State::kHead) return i + 1;
  }
  return bytes.size();
}

// Refuses bytes that a head cannot hold as soon as they come; true at its end.
bool HttpParser::take_head_byte(char c) {
  const char previous = head_bytes_.empty() ? '\n' : head_bytes_.back();
  if (previous == '\r' && c != '\n') {
    fail(malformed("a carriage return without a line feed"));
  } else if (c == '\n' && previous != '\r') {
    fail(malformed("a line feed without a carriage return"));
  } else if (previous == '\n' && (c == ' ' || c == '\t')) {
    fail(malformed("a line of the header begins with a blank"));
  } else if (is_control(c) && c != '\t' && c != '\r' && c != '\n') {
    fail(malformed("a control character in the header"));
  } else if (std::ssize(head_bytes_) >= max_header_bytes_) {
    fail_header_too_large();
  }
  if (state_ == State::kFailed) return false;
  head_bytes_ += c;
  if (c != '\r' && c != '\n') ++line_bytes_;
  if (c != '\n') return false;
  if (line_bytes_ > 0) {
    line_bytes_ = 0;
    return false;
  }
  if (head_bytes_.size() > 2) return true;
  // RFC 9112, section 2.2: an empty line before a request is passed over. One is enough.
  if (skipped_blank_line_) fail(malformed("empty lines in place of a request"));
  skipped_blank_line_ = true;
  head_bytes_.clear();
  return false;
}

void HttpParser::parse_head() {
  const std::string bytes = std::exchange(head_bytes_, {});
  HeadReader reader(head_);
  reader.header_limit(static_cast<uint32_t>(max_header_bytes_) + 1);  // ours was checked
  reader.body_limit(boost::none);
  beast::error_code ec;
  reader.put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
  if (reader.refusal) return fail(std::move(*reader.refusal));
  if (ec == http::error::bad_version && names_other_version(bytes)) {
    return fail({505, "invalid_request_error", "unsupported_version", "",
                 "HTTP/1.1 and HTTP/1.0 are spoken here"});
  }
  if (ec || !reader.is_header_done()) {
    return fail(malformed("not an HTTP request: " + ec.message()));
  }
  state_ = State::kBody;
  if (reader.chunked()) {
    chunks_.emplace(max_body_bytes_, max_header_bytes_);
    return;
  }
  missing_bytes_ = static_cast<int64_t>(reader.content_length().value_or(0));
  if (missing_bytes_ > max_body_bytes_) return fail_body_too_large();
  if (missing_bytes_ == 0) state_ = State::kComplete;
}

size_t HttpParser::feed_length(std::string_view bytes) {
  const size_t used = std::min(bytes.size(), static_cast<size_t>(missing_bytes_));
  body_.append(bytes.substr(0, used));
  missing_bytes_ -= static_cast<int64_t>(used);
  if (missing_bytes_ == 0) state_ = State::kComplete;
  return used;
}

size_t HttpParser::feed_chunks(std::string_view bytes) {
  std::string_view rest = bytes;
  switch (chunks_->decode(rest, body_)) {
    case ChunkDecoder::Outcome::kMore:
      break;
    case ChunkDecoder::Outcome::kDone:
      state_ = State::kComplete;
      break;
    case ChunkDecoder::Outcome::kMalformed:
      fail(malformed("a broken chunk of the body"));
      break;
    case ChunkDecoder::Outcome::kBodyTooLarge:
      fail_body_too_large();
      break;
    case ChunkDecoder::Outcome::kExtrasTooLarge:
      fail_header_too_large();
      break;
  }
  return bytes.size() - rest.size();
}

void HttpParser::fail(ApiError error) {
  error_ = std::move(error);
  state_ = State::kFailed;
}

void HttpParser::fail_body_too_large() {
  fail({413, "invalid_request_error", "body_too_large", "",
        fmt::format("the request's body is larger than {} bytes", max_body_bytes_)});
}

void HttpParser::fail_header_too_large() {
  fail({431, "invalid_request_error", "header_too_large", "",
        fmt::format("the request's header is larger than {} bytes", max_header_bytes_)});
}

}  // namespace augur::server
