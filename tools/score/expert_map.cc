#include "tools/score/expert_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/progress.h"

namespace augur::score {
namespace {

// All lengths are in CSS pixels.
constexpr int kMargin = 24;
constexpr int kRowLabelWidth = 48;
constexpr int kHeadHeight = 104;      // title, second line, legend
constexpr int kPanelHeadHeight = 48;  // a panel's title, and its column labels
constexpr int kPanelGap = 20;
constexpr int kTargetWidth = 900;  // of a panel; many experts get more, so that a cell shows
constexpr int kMinCellWidth = 4;
constexpr int kMinCellHeight = 9;  // half a label: every other row has one
constexpr int kMaxCellSize = 18;
constexpr int kMinWidth = 640;       // the legend needs it
constexpr int kTitleCharWidth = 10;  // a wide letter of the title
constexpr int kLabelHeight = 12;
constexpr int kLabelWidth = 26;
constexpr int kSwatchWidth = 34;

// From nothing to all, for either scheme: one hue, the further from the background the more.
constexpr int kNumShades = 10;
constexpr std::array<std::string_view, kNumShades> kLightShades = {
    "#d6e4f2", "#bcd5ed", "#a2c7e7", "#84b3de", "#659dd4",
    "#4b88c6", "#3875b5", "#2761a1", "#194c84", "#0c3867"};
constexpr std::array<std::string_view, kNumShades> kDarkShades = {
    "#21364b", "#244363", "#27517a", "#2e5f8f", "#366ea4",
    "#457fb7", "#5a92c9", "#74a8da", "#9bc3e8", "#c3def7"};

struct Grid {
  int cell_width = 0;
  int cell_height = 0;
  int num_rows = 0;
  int num_columns = 0;
  int page_width = 0;

  int width() const { return cell_width * num_columns; }
  int height() const { return cell_height * num_rows; }
  int panel_height() const { return kPanelHeadHeight + height() + kPanelGap; }
  int page_height() const { return kHeadHeight + 2 * panel_height() + kMargin; }
};

Grid grid_of(const ExpertView& view, const std::string& title) {
  Grid grid;
  grid.num_rows = static_cast<int>(view.moe_layers.size());
  grid.num_columns = view.pool.shape().num_experts;
  grid.cell_width = std::clamp(kTargetWidth / grid.num_columns, kMinCellWidth, kMaxCellSize);
  grid.cell_height = std::max(grid.cell_width, kMinCellHeight);
  const int title_width = kTitleCharWidth * static_cast<int>(title.size());
  grid.page_width =
      std::max({kMinWidth, 2 * kMargin + title_width, 2 * kMargin + kRowLabelWidth + grid.width()});
  return grid;
}

/// Text between tags or in an attribute. Control characters, which XML does not
/// allow, become question marks.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < ' ' ? '?' : c;
    }
  }
  return out;
}

/// 1, 2, 5, 10, ...: the least number of cells between labels that need `needed` pixels each.
int label_step(int needed, int cell) {
  for (int decade = 1;; decade *= 10) {
    for (const int step : {decade, 2 * decade, 5 * decade}) {
      if (step * cell >= needed) return step;
    }
  }
}

class Drawing {
 public:
  explicit Drawing(const Grid& grid) : grid_(grid) {}

  void open(std::string_view label);
  void head(const std::string& title, const std::string& second_line);
  void legend();
  /// `value_of(key)`: a share, or nothing where there is none.
  template <typename ValueOf>
  void panel(const ExpertView& view, int top, std::string_view title, const ValueOf& value_of);
  std::string close() { return out_ + "</svg>\n"; }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }
  void shades(const std::array<std::string_view, kNumShades>& shades);
  void column_labels(int top);
  void cell(int x, int y, std::optional<double> share, const std::string& tooltip);

  const Grid grid_;
  std::string out_;
};

void Drawing::shades(const std::array<std::string_view, kNumShades>& shades) {
  for (int i = 0; i < kNumShades; ++i) add(".s{}{{fill:{}}}\n", i, shades[i]);
}

void Drawing::open(std::string_view label) {
  add("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"{2}\">\n<style>\n",
      grid_.page_width, grid_.page_height(), label);
  out_ +=
      "text{font:11px system-ui,'Helvetica Neue',Arial,sans-serif;fill:#57606a}\n"
      ".title{font-size:16px;font-weight:600;fill:#1f2328}\n"
      ".panel{font-size:12px;font-weight:600;fill:#1f2328}\n"
      ".page{fill:#ffffff}\n"
      ".none{fill:#ffffff;stroke:#e1e5e9;stroke-width:1}\n"
      ".right{text-anchor:end}\n.middle{text-anchor:middle}\n";
  shades(kLightShades);
  out_ +=
      "@media (prefers-color-scheme:dark){\ntext{fill:#9aa4af}\n"
      ".title,.panel{fill:#e6edf3}\n.page{fill:#0d1117}\n"
      ".none{fill:#0d1117;stroke:#1f262e}\n";
  shades(kDarkShades);
  out_ += "}\n</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n";
}

void Drawing::head(const std::string& title, const std::string& second_line) {
  add("<text class=\"title\" x=\"{}\" y=\"32\">{}</text>\n", kMargin, title);
  add("<text x=\"{}\" y=\"51\">{}</text>\n", kMargin, second_line);
}

