#include "configs/engine_config.h"

#include <type_traits>

namespace augur {
namespace {

/// Adds the fields of one struct of the config, and of the structs within it, to a schema.
template <typename Struct>
class FieldLister {
 public:
  FieldLister(Struct& object, std::string prefix, ConfigSchema& schema)
      : object_(object), prefix_(std::move(prefix)), schema_(schema) {}

  template <typename Member>
  void operator()(std::string_view name,
                  Member Struct::*member,
                  std::string_view help,
                  FieldRule rule = {}) {
    std::string path = prefix_ + std::string(name);
    Member& value = object_.*member;
    if constexpr (std::is_enum_v<Member>) {
      static_assert(std::is_same_v<std::underlying_type_t<Member>, uint8_t>);
      static_assert(!kEnumWords<Member>.empty());
      // uint8_t is a character type, so it may alias the enum.
      schema_.fields.push_back(
          {path, help, rule, EnumRef{reinterpret_cast<uint8_t*>(&value), kEnumWords<Member>}});
    } else if constexpr (requires { &Member::template visit_fields<FieldLister<Member>>; }) {
      schema_.sections.push_back({path, help});
      FieldLister<Member> inner(value, path + ".", schema_);
      Member::visit_fields(inner);
    } else {
      schema_.fields.push_back({path, help, rule, &value});
    }
  }

 private:
  Struct& object_;
  const std::string prefix_;
  ConfigSchema& schema_;
};

}  // namespace

ConfigSchema list_fields(EngineConfig& config) {
  ConfigSchema schema;
  FieldLister<EngineConfig> lister(config, "", schema);
  EngineConfig::visit_fields(lister);
  return schema;
}

const ConfigField* ConfigSchema::find_field(std::string_view path) const {
  for (const ConfigField& field : fields)
    if (field.path == path) return &field;
  return nullptr;
}

bool ConfigSchema::is_section(std::string_view path) const {
  if (path.empty()) return true;
  for (const ConfigSection& section : sections)
    if (section.path == path) return true;
  return false;
}

}  // namespace augur
