# Writes the page's files into a C++ file that defines page_files() of engine/server/page.h.
#   cmake -DFOLDER=engine/server/page -DFILES=index.html,page.css -DOUTPUT=page_files.cc
#     -P embed.cmake
# index.html is served as "/", every other file as "/page/NAME".
cmake_minimum_required(VERSION 3.25)

set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")

string(REPLACE "," ";" names "${FILES}")
set(arrays "")
set(entries "")
set(index 0)
foreach(name IN LISTS names)
  string(REGEX REPLACE "^.*[.]" "" extension "${name}")
  if(NOT DEFINED type_${extension})
    message(FATAL_ERROR "${name}: no content type is known for .${extension}; "
      "embed.cmake knows html, css, js and svg")
  endif()
  if(name STREQUAL "index.html")
    set(path "/")
  else()
    set(path "/page/${name}")
  endif()
  file(READ "${FOLDER}/${name}" bytes HEX)
  file(SHA256 "${FOLDER}/${name}" digest)
  string(SUBSTRING "${digest}" 0 16 digest)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  # 24 bytes a line keep the file readable to tools that dislike long lines.
  string(REPEAT "....." 24 line)
  string(REGEX REPLACE "(${line})" "\\1\n" bytes "${bytes}")
  string(APPEND arrays "constexpr unsigned char kFile${index}[] = {\n${bytes}};\n\n")
  string(APPEND entries "    PageFile{\"${path}\", \"${type_${extension}}\", "
    "text_of(kFile${index}), \"\\\"${digest}\\\"\"},\n")
  math(EXPR index "${index} + 1")
endforeach()

file(WRITE "${OUTPUT}" "// Made by embed.cmake from the files in engine/server/page.
#include <array>
#include <cstddef>

#include \"engine/server/page.h\"

namespace augur::server {
namespace {

${arrays}template <size_t kSize>
std::string_view text_of(const unsigned char (&bytes)[kSize]) {
  return {reinterpret_cast<const char*>(bytes), kSize};
}

}  // namespace

std::span<const PageFile> page_files() {
  static const std::array files = {
${entries}  };
  return files;
}

}  // namespace augur::server
")
