#include "configs/load_config.h"

#include "configs/config_error.h"
#include "configs/yaml_reader.h"

namespace augur {

ConfigOverride parse_set_option(std::string_view text) {
  const size_t equals = text.find('=');
  const std::string option = "--set " + std::string(text);
  if (equals == std::string_view::npos || equals == 0)
    throw ConfigError(option, "accepted: KEY=VALUE, such as --set execution.num_threads=2");
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)), option};
}

namespace {

/// Sets a field from a value of the command line. Returns what is wrong, or nothing.
std::optional<std::string> set_from_text(const ConfigField& field, const std::string& text) {
  if (!field.is_list()) return parse_value(field, text, /*is_quoted=*/false);
  std::optional<std::vector<std::string>> items = read_yaml_list(text);
  if (items) return parse_list(field, std::move(*items));
  return "found \"" + text.substr(0, 80) + "\", accepted: one text, or a list such as [a, b]";
}

}  // namespace

std::string EffectiveConfig::source_of(const std::string& path) const {
  const auto found = sources.find(path);
  return found == sources.end() ? "default" : found->second;
}

void check_together(const EffectiveConfig& effective) {
  const ExecutionConfig& execution = effective.config.execution;
  if (execution.max_tokens_per_step > 0 &&
      execution.max_tokens_per_step < execution.max_batch_size) {
    const auto show = [&](const std::string& path, int64_t value) {
      return path + " " + std::to_string(value) + " (" + effective.source_of(path) + ")";
    };
    throw ConfigError(
        "execution",
        show("execution.max_tokens_per_step", execution.max_tokens_per_step) + " is less than " +
            show("execution.max_batch_size", execution.max_batch_size) +
            "; every running sequence needs a token of each step, so accepted: at least as many");
  }
}

EffectiveConfig load_config(const std::optional<std::filesystem::path>& file,
                            std::span<const ConfigOverride> overrides) {
  EffectiveConfig effective;
  if (file) read_yaml_file(*file, effective);
  const ConfigSchema schema = list_fields(effective.config);
  for (const ConfigOverride& given : overrides) {
    const ConfigField* field = schema.find_field(given.path);
    if (field == nullptr) {
      if (schema.is_section(given.path))
        throw ConfigError(given.option,
                          "\"" + given.path + "\" holds several keys; set one of them");
      const size_t dot = given.path.rfind('.');
      const std::string section = dot == std::string::npos ? "" : given.path.substr(0, dot);
      throw ConfigError(given.option, explain_unknown_key(schema, section, given.path));
    }
    if (const auto problem = set_from_text(*field, given.value))
      throw ConfigError(given.option, *problem);
    const size_t blank = given.option.find_first_of(" =");
    effective.sources[given.path] = given.option.substr(0, blank);
  }
  check_together(effective);
  return effective;
}

}  // namespace augur
