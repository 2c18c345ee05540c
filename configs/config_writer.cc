#include "configs/config_writer.h"

#include <algorithm>
#include <vector>

namespace augur {
namespace {

std::string_view parent_of(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

/// Whether a path lies in one of these top-level sections, or is one.
bool is_within(std::string_view path, std::span<const std::string_view> sections) {
  return std::find(sections.begin(), sections.end(), path.substr(0, path.find('.'))) !=
         sections.end();
}

std::string indent_of(std::string_view path) {
  return std::string(2 * static_cast<size_t>(std::count(path.begin(), path.end(), '.')), ' ');
}

}  // namespace

std::string write_config(const EffectiveConfig& effective,
                         std::span<const std::string_view> left_out) {
  EngineConfig config = effective.config;  // a schema points into a config that may change
  const ConfigSchema schema = list_fields(config);
  struct Line {
    std::string text;
    std::string source;
  };
  std::vector<Line> lines;
  for (const ConfigSection& section : schema.sections) {
    if (is_within(section.path, left_out)) continue;
    lines.push_back(
        {indent_of(section.path) + section.path.substr(section.path.rfind('.') + 1) + ":", ""});
    for (const ConfigField& field : schema.fields) {
      if (parent_of(field.path) != section.path) continue;
      lines.push_back({indent_of(field.path) + field.path.substr(section.path.size() + 1) + ": " +
                           format_value(field),
                       effective.source_of(field.path)});
    }
  }
  size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.text.size());
  width = std::min<size_t>(width, 48);  // one long path does not push every comment away
  std::string out;
  for (Line& line : lines) {
    if (!line.source.empty()) {
      line.text.resize(std::max(width, line.text.size()), ' ');
      std::replace(line.source.begin(), line.source.end(), '\n', ' ');
      line.text += "  # " + line.source;
    }
    out += line.text + "\n";
  }
  return out;
}

std::string config_help(std::span<const std::string_view> left_out) {
  EngineConfig defaults;
  std::string out;
  for (const ConfigField& field : list_fields(defaults).fields) {
    if (is_within(field.path, left_out)) continue;
    out += "  " + field.path + "  (" + accepted_values(field) + "; default " + format_value(field) +
           ")\n      " + std::string(field.help) + "\n";
  }
  return out;
}

std::string config_reference_markdown(bool of_server) {
  EngineConfig defaults;
  const ConfigSchema schema = list_fields(defaults);
  std::string out;
  for (const ConfigSection& section : schema.sections) {
    if (is_within(section.path, kServerSections) != of_server) continue;
    std::string rows;
    for (const ConfigField& field : schema.fields)
      if (parent_of(field.path) == section.path)
        rows += "| `" + field.path + "` | `" + format_value(field) + "` | " +
                accepted_values(field) + " | " + std::string(field.help) + " |\n";
    out += "### `" + section.path + "`\n" + std::string(section.help) + "\n\n";
    if (!rows.empty())
      out += "| key | default | accepted | meaning |\n| --- | --- | --- | --- |\n" + rows + "\n";
  }
  return out;
}

}  // namespace augur
