#include "bench/route_study_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>

namespace augur {
namespace {

constexpr double kPanelWidth = 430;
constexpr double kPanelHeight = 330;
constexpr double kLeft = 62;
constexpr double kTop = 58;
constexpr double kGap = 60;
constexpr double kBottom = 96;
constexpr double kLowestAgreement = 0.2;
// Dark enough on white, apart for colour-blind readers. Source: Okabe and Ito 2008.
constexpr std::array<const char*, 6> kColours = {"#d55e00", "#e69f00", "#009e73",
                                                 "#0072b2", "#8a4f9e", "#444444"};

class Panel {
 public:
  explicit Panel(double left) : left_(left) {}
  double x(double hit_rate) const { return left_ + hit_rate * kPanelWidth; }
  double y(double agreement) const {
    const double share =
        (std::max(agreement, kLowestAgreement) - kLowestAgreement) / (1 - kLowestAgreement);
    return kTop + (1 - share) * kPanelHeight;
  }

 private:
  double left_;
};

void text(std::string& svg, double x, double y, const char* anchor, const std::string& what) {
  fmt::format_to(std::back_inserter(svg),
                 "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                 what);
}

void line(std::string& svg, double x1, double y1, double x2, double y2, const char* style) {
  fmt::format_to(std::back_inserter(svg),
                 "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2,
                 y2, style);
}

void draw_axes(std::string& svg, const Panel& panel, const std::string& title, double wanted) {
  for (int i = 0; i <= 5; ++i) {
    const double value = 0.2 * i;
    line(svg, panel.x(value), panel.y(0), panel.x(value), panel.y(1), "stroke=\"#e4e4e4\"");
    text(svg, panel.x(value), panel.y(0) + 18, "middle", fmt::format("{:.0f} %", 100 * value));
  }
  for (int i = 2; i <= 10; ++i) {
    const double value = 0.1 * i;
    line(svg, panel.x(0), panel.y(value), panel.x(1), panel.y(value), "stroke=\"#e4e4e4\"");
    text(svg, panel.x(0) - 8, panel.y(value) + 4, "end", fmt::format("{:.0f} %", 100 * value));
  }
  line(svg, panel.x(0), panel.y(wanted), panel.x(1), panel.y(wanted),
       "stroke=\"#000000\" stroke-dasharray=\"5 4\"");
  text(svg, panel.x(1) - 4, panel.y(wanted) + 15, "end", fmt::format("{:.1f} %", 100 * wanted));
  text(svg, panel.x(0.5), kTop - 18, "middle", "<tspan font-weight=\"bold\">" + title + "</tspan>");
  text(svg, panel.x(0.5), panel.y(0) + 40, "middle", "look-ups that hit");
}

void draw_curve(std::string& svg,
                const Panel& panel,
                std::span<const StudyPoint> points,
                const char* colour,
                bool is_dashed) {
  std::string path;
  std::string marks;
  for (const StudyPoint& point : points) {
    if (point.agreement < 0) continue;
    const double x = panel.x(point.hit_rate);
    const double y = panel.y(point.agreement);
    fmt::format_to(std::back_inserter(path), "{:.1f},{:.1f} ", x, y);
    fmt::format_to(std::back_inserter(marks),
                   "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"><title>{} dimensions, "
                   "threshold {:g}: {:.1f} % hit, {:.1f} % agree, perplexity {:.2f}"
                   "</title></circle>\n",
                   x, y, is_dashed ? "#ffffff" : colour, point.dims, point.threshold,
                   100 * point.hit_rate, 100 * point.agreement, point.perplexity);
  }
  fmt::format_to(std::back_inserter(svg),
                 "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{}/>\n"
                 "<g stroke=\"{}\">\n{}</g>\n",
                 path, colour, is_dashed ? "1.5" : "2",
                 is_dashed ? " stroke-dasharray=\"4 3\"" : "", colour, marks);
}

/// Curve by curve, those of as many dimensions in one colour; returns their dims.
std::vector<int> draw_curves(std::string& svg,
                             const Panel& panel,
                             const std::vector<StudyPoint>& points,
                             bool is_dashed) {
  std::vector<int> dims;
  for (auto first = points.begin(); first != points.end();) {
    const auto end = std::find_if(
        first, points.end(), [&](const StudyPoint& point) { return point.dims != first->dims; });
    draw_curve(svg, panel, {first, end}, kColours[dims.size() % kColours.size()], is_dashed);
    dims.push_back(first->dims);
    first = end;
  }
  return dims;
}

void draw_legend(std::string& svg, const std::vector<int>& dims, double left, double y) {
  for (size_t i = 0; i < dims.size(); ++i) {
    const double x = left + static_cast<double>(i) * 84;
    const std::string style =
        fmt::format("stroke=\"{}\" stroke-width=\"3\"", kColours[i % kColours.size()]);
    line(svg, x, y - 4, x + 18, y - 4, style.c_str());
    text(svg, x + 22, y, "start", fmt::format("{} dims", dims[i]));
  }
  const double x = left + static_cast<double>(dims.size()) * 84;
  text(svg, x, y, "start", "full: while the gates decide; dashed: served");
}

}  // namespace

std::string plot_study(const std::vector<StudyPanel>& panels, double wanted) {
  const auto num_panels = static_cast<double>(panels.size());
  const double width = kLeft + num_panels * kPanelWidth + (num_panels - 1) * kGap + 24;
  const double height = kTop + kPanelHeight + kBottom;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
      width, height);
  text(svg, 8, 20, "start", "experts that a hit and the gate agree on");
  for (size_t i = 0; i < panels.size(); ++i) {
    const Panel panel(kLeft + static_cast<double>(i) * (kPanelWidth + kGap));
    draw_axes(svg, panel, panels[i].title, wanted);
    const std::vector<int> dims = draw_curves(svg, panel, panels[i].watched, false);
    draw_curves(svg, panel, panels[i].served, true);
    if (i == 0) draw_legend(svg, dims, kLeft, height - 18);
  }
  return svg + "</svg>\n";
}

}  // namespace augur
