#include "prefetch/packed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <random>

#include "configs/config_error.h"
#include "prefetch/packed_format.h"
#include "prefetch/packed_writer.h"
#include "tests/prefetch/expert_files.h"
#include "tests/prefetch/row_major_ops.h"

namespace augur {
namespace {

using packed::Header;
using packed::IndexEntry;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PackedFileTest : public ::testing::Test {
 protected:
  PackedFileTest() {
    file_bytes_ = write_packed_file(path_, *experts_.store, *experts_.ops, {.num_threads = 2});
    bytes_ = read_whole_file(path_);
  }
  Header header() const {
    Header header;
    std::memcpy(&header, bytes_.data(), sizeof(header));
    return header;
  }
  std::vector<IndexEntry> index() const {
    std::vector<IndexEntry> index(static_cast<size_t>(header().num_experts));
    std::memcpy(index.data(), bytes_.data() + header().index_offset,
                index.size() * sizeof(IndexEntry));
    return index;
  }
  // What opening the file says when its header and index are these, with checksums that fit.
  std::string refusal(Header header, const std::vector<IndexEntry>& index) {
    header.index_checksum = XXH3_64bits(index.data(), index.size() * sizeof(IndexEntry));
    header.header_checksum = XXH3_64bits(&header, offsetof(Header, header_checksum));
    std::string bytes = bytes_;
    std::memcpy(bytes.data(), &header, sizeof(header));
    std::memcpy(bytes.data() + packed::kAlignment, index.data(), index.size() * sizeof(IndexEntry));
    return refusal(bytes);
  }
  std::string refusal(const std::string& bytes) {
    const auto path = experts_.folder.write("changed", bytes);
    return message_of<ConfigError>([&] { PackedFile file(path); });
  }

  ExpertFiles experts_{96, 40};
  const std::filesystem::path path_ = experts_.folder / "packed";
  int64_t file_bytes_ = 0;
  std::string bytes_;
};

TEST_F(PackedFileTest, HoldsEveryExpertAsTheBackendPacksIt) {
  EXPECT_EQ(std::ssize(bytes_), file_bytes_);
  const PackedFile file(path_);
  EXPECT_EQ(std::ssize(file.entries()), std::ssize(experts_.keys()));
  const ExpertStore store(file);
  EXPECT_EQ(store.num_layers(), 4);
  EXPECT_EQ(store.num_experts(0), 0);
  EXPECT_FALSE(store.has({1, 6}));
  ExpertStore::Scratch scratch;
  for (const ExpertKey key : experts_.keys()) {
    const PackedFile::Entry& entry = file.entry(key);
    EXPECT_EQ(entry.key, key);
    EXPECT_EQ(entry.offset % 4096, 0);
    EXPECT_EQ(store.stored_bytes(key), experts_.layout.block_bytes);
    std::vector<std::byte> block(static_cast<size_t>(experts_.layout.block_bytes));
    store.read(key, *experts_.ops, block.data(), scratch);
    EXPECT_EQ(block, experts_.block(key));
  }
  EXPECT_TRUE(find_damaged(file, {}).empty());
  EXPECT_FALSE(experts_.folder.has("packed.partial"));
}

TEST_F(PackedFileTest, AFlippedBitInABlockIsFound) {
  bytes_[static_cast<size_t>(PackedFile(path_).entry({2, 4}).offset + 77)] ^= 1;
  const PackedFile file(experts_.folder.write("flipped", bytes_));
  EXPECT_THAT(find_damaged(file, {}), ElementsAre(ExpertKey{2, 4}));
  const ExpertStore store(file);
  std::vector<std::byte> block(static_cast<size_t>(experts_.layout.block_bytes));
  ExpertStore::Scratch scratch;
  EXPECT_THAT(message_of<ConfigError>([&] {
                store.read({2, 4}, *experts_.ops, block.data(), scratch);
              }),
              AllOf(HasSubstr("expert 4 of layer 2"), HasSubstr("is damaged: checksum")));
}

TEST_F(PackedFileTest, MatchesWhatItWasMadeOf) {
  const PackedFile file(path_);
  const PackedIdentity wanted = packed_identity(*experts_.store, *experts_.ops);
  file.require_match(wanted);
  const auto complaint = [&](const auto& change) {
    PackedIdentity other = wanted;
    change(other);
    return message_of<ConfigError>([&] { file.require_match(other); });
  };
  EXPECT_THAT(complaint([](PackedIdentity& other) { other.weight_layout = "cuda-tiles"; }),
              HasSubstr("was packed for the weight layout cpu-tiles-16x32-pairs; accepted: "
                        "cuda-tiles"));
  EXPECT_THAT(complaint([](PackedIdentity& other) { other.layout.hidden_size = 1; }),
              HasSubstr("hidden size 96; accepted: 1"));
  EXPECT_THAT(complaint([](PackedIdentity& other) { other.layout.block_bytes += 64; }),
              HasSubstr("blocks of bytes"));
  EXPECT_THAT(complaint([](PackedIdentity& other) { other.num_experts.pop_back(); }),
              HasSubstr("layers: 4; accepted: 3"));
  EXPECT_THAT(complaint([](PackedIdentity& other) { other.num_experts[2] = 8; }),
              HasSubstr("experts in layer 2: 6; accepted: 8"));
  EXPECT_THAT(complaint([](PackedIdentity& other) { other.checkpoint_fingerprint ^= 1; }),
              HasSubstr("other weights"));
}

TEST_F(PackedFileTest, TheFingerprintDependsOnTheWeights) {
  const uint64_t fingerprint = experts_.store->fingerprint();
  EXPECT_EQ(ExpertFiles(96, 40).store->fingerprint(), fingerprint);
  EXPECT_EQ(ExpertStore(PackedFile(path_)).fingerprint(), fingerprint);
  const int64_t offset = experts_.store->chunk({3, 5}, 0, 4096).offset;
  {
    std::fstream file(experts_.folder / "layer3", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset).write("other", 5);
  }
  EXPECT_NE(experts_.store->fingerprint(), fingerprint);
}

TEST_F(PackedFileTest, DoesNotOverwriteUnlessTold) {
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { write_packed_file(path_, *experts_.store, *experts_.ops, {}); }),
              HasSubstr("exists already"));
  write_packed_file(path_, *experts_.store, *experts_.ops, {.overwrites = true});
  EXPECT_EQ(read_whole_file(path_), bytes_);
}

