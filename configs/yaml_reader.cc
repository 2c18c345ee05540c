#include "configs/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "configs/config_error.h"

namespace augur {
namespace {

/// Takes the parser's events one by one, so that nothing is built from the text but the values.
class ConfigEvents final : public YAML::EventHandler {
 public:
  ConfigEvents(const std::string& file_name, EffectiveConfig& effective)
      : file_name_(file_name), effective_(effective), schema_(list_fields(effective.config)) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++num_documents_ > 1) refuse(mark, "", "found a second document (---), accepted: one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (list_ != nullptr) refuse(mark, key_, "found an empty item, accepted: text");
    if (awaits_key()) refuse(mark, "", "found an empty key, accepted: the name of a key");
    const std::string path = take_key();
    if (schema_.is_section(path)) return;  // a section with all its keys commented out
    refuse(key_mark_, path,
           "found nothing, accepted: " + accepted_values(*schema_.find_field(path)));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, key_, "found an alias (*name), accepted: the value itself");
  }

  void OnScalar(const YAML::Mark& mark,
                const std::string& tag,
                YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    // yaml-cpp gives "?" to plain scalars and "!" to quoted ones.
    if (tag != "?" && tag != "!") refuse(mark, key_, "found a tag (!name), accepted: no tag");
    if (list_ != nullptr) {
      items_.push_back(value);
      return;
    }
    if (awaits_key()) {
      start_key(mark, value);
      return;
    }
    const std::string path = take_key();
    const ConfigField* field = schema_.find_field(path);
    if (field == nullptr) {
      const std::string where = path.empty() ? "" : "in \"" + path + "\" ";
      refuse(mark, path,
             "found the value \"" + value.substr(0, 80) + "\", accepted " + where +
                 "are keys with values, such as execution: {num_threads: 2}");
    }
    if (const auto problem = parse_value(*field, value, tag == "!")) refuse(mark, path, *problem);
    effective_.sources[path] = file_name_ + ":" + std::to_string(mark.line + 1);
  }

  void OnSequenceStart(const YAML::Mark& mark,
                       const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    refuse_anchor(mark, anchor);
    if (tag != "?" && !tag.empty()) refuse(mark, key_, "found a tag (!name), accepted: no tag");
    if (list_ != nullptr) refuse(mark, key_, "found a list within the list, accepted: text");
    list_ = schema_.find_field(key_);
    if (list_ == nullptr) refuse(mark, key_, "found a list, accepted: keys with values");
    if (!list_->is_list()) refuse(mark, key_, "found a list, accepted: " + accepted_values(*list_));
  }
  void OnSequenceEnd() override {
    const std::string path = take_key();
    if (const auto problem = parse_list(*std::exchange(list_, nullptr), std::exchange(items_, {})))
      refuse(key_mark_, path, *problem);
    effective_.sources[path] = file_name_ + ":" + std::to_string(key_mark_.line + 1);
  }

  void OnMapStart(const YAML::Mark& mark,
                  const std::string& tag,
                  YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    refuse_anchor(mark, anchor);
    if (tag != "?" && !tag.empty()) refuse(mark, key_, "found a tag (!name), accepted: no tag");
    if (list_ != nullptr) refuse(mark, key_, "found keys within the list, accepted: text");
    if (awaits_key()) refuse(mark, "", "found a map as a key, accepted: the name of a key");
    const std::string path = take_key();
    if (const ConfigField* field = schema_.find_field(path))
      refuse(mark, path, "found keys within it, accepted: " + accepted_values(*field));
    sections_.push_back(path);
  }

  void OnMapEnd() override { sections_.pop_back(); }

 private:
  /// Within a map and without a key whose value is due.
  bool awaits_key() const { return !sections_.empty() && !has_key_; }

  void start_key(const YAML::Mark& mark, const std::string& name) {
    const std::string& section = sections_.back();
    const std::string path = section.empty() ? name : section + "." + name;
    // A dotted name at the top would name a field without being in its section.
    const bool is_known = name.find('.') == std::string::npos && !name.empty() &&
                          (schema_.find_field(path) != nullptr || schema_.is_section(path));
    if (!is_known) refuse(mark, "", explain_unknown_key(schema_, section, path));
    if (!seen_.insert(path).second)
      refuse(mark, path, "found a second time, accepted: each key once");
    key_ = path;
    key_mark_ = mark;
    has_key_ = true;
  }

