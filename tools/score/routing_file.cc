#include "tools/score/routing_file.h"

namespace augur::score {
namespace {

OutputFile open_empty(const std::string& path) {
  OutputFile file(path);
  if (file.is_plain_file()) file.truncate(0);
  return file;
}

}  // namespace

RoutingFile::RoutingFile(const std::string& path, const std::string& name, LoadedModel& model)
    : file_(open_empty(path)),
      recorder_([this](std::string_view text) { file_.append(text); }, name, *model.ops) {
  model.decoder->add_routing_observer(recorder_);
}

}  // namespace augur::score
