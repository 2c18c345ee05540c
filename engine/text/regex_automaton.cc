#include "engine/text/regex_automaton.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "engine/text/utf8.h"

namespace augur {
namespace {

// Limits beyond which PCRE2 takes over; the patterns of published tokenizers need less than a
// tenth. Together they bound the tables to 4 MiB and the building to milliseconds.
constexpr size_t kMaxInstructions = 2000;
constexpr size_t kMaxStates = 4096;
constexpr size_t kMaxClasses = 250;
constexpr size_t kMaxTableEntries = 1 << 18;
constexpr size_t kMaxSets = 64;

struct Instruction {
  enum class Op : uint8_t { kSet, kLookahead, kSplit, kJump, kMatch };
  Op op;
  bool negated = false;  // of a lookahead
  uint16_t set_idx = 0;
  uint16_t first = 0;   // of a split: the preferred target; also the target of a jump
  uint16_t second = 0;  // of a split
};
using Op = Instruction::Op;

}  // namespace

class AutomatonBuilder {
 public:
  std::optional<RegexAutomaton> build(const RegexNode& pattern) {
    if (!emit(pattern)) return std::nullopt;
    program_.push_back({.op = Op::kMatch});
    if (!partition()) return std::nullopt;
    if (!explore()) return std::nullopt;
    return std::move(automaton_);
  }

 private:
  using Threads = std::vector<uint16_t>;  // program counters, best first

  // --- pattern to program ---

  uint16_t here() const { return static_cast<uint16_t>(program_.size()); }

  bool emit(const RegexNode& node) {
    if (program_.size() > kMaxInstructions) return false;
    switch (node.kind) {
      case RegexNode::Kind::kEmpty:
        return true;
      case RegexNode::Kind::kSet:
      case RegexNode::Kind::kLookahead: {
        const std::optional<uint16_t> set_idx = index_of(node.set);
        if (!set_idx) return false;
        const bool is_set = node.kind == RegexNode::Kind::kSet;
        program_.push_back({.op = is_set ? Op::kSet : Op::kLookahead,
                            .negated = node.negated,
                            .set_idx = *set_idx});
        return true;
      }
      case RegexNode::Kind::kConcat:
        return std::all_of(node.children.begin(), node.children.end(),
                           [&](const RegexNode& child) { return emit(child); });
      case RegexNode::Kind::kAlternate:
        return emit_alternatives(node);
      case RegexNode::Kind::kRepeat:
        return emit_repeat(node);
    }
    return false;
  }

  bool emit_alternatives(const RegexNode& node) {
    std::vector<uint16_t> jumps;
    for (size_t i = 0; i < node.children.size(); ++i) {
      const bool is_last = i + 1 == node.children.size();
      const uint16_t split = here();
      if (!is_last) program_.push_back({.op = Op::kSplit, .first = uint16_t(split + 1)});
      if (!emit(node.children[i])) return false;
      if (is_last) break;
      jumps.push_back(here());
      program_.push_back({.op = Op::kJump});
      program_[split].second = here();
    }
    for (uint16_t jump : jumps) program_[jump].first = here();
    return true;
  }

  bool emit_repeat(const RegexNode& node) {
    const RegexNode& body = node.children[0];
    for (int i = 0; i < node.min; ++i) {
      if (!emit(body)) return false;
    }
    const auto split_to = [&](uint16_t split, uint16_t in, uint16_t out) {
      program_[split].first = node.is_greedy ? in : out;
      program_[split].second = node.is_greedy ? out : in;
    };
    if (node.max < 0) {
      const uint16_t split = here();
      program_.push_back({.op = Op::kSplit});
      if (!emit(body)) return false;
      program_.push_back({.op = Op::kJump, .first = split});
      split_to(split, static_cast<uint16_t>(split + 1), here());
      return true;
    }
    std::vector<uint16_t> splits;
    for (int i = node.min; i < node.max; ++i) {
      splits.push_back(here());
      program_.push_back({.op = Op::kSplit});
      if (!emit(body)) return false;
    }
    for (uint16_t split : splits) split_to(split, static_cast<uint16_t>(split + 1), here());
    return true;
  }

  std::optional<uint16_t> index_of(const CodePointSet& set) {
    const auto found = std::find(sets_.begin(), sets_.end(), set);
    if (found == sets_.end()) {
      if (sets_.size() == kMaxSets) return std::nullopt;
      sets_.push_back(set);
      return static_cast<uint16_t>(sets_.size() - 1);
    }
    return static_cast<uint16_t>(found - sets_.begin());
  }

  // --- sets to classes ---

  // Gives every code point the class of its signature: the bits of the sets that hold it.
  bool partition() {
    std::vector<char32_t> edges = {0, kMaxCodePoint + 1};
    for (const CodePointSet& set : sets_) {
      for (const auto& range : set.ranges()) {
        edges.push_back(range.first);
        edges.push_back(range.last + 1);
      }
    }
    std::sort(edges.begin(), edges.end());
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());