  std::string take_key() {
    has_key_ = false;
    return std::exchange(key_, std::string());
  }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) refuse(mark, key_, "found an anchor (&name), accepted: the value alone");
  }

  [[noreturn]] void refuse(const YAML::Mark& mark,
                           const std::string& path,
                           const std::string& problem) const {
    const std::string where = file_name_ + ":" + std::to_string(mark.line + 1);
    throw ConfigError(path.empty() ? where : where + ": " + path, problem);
  }

  const std::string file_name_;
  EffectiveConfig& effective_;
  const ConfigSchema schema_;
  std::vector<std::string> sections_;  // paths of the open maps; the document's own is ""
  std::string key_;                    // path of the key whose value comes next
  YAML::Mark key_mark_;
  bool has_key_ = false;
  const ConfigField* list_ = nullptr;  // the field whose items come; key_ is still its path
  std::vector<std::string> items_;
  std::set<std::string> seen_;
  int num_documents_ = 0;
};

/// Takes one flow sequence of scalars.
class ListEvents final : public YAML::EventHandler {
 public:
  explicit ListEvents(std::vector<std::string>& items) : items_(items) {}
  bool is_list() const { return num_starts_ == 1 && !is_other_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override { is_other_ = true; }
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override { is_other_ = true; }
  void OnScalar(const YAML::Mark&,
                const std::string&,
                YAML::anchor_t,
                const std::string& value) override {
    items_.push_back(value);
  }
  void OnSequenceStart(const YAML::Mark&,
                       const std::string&,
                       YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    ++num_starts_;
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&,
                  const std::string&,
                  YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    is_other_ = true;
  }
  void OnMapEnd() override {}

 private:
  std::vector<std::string>& items_;
  int num_starts_ = 0;
  bool is_other_ = false;
};

/// YAML forbids tabs as indentation; yaml-cpp reads them as something else than was meant.
void refuse_tab_indentation(std::string_view text, const std::string& file_name) {
  int line = 1;
  for (size_t at = 0; at < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view row = text.substr(at, end - at);
    const size_t indentation = std::min(row.find_first_not_of(" \t\r"), row.size());
    if (indentation < row.size() && row[indentation] != '#' &&
        row.substr(0, indentation).find('\t') != std::string_view::npos)
      throw ConfigError(file_name + ":" + std::to_string(line),
                        "found a tab before the key, accepted: spaces");
    at = end + 1;
  }
}

}  // namespace

void read_yaml(std::string_view text, const std::string& file_name, EffectiveConfig& effective) {
  if (text.size() > static_cast<size_t>(kMaxConfigFileBytes))
    throw ConfigError(file_name, "found " + std::to_string(text.size()) +
                                     " bytes, accepted: at most " +
                                     std::to_string(kMaxConfigFileBytes));
  refuse_tab_indentation(text, file_name);
  std::istringstream stream{std::string(text)};
  try {
    YAML::Parser parser(stream);
    ConfigEvents events(file_name, effective);
    while (parser.HandleNextDocument(events)) {
    }
  } catch (const YAML::Exception& error) {
    const std::string where =
        error.mark.is_null() ? file_name : file_name + ":" + std::to_string(error.mark.line + 1);
    throw ConfigError(where, "not valid YAML: " + error.msg);
  }
}

std::optional<std::vector<std::string>> read_yaml_list(std::string_view text) {
  std::vector<std::string> items;
  if (text.empty()) return items;
  if (!text.starts_with('[')) return std::vector<std::string>{std::string(text)};
  std::istringstream stream{std::string(text)};
  ListEvents events(items);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(events) || parser.HandleNextDocument(events)) return {};
  } catch (const YAML::Exception&) {
    return {};
  }
  if (!events.is_list()) return {};
  return items;
}

void read_yaml_file(const std::filesystem::path& file, EffectiveConfig& effective) {
  std::error_code error;
  if (std::filesystem::is_directory(file, error))
    throw ConfigError(file.string(), "found a folder, accepted: a YAML file");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError(file.string(), std::string("cannot be read: ") + strerror(errno));
  // One byte more than is accepted tells a file that is too long, even one without an end.
  std::string text(static_cast<size_t>(kMaxConfigFileBytes) + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) throw ConfigError(file.string(), "cannot be read");
  const auto num_bytes = stream.gcount();
  if (num_bytes > kMaxConfigFileBytes)
    throw ConfigError(file.string(), "is longer than the accepted " +
                                         std::to_string(kMaxConfigFileBytes) + " bytes");
  read_yaml(std::string_view(text.data(), static_cast<size_t>(num_bytes)), file.string(),
            effective);
}

}  // namespace augur
