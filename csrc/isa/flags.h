/* sets.h for those who build: `cc -E -P -x c csrc/isa/flags.h` prints, for the machine that this compiler compiles for,
 *   TABLE suffix "name" "-m" "feature" "-m" "feature" ... "tuning"
 * for each set, and GLIBC where its C library is that one. */
#if defined(__has_include)
#if __has_include(<features.h>)
#include <features.h>
#endif
#endif
#ifdef __GLIBC__
GLIBC
#endif

#include "sets.h"
#define FLAG(feature) "-m" feature
#define TABLE_OF(suffix, name, features, tuning, ...)                                                                  \
    TABLE suffix name features(FLAG)                                                                                   \
    tuning
TRPO_INSTRUCTION_SETS(TABLE_OF, )
TRPO_BFLOAT16_SETS(TABLE_OF, )
