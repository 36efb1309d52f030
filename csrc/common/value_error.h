#pragma once

#include <string>

namespace selkern {

// Arrives in Python as a ValueError with this message.
[[noreturn]] void raise_value_error(const std::string& message);

}  // namespace selkern
