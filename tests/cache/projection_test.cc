#include "cache/projection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cache/projection_file.h"
#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

std::vector<float> normal_values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

double cosine_of(const float* a, const float* b, int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < n; ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

std::vector<float> project(const Projection& projection, std::vector<float>& x) {
  const int64_t num_rows = std::ssize(x) / projection.hidden_size();
  std::vector<float> out(num_rows * projection.num_padded_dims());
  projection.project(dense(x.data(), DType::kF32, num_rows, projection.hidden_size()), out.data());
  return out;
}

TEST(ProjectionTest, RandomDirectionsKeepCosinesRoughly) {
  constexpr int64_t kHidden = 512;
  const Projection projection = Projection::random(kHidden, 64, /*seed=*/3);
  double sum_of_squares = 0;
  constexpr int kPairs = 200;
  for (int pair = 0; pair < kPairs; ++pair) {
    std::vector<float> x = normal_values(2 * kHidden, pair);
    const float mix = static_cast<float>(pair) / kPairs;  // from unlike to alike
    for (int64_t h = 0; h < kHidden; ++h) x[kHidden + h] = mix * x[h] + (1 - mix) * x[kHidden + h];
    const std::vector<float> out = project(projection, x);
    const double error = cosine_of(&out[0], &out[64], 64) - cosine_of(&x[0], &x[kHidden], kHidden);
    sum_of_squares += error * error;
  }
  // 64 independent signs: about 1 / sqrt(64) for unlike vectors, less for alike ones.
  EXPECT_LT(std::sqrt(sum_of_squares / kPairs), 0.125);
}

TEST(ProjectionTest, RandomOnesAreTheSameForTheSameSeed) {
  const Projection a = Projection::random(10, 5, 1), b = Projection::random(10, 5, 1);
  const Projection c = Projection::random(10, 5, 2);
  EXPECT_EQ(encode_projections(std::span(&a, 1)), encode_projections(std::span(&b, 1)));
  EXPECT_NE(encode_projections(std::span(&a, 1)), encode_projections(std::span(&c, 1)));
}

TEST(ProjectionTest, FittedOnesCentreTheirSample) {
  constexpr int64_t kSamples = 60, kHidden = 20;
  std::vector<float> x = normal_values(kSamples * kHidden, 8);
  for (float& value : x) value += 5;
  const Projection projection = Projection::fit(x.data(), kSamples, kHidden, 6);
  const std::vector<float> out = project(projection, x);
  for (int d = 0; d < 16; ++d) {
    double sum = 0, squares = 0;
    for (int64_t n = 0; n < kSamples; ++n) {
      sum += out[n * 16 + d];
      squares += std::pow(out[n * 16 + d], 2);
    }
    EXPECT_NEAR(sum / kSamples, 0, 1e-4);
    EXPECT_EQ(squares > 1, d < 6) << "the rest is padding";
  }
}

TEST(ProjectionTest, RefusesOtherShapes) {
  EXPECT_THROW((void)Projection::random(10, 2, 1), std::logic_error);
  EXPECT_THROW((void)Projection::random(100, 65, 1), std::logic_error);
  std::vector<float> x(11);
  float out[16];
  EXPECT_THROW(Projection::random(10, 3, 1).project(dense(x.data(), DType::kF32, 1, 11), out),
               std::logic_error);
  EXPECT_THROW(Projection().project(dense(x.data(), DType::kF32, 1, 11), out), std::logic_error);
}

class ProjectionFileTest : public ::testing::Test {
 protected:
  static std::vector<Projection> three_layers() {
    std::vector<Projection> layers;
    std::vector<float> samples = normal_values(30 * 12, 9);
    for (int i = 0; i < 2; ++i) layers.push_back(Projection::random(12, 4, i));
    layers.push_back(Projection::fit(samples.data(), 30, 12, 4));
    return layers;
  }

  TempFolder folder_;
  std::vector<Projection> layers_ = three_layers();
};

TEST_F(ProjectionFileTest, ComesBackAsItWasSaved) {
  const std::filesystem::path path = folder_ / "projections";
  save_projections(path, layers_);
  save_projections(path, layers_);  // over an older one
  const std::vector<Projection> loaded = load_projections(path, 3, 12, 4);
  ASSERT_EQ(loaded.size(), 3u);
  EXPECT_EQ(encode_projections(loaded), encode_projections(layers_));
  std::vector<float> x = normal_values(5 * 12, 10);
  EXPECT_EQ(project(loaded[2], x), project(layers_[2], x));
}

TEST_F(ProjectionFileTest, NamesTheShapeItHoldsWhenAnotherIsWanted) {
  const std::filesystem::path path = folder_ / "projections";
  save_projections(path, layers_);
  const std::string message =
      message_of<ConfigError>([&] { (void)load_projections(path, 3, 12, 5); });
  EXPECT_NE(message.find("holds 3 projections of 12 to 4"), std::string::npos) << message;
  EXPECT_NE(message.find("need 3 of 12 to 5"), std::string::npos) << message;
  EXPECT_THROW((void)load_projections(path, 2, 12, 4), ConfigError);
  EXPECT_THROW((void)load_projections(folder_ / "none", 3, 12, 4), ConfigError);
  EXPECT_THROW((void)load_projections(folder_.path(), 3, 12, 4), ConfigError);
}

TEST_F(ProjectionFileTest, RefusesEveryFlippedByteAndEveryOtherLength) {
  const std::string bytes = encode_projections(layers_);
  std::mt19937 random(11);
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 + random() % 255));
    EXPECT_THROW((void)decode_projections(flipped, "flipped"), ConfigError) << i;
    EXPECT_THROW((void)decode_projections(bytes.substr(0, i), "cut"), ConfigError) << i;
    if (i % 37 == 0) {  // through a file as well, whose header is believed for its length
      const std::filesystem::path path = folder_.write("flipped", flipped);
      EXPECT_THROW((void)load_projections(path, 3, 12, 4), ConfigError) << i;
      folder_.write("flipped", bytes.substr(0, i));
      EXPECT_THROW((void)load_projections(path, 3, 12, 4), ConfigError) << i;
    }
  }
  EXPECT_THROW((void)decode_projections(bytes + "x", "longer"), ConfigError);
  const std::filesystem::path longer = folder_.write("longer", bytes + "x");
  EXPECT_THROW((void)load_projections(longer, 3, 12, 4), ConfigError);
}

TEST_F(ProjectionFileTest, SurvivesRandomBytesBehindAValidBeginning) {
  const std::string bytes = encode_projections(layers_);
  std::mt19937 random(12);
  for (int round = 0; round < 2000; ++round) {
    std::string mangled = bytes.substr(0, random() % bytes.size());
    mangled.resize(random() % 2000);
    for (int change = 0; change < 8 && mangled.size() > 8; ++change) {
      mangled[8 + random() % (mangled.size() - 8)] = static_cast<char>(random());
    }
    EXPECT_THROW((void)decode_projections(mangled, "mangled"), ConfigError);
  }
}

TEST_F(ProjectionFileTest, RefusesValuesThatAreNotFinite) {
  TiledMatrix matrix(12, 4);
  matrix.at(5, 1) = std::numeric_limits<float>::infinity();
  const Projection infinite(std::move(matrix), std::vector<float>(4));
  const std::string bytes = encode_projections(std::span(&infinite, 1));
  EXPECT_THROW((void)decode_projections(bytes, "infinite"), ConfigError);
}

}  // namespace
}  // namespace augur