TEST_F(PackedFileTest, LeavesNothingBehindWhenASourceCannotBeRead) {
  std::filesystem::resize_file(experts_.folder / "layer3", 20'000);
  EXPECT_THROW(write_packed_file(experts_.folder / "new", *experts_.store, *experts_.ops, {}),
               ConfigError);
  EXPECT_FALSE(experts_.folder.has("new"));
  EXPECT_FALSE(experts_.folder.has("new.partial"));
}

TEST_F(PackedFileTest, RequiresABackendWhoseLayoutHasAName) {
  const RowMajorOps nameless;
  EXPECT_THROW(write_packed_file(experts_.folder / "new", *experts_.store, nameless, {}),
               std::logic_error);
}

TEST_F(PackedFileTest, RefusesForeignAndCutFiles) {
  EXPECT_THAT(refusal(""), HasSubstr("is 0 bytes long"));
  EXPECT_THAT(refusal(std::string(10'000, 'x')), HasSubstr("is not a packed expert file"));
  EXPECT_THAT(refusal(bytes_.substr(0, bytes_.size() - 1)), HasSubstr("was cut short"));
  EXPECT_THAT(refusal(bytes_.substr(0, 5000)), HasSubstr("was cut short"));
  EXPECT_THAT(refusal(bytes_ + "x"), HasSubstr("added to"));
  std::string other = bytes_;
  other[8] = 2;
  EXPECT_THAT(refusal(other), HasSubstr("version 2; accepted: 1"));
  other = bytes_;
  other[40] ^= 1;
  EXPECT_THAT(refusal(other), HasSubstr("the header's checksum"));
  other = bytes_;
  other[4096 + 50] ^= 1;
  EXPECT_THAT(refusal(other), HasSubstr("the index's checksum"));
}

TEST_F(PackedFileTest, RefusesFieldsThatCannotBeThoughTheirChecksumFits) {
  const auto with = [&](const auto& change) {
    Header changed = header();
    change(changed);
    return refusal(changed, index());
  };
  EXPECT_THAT(with([](Header& h) { h.dtype = 9; }), HasSubstr("dtype 9"));
  EXPECT_THAT(with([](Header& h) { h.weight_layout[0] = '\0'; }), HasSubstr("has no name"));
  EXPECT_THAT(with([](Header& h) { std::memset(h.weight_layout, 'x', 48); }),
              HasSubstr("has no name"));
  EXPECT_THAT(with([](Header& h) { h.hidden_size = -1; }), HasSubstr("experts of -1 x 40"));
  EXPECT_THAT(with([](Header& h) { h.block_bytes = int64_t{1} << 62; }), HasSubstr("blocks of"));
  EXPECT_THAT(with([](Header& h) { h.block_bytes = 0; }), HasSubstr("blocks of"));
  EXPECT_THAT(with([](Header& h) { h.down_offset = h.block_bytes; }), HasSubstr("down at"));
  EXPECT_THAT(with([](Header& h) { h.num_layers = 0; }), HasSubstr("0 layers"));
  EXPECT_THAT(with([](Header& h) { h.num_experts = int64_t{1} << 60; }), HasSubstr("experts in"));
  EXPECT_THAT(with([](Header& h) { h.num_experts = -1; }), HasSubstr("experts in"));
  EXPECT_THAT(with([](Header& h) { h.index_offset = 64; }), HasSubstr("index at"));
  EXPECT_THAT(with([](Header& h) { h.file_bytes = -4096; }), HasSubstr("the header says"));
}

TEST_F(PackedFileTest, RefusesAnIndexThatCannotBe) {
  const auto with = [&](size_t entry, const auto& change) {
    std::vector<IndexEntry> changed = index();
    change(changed[entry]);
    return refusal(header(), changed);
  };
  EXPECT_THAT(with(3, [](IndexEntry& e) { e.offset += 64; }), HasSubstr("expert 3 of layer 1"));
  EXPECT_THAT(with(3, [](IndexEntry& e) { e.offset -= 4096; }), HasSubstr("expert 3 of layer 1"));
  EXPECT_THAT(with(17, [](IndexEntry& e) { e.offset += 4096; }), HasSubstr("expert 5 of layer 3"));
  EXPECT_THAT(with(17, [](IndexEntry& e) { e.offset = INT64_MAX / 4096 * 4096; }),
              HasSubstr("at offset"));
  EXPECT_THAT(with(0, [](IndexEntry& e) { e.num_bytes -= 64; }), HasSubstr("expert 0 of layer 1"));
  EXPECT_THAT(with(2, [](IndexEntry& e) { e.expert = 1; }), HasSubstr("the index has expert 1"));
  EXPECT_THAT(with(0, [](IndexEntry& e) { e.layer = -2; }), HasSubstr("of layer -2"));
  EXPECT_THAT(with(17, [](IndexEntry& e) { e.layer = 4; }), HasSubstr("of layer 4"));
}

// Random damage to header and index, half of it with checksums that fit: either refused or, where
// it hits nothing that is read, opened as it was.
TEST_F(PackedFileTest, RandomDamageIsRefusedOrHarmless) {
  std::mt19937 generator(5);
  int num_refused = 0;
  const auto data_offset = static_cast<size_t>(header().data_offset);
  for (int round = 0; round < 400; ++round) {
    std::string bytes = bytes_;
    const int num_changes = 1 + static_cast<int>(generator() % 4);
    for (int i = 0; i < num_changes; ++i) {
      const size_t range = round % 3 == 0 ? sizeof(Header) : data_offset;
      bytes[generator() % range] = static_cast<char>(round % 2 == 0 ? generator() : -1);
    }
    if (round % 4 == 0) bytes.resize(generator() % bytes.size());
    if (round % 2 == 0 && bytes.size() >= data_offset) {
      Header changed;
      std::memcpy(&changed, bytes.data(), sizeof(changed));
      changed.index_checksum =
          XXH3_64bits(bytes.data() + 4096, index().size() * sizeof(IndexEntry));
      changed.header_checksum = XXH3_64bits(&changed, offsetof(Header, header_checksum));
      std::memcpy(bytes.data(), &changed, sizeof(changed));
    }
    const auto path = experts_.folder.write("changed", bytes);
    try {
      const PackedFile file(path);
      const ExpertStore store(file);
      for (const PackedFile::Entry& entry : file.entries()) {
        ASSERT_LE(entry.offset + store.layout().block_bytes, file.file().num_bytes());
        ASSERT_TRUE(store.has(entry.key));
      }
    } catch (const ConfigError&) {
      ++num_refused;
    }
  }
  EXPECT_GT(num_refused, 100);
}

}  // namespace
}  // namespace augur