void Drawing::legend() {
  constexpr int kTop = 66;
  for (int i = 0; i < kNumShades; ++i) {
    const int x = kMargin + i * kSwatchWidth;
    add("<rect class=\"s{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"10\"/>\n", i, x, kTop,
        kSwatchWidth);
  }
  for (int i = 0; i <= kNumShades; i += 2) {
    add("<text{} x=\"{}\" y=\"{}\">{} %</text>\n", i > 0 ? " class=\"middle\"" : "",
        kMargin + i * kSwatchWidth, kTop + 23, i * 100 / kNumShades);
  }
  const int x = kMargin + kNumShades * kSwatchWidth + 40;
  add("<rect class=\"none\" x=\"{}.5\" y=\"{}.5\" width=\"13\" height=\"9\"/>\n", x, kTop);
  add("<text x=\"{}\" y=\"{}\">never wanted in this run</text>\n", x + 20, kTop + 9);
}

void Drawing::column_labels(int top) {
  const int step = label_step(kLabelWidth, grid_.cell_width);
  for (int expert = 0; expert < grid_.num_columns; expert += step) {
    add("<text class=\"middle\" x=\"{}\" y=\"{}\">{}</text>\n",
        kMargin + kRowLabelWidth + expert * grid_.cell_width + grid_.cell_width / 2, top, expert);
  }
}

/// A gap of one pixel lies between cells; the outline of an empty one lies within it.
void Drawing::cell(int x, int y, std::optional<double> share, const std::string& tooltip) {
  if (share) {
    const int shade = std::min(kNumShades - 1, static_cast<int>(*share * kNumShades));
    add("<rect class=\"s{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\">", shade, x, y,
        grid_.cell_width - 1, grid_.cell_height - 1);
  } else {
    add("<rect class=\"none\" x=\"{}.5\" y=\"{}.5\" width=\"{}\" height=\"{}\">", x, y,
        grid_.cell_width - 2, grid_.cell_height - 2);
  }
  add("<title>{}</title></rect>\n", tooltip);
}

std::string tooltip(const ExpertView& view, ExpertKey key) {
  const ExpertHistory& history = view.counters.history(key);
  const auto num_steps = std::max<double>(1, static_cast<double>(view.counters.num_steps));
  std::string text = fmt::format(
      "layer {}, expert {}: in the pool {:.1f} % of steps, {} uses", key.layer, key.expert,
      100 * static_cast<double>(view.pool.resident_steps(key)) / num_steps, history.num_uses);
  if (history.num_uses > 0) {
    text += fmt::format(
        ", {} hits ({:.1f} %)", history.num_hits,
        100 * static_cast<double>(history.num_hits) / static_cast<double>(history.num_uses));
  }
  if (history.num_prefetches > 0) text += fmt::format(", {} fetched ahead", history.num_prefetches);
  return text;
}

template <typename ValueOf>
void Drawing::panel(const ExpertView& view,
                    int top,
                    std::string_view title,
                    const ValueOf& value_of) {
  const int left = kMargin + kRowLabelWidth;
  add("<text class=\"panel\" x=\"{}\" y=\"{}\">{}</text>\n", kMargin, top + 12, title);
  add("<text x=\"{}\" y=\"{}\">expert</text>\n", kMargin, top + kPanelHeadHeight - 6);
  column_labels(top + kPanelHeadHeight - 6);
  const int row_step = label_step(kLabelHeight, grid_.cell_height);
  for (int row = 0; row < grid_.num_rows; ++row) {
    const int layer = view.moe_layers[row];
    const int y = top + kPanelHeadHeight + row * grid_.cell_height;
    if (row % row_step == 0) {
      add("<text class=\"right\" x=\"{}\" y=\"{}\">{}{}</text>\n", left - 6,
          y + grid_.cell_height / 2 + 4, row == 0 ? "layer " : "", layer);
    }
    for (int expert = 0; expert < grid_.num_columns; ++expert) {
      const ExpertKey key{layer, expert};
      cell(left + expert * grid_.cell_width, y, value_of(key), tooltip(view, key));
    }
  }
}

}  // namespace

std::string expert_map_svg(const ExpertView& view, const std::string& model) {
  const ExpertUseCounts total = view.counters.total();
  const auto num_steps = static_cast<double>(view.counters.num_steps);
  const int num_slots = view.pool.shape().num_slots;
  const std::string title = escaped(fmt::format(
      "Experts of {}: a pool of {} of {}, hit rate {:.1f} %", model, format_count(num_slots),
      format_count(view.num_experts()), 100 * total.hit_rate()));
  const Grid grid = grid_of(view, title);
  Drawing drawing(grid);
  drawing.open(title);
  drawing.head(title,
               fmt::format("{} steps, {} uses of experts; the pool takes {}",
                           format_count(view.counters.num_steps), format_count(total.num_uses),
                           format_decimal_bytes(static_cast<double>(num_slots * view.slot_bytes))));
  drawing.legend();
  drawing.panel(
      view, kHeadHeight, "Residency: share of steps at whose end the expert lay in the pool",
      [&](ExpertKey key) -> std::optional<double> {
        return num_steps > 0 ? static_cast<double>(view.pool.resident_steps(key)) / num_steps : 0;
      });
  drawing.panel(view, kHeadHeight + grid.panel_height(),
                "Hit rate: share of the expert's uses that found it in the pool",
                [&](ExpertKey key) -> std::optional<double> {
                  const ExpertHistory& history = view.counters.history(key);
                  if (history.num_uses == 0) return std::nullopt;
                  return static_cast<double>(history.num_hits) /
                         static_cast<double>(history.num_uses);
                });
  return drawing.close();
}

}  // namespace augur::score
