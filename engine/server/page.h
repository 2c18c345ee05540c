// The web page, whose files are part of the program.
//
// They are written by hand in page/ and embedded when the program is built (page/embed.cmake).
// None of them is secret, and all must be served without an API key: a browser asks for them
// before its user can give one.
// Threading: immutable; any thread.
#pragma once

#include <span>
#include <string_view>

#include "engine/server/http_message.h"

namespace augur::server {

struct PageFile {
  std::string_view path;          // as requested: "/", "/page/page.css"
  std::string_view content_type;  // "text/html; charset=utf-8"
  std::string_view body;
  std::string_view etag;  // quoted; of the bytes
};

/// What the page may do: run and show what this server sends, talk to this server, no more.
inline constexpr std::string_view kPageSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

/// All files, the page itself first.
std::span<const PageFile> page_files();

/// The file at `path`, or null.
const PageFile* find_page_file(std::string_view path);

/// The file with the headers it is to be served with: kPageSecurityPolicy, ETag, "Cache-Control:
/// no-cache" so that a newer server shows its own page, and those that forbid guessing its type and
/// telling other servers where a link was.
HttpResponse page_response(const PageFile& file);

}  // namespace augur::server
