// Draws hit rate against agreement, a panel for each model, as SVG.
#pragma once

#include <string>
#include <vector>

namespace augur {

struct StudyPoint {
  int dims = 0;
  float threshold = 0;
  double hit_rate = 0;
  double agreement = 0;  // of the experts, k by k; below 0: too few checks to say
  double perplexity = 0;
};

struct StudyPanel {
  std::string title;
  // By dims, then by rising threshold.
  std::vector<StudyPoint> watched;  // while the gates decide: drawn through
  std::vector<StudyPoint> served;   // drawn dashed
};

/// `wanted` is drawn as a line.
std::string plot_study(const std::vector<StudyPanel>& panels, double wanted);

}  // namespace augur