    std::map<uint64_t, uint8_t> class_of_signature;
    std::vector<uint8_t> classes(kMaxCodePoint + 1);
    std::vector<size_t> range_idx(sets_.size(), 0);
    for (size_t i = 0; i + 1 < edges.size(); ++i) {
      uint64_t signature = 0;
      for (size_t s = 0; s < sets_.size(); ++s) {
        const auto& ranges = sets_[s].ranges();
        while (range_idx[s] < ranges.size() && ranges[range_idx[s]].last < edges[i]) {
          ++range_idx[s];
        }
        if (range_idx[s] < ranges.size() && ranges[range_idx[s]].first <= edges[i]) {
          signature |= uint64_t{1} << s;
        }
      }
      const auto [entry, is_new] =
          class_of_signature.try_emplace(signature, static_cast<uint8_t>(class_signatures_.size()));
      if (is_new) class_signatures_.push_back(signature);
      if (class_signatures_.size() > kMaxClasses) return false;
      std::fill(classes.begin() + edges[i], classes.begin() + edges[i + 1], entry->second);
    }
    automaton_.num_classes_ = static_cast<int>(class_signatures_.size()) + 1;
    std::copy_n(classes.begin(), 128, automaton_.ascii_classes_.begin());

    std::map<std::string_view, uint16_t> page_indices;  // views into `classes`
    for (size_t page = 0; page <= kMaxCodePoint / 256; ++page) {
      const std::string_view bytes(reinterpret_cast<const char*>(&classes[page * 256]), 256);
      const auto [entry, is_new] =
          page_indices.try_emplace(bytes, static_cast<uint16_t>(page_indices.size()));
      automaton_.pages_.push_back(entry->second);
      if (is_new) {
        automaton_.page_classes_.insert(automaton_.page_classes_.end(),
                                        classes.begin() + page * 256,
                                        classes.begin() + (page + 1) * 256);
      }
    }
    return true;
  }

  // --- program to automaton ---

  bool explore() {
    const int num_classes = automaton_.num_classes_;
    state_index(Threads{});   // kDead
    state_index(Threads{0});  // kStart
    for (size_t state = 0; state < states_.size(); ++state) {
      if (states_.size() > kMaxStates || states_.size() * num_classes > kMaxTableEntries) {
        return false;
      }
      const Threads threads = *states_[state];
      for (int c = 0; c < num_classes; ++c) {
        automaton_.transitions_.push_back(step(threads, c));
      }
    }
    return true;
  }

  uint16_t state_index(const Threads& threads) {
    const auto [entry, is_new] =
        state_indices_.try_emplace(threads, static_cast<uint16_t>(states_.size()));
    if (is_new) states_.push_back(&entry->first);
    return entry->second;
  }

  // Runs every thread up to the next code point, whose class is known, and over it.
  uint16_t step(const Threads& threads, int next_class) {
    const bool is_end = next_class == automaton_.num_classes_ - 1;
    const uint64_t signature = is_end ? 0 : class_signatures_[next_class];
    Threads after;
    bool matched = false;
    std::vector<bool> visited(program_.size());
    std::vector<uint16_t> pending(threads.rbegin(), threads.rend());  // a stack: best on top
    while (!pending.empty() && !matched) {
      const uint16_t pc = pending.back();
      pending.pop_back();
      if (visited[pc]) continue;
      visited[pc] = true;
      const Instruction& instruction = program_[pc];
      const bool in_set = (signature >> instruction.set_idx & 1) != 0;
      switch (instruction.op) {
        case Op::kSet:
          if (in_set) after.push_back(static_cast<uint16_t>(pc + 1));
          break;
        case Op::kLookahead:
          if (in_set != instruction.negated) pending.push_back(static_cast<uint16_t>(pc + 1));
          break;
        case Op::kSplit:
          pending.push_back(instruction.second);
          pending.push_back(instruction.first);
          break;
        case Op::kJump:
          pending.push_back(instruction.first);
          break;
        case Op::kMatch:
          matched = true;  // the threads left are worse: they die
          break;
      }
    }
    return static_cast<uint16_t>(state_index(after) |
                                 (matched ? RegexAutomaton::kMatchedBefore : 0));
  }

  std::vector<Instruction> program_;
  std::vector<CodePointSet> sets_;
  std::vector<uint64_t> class_signatures_;
  std::map<Threads, uint16_t> state_indices_;
  std::vector<const Threads*> states_;  // keys of state_indices_
  RegexAutomaton automaton_;
};

std::optional<RegexAutomaton> RegexAutomaton::compile(const RegexNode& pattern) {
  return AutomatonBuilder().build(pattern);
}

std::optional<RegexAutomaton::Match> RegexAutomaton::find(std::string_view text,
                                                          size_t start) const {
  constexpr size_t kNone = ~size_t{0};
  const uint16_t* const table = transitions_.data();
  const size_t num_classes = num_classes_;
  const size_t end_class = num_classes - 1;
  for (;;) {
    size_t position = start;
    size_t match_end = kNone;
    size_t state = kStart;
    for (;;) {
      const size_t before = position;
      size_t next_class = end_class;
      if (position < text.size()) {
        const auto byte = static_cast<unsigned char>(text[position]);
        if (byte < 0x80) {
          next_class = ascii_classes_[byte];
          ++position;
        } else {
          next_class = class_of(next_code_point(text, position));
        }
      }
      const uint16_t transition = table[state * num_classes + next_class];
      if ((transition & kMatchedBefore) != 0) match_end = before;
      state = transition & kStateMask;
      // At the end of the text no thread can read on, so this ends there as well.
      if (state == kDead) break;
    }
    if (match_end != kNone) return Match{start, match_end};
    if (start >= text.size()) return std::nullopt;
    next_code_point(text, start);
  }
}

}  // namespace augur
