#include "tools/replay/replay.h"

#include <algorithm>
#include <string>
#include <unordered_map>

#include "kernels/require.h"

namespace augur {

std::vector<ExpertKey> uses_of(const RoutingTrace& trace) {
  std::vector<ExpertKey> uses;
  for (const TracedToken& token : trace.tokens) {
    for (const auto& [layer, experts] : token.experts_of) {
      for (const int32_t expert : experts) uses.push_back({layer, expert});
    }
  }
  return uses;
}

ReplayResult replay(const RoutingTrace& trace, int num_slots, EvictionPolicy& policy) {
  std::unordered_map<ExpertKey, int> slot_of;
  std::vector<ExpertKey> key_of(num_slots);
  int num_filled = 0;
  ReplayResult result;
  for (const TracedToken& token : trace.tokens) {
    ReplayCount& count = token.phase == 0 ? result.prompt : result.generated;
    ++count.num_tokens;
    for (const auto& [layer, experts] : token.experts_of) {
      AUGUR_REQUIRE(static_cast<int>(experts.size()) <= num_slots,
                    std::to_string(experts.size()) + " experts at once, " +
                        std::to_string(num_slots) + " slots");
      const auto is_evictable = [&](int slot) {
        return key_of[slot].layer != layer ||
               std::find(experts.begin(), experts.end(), key_of[slot].expert) == experts.end();
      };
      for (const int32_t expert : experts) {
        const ExpertKey key = {layer, expert};
        ++count.num_uses;
        auto found = slot_of.find(key);
        if (found != slot_of.end()) {
          ++count.num_hits;
        } else {
          int slot = num_filled;
          if (num_filled < num_slots) {
            ++num_filled;
          } else {
            slot = policy.choose_victim(is_evictable);
            policy.on_evict(slot);
            slot_of.erase(key_of[slot]);
          }
          key_of[slot] = key;
          policy.on_fill(slot, key);
          found = slot_of.emplace(key, slot).first;
        }
        policy.on_use(found->second);
      }
    }
  }
  return result;
}

}  // namespace augur
