#include "engine/text/tokenizer.h"
#include "engine/text/in_quotes.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/bpe_reader.h"
#include "engine/text/json_object.h"
#include "engine/text/tokenizer_impl.h"
#include "engine/text/utf8.h"

namespace augur {
namespace {

constexpr size_t kMaxJsonDepth = 64;  // published files nest six deep
constexpr size_t kMaxAddedTokens = 1'000'000;

std::vector<AddedToken> read_added_tokens(const JsonObject& root) {
  std::vector<AddedToken> tokens;
  if (!root.find("added_tokens")) return tokens;
  size_t i = 0;
  for (const simdjson::dom::element item : root.array_at("added_tokens")) {
    const std::string where = root.where("added_tokens") + "[" + std::to_string(i++) + "]";
    const JsonObject json = JsonObject::from(item, where);
    if (i > kMaxAddedTokens) {
      throw ConfigError(where, "more than " + std::to_string(kMaxAddedTokens) + " added tokens");
    }
    AddedToken token;
    token.id = static_cast<int32_t>(json.index_at("id", kTokenIdLimit));
    token.content = json.string_at("content");
    token.single_word = json.bool_at("single_word", false);
    token.lstrip = json.bool_at("lstrip", false);
    token.rstrip = json.bool_at("rstrip", false);
    token.special = json.bool_at("special", false);
    token.normalized = json.bool_at("normalized", !token.special);
    if (!token.content.empty()) tokens.push_back(std::move(token));
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return tokens;
}

}  // namespace

struct Tokenizer::Reader {
  static std::unique_ptr<Impl> read(const JsonObject& root) {
    auto impl = std::make_unique<Impl>();
    if (root.find("version") && root.string_at("version") != "1.0") {
      root.fail("version", "found " + in_quotes(root.string_at("version")) + "; expected \"1.0\"");
    }
    std::vector<NormalizerStep> normalizer;
    if (root.find("normalizer")) read_normalizer(root.object_at("normalizer"), normalizer);
    impl->normalizer = Normalizer(std::move(normalizer));

    std::vector<PreTokenizerStep> steps;
    if (root.find("pre_tokenizer")) read_pre_tokenizer(root.object_at("pre_tokenizer"), steps);
    const bool is_byte_level = take_final_byte_level(steps);
    impl->pre_tokenizer = PreTokenizer(std::move(steps));

    if (root.find("post_processor")) {
      read_post_processor(root.object_at("post_processor"), impl->special_tokens);
    }
    if (root.find("decoder")) {
      read_decoder(root.object_at("decoder"), impl->decoder);
    } else {
      impl->decoder.push_back({.kind = DecoderStep::Kind::kJoin});
    }

    const JsonObject model = root.object_at("model");
    BpeParts parts = read_bpe(model);
    impl->vocabulary = std::move(parts.vocabulary);
    impl->added = read_added_tokens(root);
    index_added_tokens(root, *impl);

    parts.settings.is_byte_level = is_byte_level;
    if (parts.unk_token) {
      parts.settings.unk_id = impl->vocabulary.find(*parts.unk_token);
      if (!parts.settings.unk_id) parts.settings.unk_id = impl->added_ids.find(*parts.unk_token);
    }
    impl->model.emplace(impl->vocabulary, std::move(parts.merges), parts.settings,
                        parts.merged_tokens);
    if (parts.unk_token && !parts.settings.unk_id && !impl->model->knows_every_byte()) {
      model.fail("unk_token", in_quotes(*parts.unk_token) + " is not in the vocabulary");
    }
    check_special_tokens(root, *impl);
    return impl;
  }

 private:
  // A ByteLevel at the end is left to the model, which then works on bytes: the same tokens
  // without writing every byte as its stand-in first.
  static bool take_final_byte_level(std::vector<PreTokenizerStep>& steps) {
    const auto is_byte_level = [](const PreTokenizerStep& step) {
      return step.kind == PreTokenizerStep::Kind::kByteLevel;
    };
    if (std::count_if(steps.begin(), steps.end(), is_byte_level) != 1) return false;
    if (!is_byte_level(steps.back())) return false;
    steps.pop_back();
    return true;
  }

  static void index_added_tokens(const JsonObject& root, Impl& impl) {
    impl.added_ids.reserve(impl.added.size());
    const AddedToken* previous = nullptr;
    for (const AddedToken& token : impl.added) {
      const auto fail = [&](const std::string& other) {
        root.fail("added_tokens", in_quotes(token.content) + " has the id " +
                                      std::to_string(token.id) + ", but " + other);
      };
      if (previous != nullptr && previous->id == token.id) {
        fail("so has " + in_quotes(previous->content));
      }
      previous = &token;
      if (!impl.added_ids.insert(token.content, token.id)) {
        fail("it also has the id " + std::to_string(*impl.added_ids.find(token.content)));
      }
      const std::optional<int32_t> model_id = impl.vocabulary.find(token.content);
      if (model_id && *model_id != token.id) {
        fail("the model's vocabulary gives it " + std::to_string(*model_id));
      }
      if (!model_id && impl.vocabulary.has(token.id)) {
        fail("the model's vocabulary gives that to " + in_quotes(impl.vocabulary.token(token.id)));
      }
      std::string storage;
      std::string_view text = token.content;
      bool keeps_start = true;
      if (token.normalized) text = impl.normalizer.apply(text, storage, keeps_start);
      if (!text.empty()) {
        (token.normalized ? impl.normalized_finder : impl.plain_finder).add(text, token);
      }
      impl.added_decode_texts.emplace_back(text);
    }
  }

