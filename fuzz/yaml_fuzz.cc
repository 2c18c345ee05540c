// Feeds bytes to the YAML reader as a config file. What it takes must be written and read back
// the same; what it does not take must be refused with ConfigError.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "configs/config_error.h"
#include "configs/config_writer.h"
#include "configs/yaml_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  augur::EffectiveConfig effective;
  try {
    augur::read_yaml(text, "fuzz.yaml", effective);
  } catch (const augur::ConfigError&) {
    return 0;
  }
  // A path that is not UTF-8 has no YAML form that yaml-cpp would give back.
  for (const char c : effective.config.model.path)
    if (static_cast<unsigned char>(c) >= 0x80) return 0;
  augur::EffectiveConfig again;
  effective.sources.clear();
  augur::read_yaml(augur::write_config(effective), "again.yaml", again);
  again.sources.clear();
  if (augur::write_config(again) != augur::write_config(effective)) std::abort();
  return 0;
}
