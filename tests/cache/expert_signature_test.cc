#include "cache/expert_signature.h"

#include <gtest/gtest.h>

#include <array>
#include <stdexcept>

namespace augur {
namespace {

TEST(ExpertSignatureTest, OverlapIsTheShareOfChoicesInCommon) {
  ExpertSignature a(2, 4);
  ExpertSignature b(2, 4);
  EXPECT_EQ(overlap(a, b), 0) << "nothing is known";
  a.add(1, std::array{0, 1});
  b.add(1, std::array{1, 2, 1, 2});
  EXPECT_DOUBLE_EQ(overlap(a, b), 0.5);
  EXPECT_DOUBLE_EQ(overlap(b, a), 0.5);
  EXPECT_DOUBLE_EQ(overlap(a, a), 1);
  b.add(0, std::array{3});
  EXPECT_DOUBLE_EQ(overlap(a, b), 0.5) << "a layer that only one has seen says nothing";
}

TEST(ExpertSignatureTest, AddsUp) {
  ExpertSignature a(1, 3);
  a.add(0, std::array{2, -1, 2});
  ExpertSignature b(1, 3);
  b.add(0, std::array{0});
  b.add(a);
  EXPECT_EQ(b.num_choices(), 3);
  EXPECT_EQ(b.counts(0)[2], 2u);
}

TEST(ExpertSignatureTest, RefusesWhatTheModelLacks) {
  ExpertSignature a(1, 3);
  EXPECT_THROW(a.add(1, std::array{0}), std::logic_error);
  EXPECT_THROW(a.add(0, std::array{3}), std::logic_error);
  EXPECT_THROW((void)overlap(a, ExpertSignature(2, 3)), std::logic_error);
}

}  // namespace
}  // namespace augur
