// Patterns of KEYS, SCAN, PSUBSCRIBE, CONFIG GET and ACLs, exactly as Redis matches them: * ? [a-z]
// [^a] and \ before anything.
#pragma once

#include <string_view>

namespace crab {

// Whether all of `text` matches. Work is at most pattern times text, however many stars there are.
// Redis' oddities hold: an empty text matches only an empty pattern, not even "*"; a class without
// its bracket ends with the pattern; ranges compare bytes as signed and may be given backwards; a
// byte escaped within a class is compared in its own case.
bool GlobMatch(std::string_view pattern, std::string_view text, bool ignore_case = false);

}  // namespace crab
