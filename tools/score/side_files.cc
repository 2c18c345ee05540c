#include "tools/score/side_files.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "configs/config_error.h"
#include "tools/score/output_file.h"

namespace augur::score {
namespace {

namespace fs = std::filesystem;

struct NamedFile {
  std::string option;
  std::string path;
};

/// Devices and pipes may be named twice.
bool is_same_plain_file(const std::string& a, const std::string& b) {
  std::error_code error;
  const bool is_there = fs::exists(a, error) && fs::exists(b, error);
  if (is_there) return fs::is_regular_file(a, error) && fs::equivalent(a, b, error);
  return fs::weakly_canonical(a, error) == fs::weakly_canonical(b, error);
}

void check_place(const NamedFile& file) {
  if (file.path == "-") throw ConfigError(file.option, "found \"-\", accepted: the name of a file");
  std::error_code error;
  if (fs::is_directory(file.path, error))
    throw ConfigError(file.option, file.path + " is a folder, accepted: the name of a file");
  const fs::path folder = fs::absolute(file.path, error).parent_path();
  if (!fs::is_directory(folder, error))
    throw ConfigError(file.option, "the folder " + folder.string() + " is not there");
}

}  // namespace

ReportPaths report_paths(const std::string& path) {
  if (path.empty()) return {};
  if (path.ends_with(".json")) return {.json = path};
  if (path.ends_with(".svg")) return {.svg = path};
  std::error_code error;
  const bool is_folder = path.ends_with('/') || fs::is_directory(path, error);
  const std::string stem = is_folder ? (fs::path(path) / "experts").string() : path;
  return {.json = stem + ".json", .svg = stem + ".svg"};
}

void check_side_files(const Options& options) {
  const ReportPaths reports = report_paths(options.expert_report);
  std::vector<NamedFile> checked;
  for (const NamedFile& file :
       {NamedFile{"--summary", options.summary}, NamedFile{"--expert-report", reports.json},
        NamedFile{"--expert-report", reports.svg},
        NamedFile{"--record-routing", options.record_routing}}) {
    if (!file.path.empty()) checked.push_back(file);
  }
  std::vector<NamedFile> others;
  if (options.input != "-") others.push_back({"--input", options.input});
  if (options.output != "-") {
    others.push_back({"--output", options.output});
    others.push_back({"--output's journal", options.output + ".state"});
  }
  others.push_back(
      {"--errors", options.errors.empty() ? options.output + ".errors.jsonl" : options.errors});
  for (const NamedFile& file : checked) {
    check_place(file);
    for (const NamedFile& other : others) {
      if (!is_same_plain_file(file.path, other.path)) continue;
      throw ConfigError(file.option, file.path + " is the file of " + other.option +
                                         " too, accepted: another one");
    }
    others.push_back(file);
  }
}

void write_side_file(const std::string& path, std::string_view subject, std::string_view text) {
  errno = 0;
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (file.flush()) return;
  const std::string reason = errno != 0 ? std::string(": ") + strerror(errno) : "";
  throw OutputError(path + ": " + std::string(subject) + " cannot be written" + reason);
}

}  // namespace augur::score
