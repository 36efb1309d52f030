#pragma once

// What a macro stands for, as a string.
#define SELKERN_STRINGIZE(name) SELKERN_STRINGIZE_EXPANDED(name)
#define SELKERN_STRINGIZE_EXPANDED(name) #name