  static void check_special_tokens(const JsonObject& root, const Impl& impl) {
    for (const auto* ids : {&impl.special_tokens.before, &impl.special_tokens.after}) {
      for (const int32_t id : *ids) {
        if (!impl.vocabulary.has(id) && !impl.added_idx(id)) {
          root.fail("post_processor",
                    "adds the id " + std::to_string(id) + ", which is no token of this tokenizer");
        }
      }
    }
  }
};

namespace {

class WordEncoder final : public WordSink {
 public:
  WordEncoder(const BpeModel& model, BpeModel::Scratch& scratch, std::vector<int32_t>& out)
      : model_(model), scratch_(scratch), out_(out) {}
  void take(std::string_view word) override { model_.encode_word(word, scratch_, out_); }

 private:
  const BpeModel& model_;
  BpeModel::Scratch& scratch_;
  std::vector<int32_t>& out_;
};

}  // namespace

std::optional<size_t> Tokenizer::Impl::added_idx(int32_t id) const {
  const auto found =
      std::lower_bound(added.begin(), added.end(), id,
                       [](const AddedToken& token, int32_t value) { return token.id < value; });
  if (found == added.end() || found->id != id) return std::nullopt;
  return found - added.begin();
}

std::optional<std::string_view> Tokenizer::Impl::decode_text(int32_t id,
                                                             bool skip_special_tokens) const {
  if (const std::optional<size_t> idx = added_idx(id)) {
    if (skip_special_tokens && added[*idx].special) return std::nullopt;
    return added_decode_texts[*idx];
  }
  if (!vocabulary.has(id)) return std::nullopt;
  return vocabulary.token(id);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_file(const std::filesystem::path& tokenizer_json) {
  const std::string where = tokenizer_json.string();
  std::error_code error;
  const bool is_file = std::filesystem::is_regular_file(tokenizer_json, error);
  if (!is_file) throw ConfigError(where, error ? error.message() : "is not a regular file");
  const uint64_t num_bytes = std::filesystem::file_size(tokenizer_json, error);
  if (error) throw ConfigError(where, error.message());
  if (num_bytes > kMaxFileBytes) {
    throw ConfigError(where, "has " + std::to_string(num_bytes) + " bytes; at most " +
                                 std::to_string(kMaxFileBytes) + " are accepted");
  }
  std::string text(num_bytes, '\0');
  std::ifstream file(tokenizer_json, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(num_bytes))) {
    throw ConfigError(where, "cannot be read");
  }
  return from_json(text, where);
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& where) {
  if (json.size() > kMaxFileBytes) {
    throw ConfigError(where, "has " + std::to_string(json.size()) + " bytes; at most " +
                                 std::to_string(kMaxFileBytes) + " are accepted");
  }
  simdjson::dom::parser parser;
  simdjson::error_code error = parser.allocate(std::max<size_t>(json.size(), 64), kMaxJsonDepth);
  simdjson::dom::element root;
  if (error == simdjson::SUCCESS) error = parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) {
    throw ConfigError(where, std::string("is not valid JSON: ") + simdjson::error_message(error));
  }
  return Tokenizer(Reader::read(JsonObject::from(root, where + ": ")));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  const Impl& impl = *impl_;
  std::string repaired;
  text = valid_utf8_or_repaired(text, repaired);

  std::unique_ptr<BpeModel::Scratch> scratch;
  {
    const std::lock_guard lock(impl.scratch_mutex);
    if (!impl.idle_scratch.empty()) {
      scratch = std::move(impl.idle_scratch.back());
      impl.idle_scratch.pop_back();
    }
  }
  if (scratch == nullptr) scratch = std::make_unique<BpeModel::Scratch>();

  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 8);  // about what English takes
  if (add_special_tokens) ids = impl.special_tokens.before;
  WordEncoder encoder(*impl.model, *scratch, ids);
  std::string storage;
  AddedTokenFinder::Cursor pieces(impl.plain_finder, text);
  while (const auto piece = pieces.next()) {
    if (piece->token != nullptr) {
      ids.push_back(piece->token->id);
      continue;
    }
    bool keeps_start = true;
    const std::string_view normalized = impl.normalizer.apply(
        text.substr(piece->begin, piece->end - piece->begin), storage, keeps_start);
    AddedTokenFinder::Cursor parts(impl.normalized_finder, normalized);
    while (const auto part = parts.next()) {
      if (part->token != nullptr) {
        ids.push_back(part->token->id);
        continue;
      }
      const bool is_input_start = piece->begin == 0 && part->begin == 0 && keeps_start;
      impl.pre_tokenizer.run(normalized.substr(part->begin, part->end - part->begin),
                             is_input_start, encoder);
    }
  }
  if (add_special_tokens) {
    ids.insert(ids.end(), impl.special_tokens.after.begin(), impl.special_tokens.after.end());
  }
  const std::lock_guard lock(impl.scratch_mutex);
  impl.idle_scratch.push_back(std::move(scratch));
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  DecoderChain chain(impl_->decoder);
  for (const int32_t id : ids) {
    if (const auto text = impl_->decode_text(id, skip_special_tokens)) chain.push(*text);
  }
  chain.finish();
  return chain.take_text();
}

int32_t Tokenizer::vocab_size() const {
  const int32_t added_limit = impl_->added.empty() ? 0 : impl_->added.back().id + 1;
  return std::max(impl_->vocabulary.id_limit(), added_limit);
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const std::optional<int32_t> added = impl_->added_ids.find(token);
  return added ? added : impl_->vocabulary.find(token);
}

std::string_view Tokenizer::id_to_token(int32_t id) const {
  if (const std::optional<size_t> idx = impl_->added_idx(id)) return impl_->added[*idx].content;
  return impl_->vocabulary.token(id);
}

bool Tokenizer::is_special(int32_t id) const {
  const std::optional<size_t> idx = impl_->added_idx(id);
  return idx && impl_->added[*idx].special;
}

}  // namespace augur
