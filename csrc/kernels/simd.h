/* Vectors of REAL in GCC/Clang vector extensions. Included once per precision; the including file defines
 *   REAL, INT and UINT (integers of the same size), SUFFIX, TRPO_VECTOR_BYTES.
 * Every name is file-local and carries the precision's suffix through F(). */
#define TRPO_JOIN_(a, b) a##b
#define TRPO_JOIN(a, b) TRPO_JOIN_(a, b)
#define F(name) TRPO_JOIN(name, SUFFIX)

#define vreal F(vreal_)
#define vint F(vint_)
#define vuint F(vuint_)
#define VLEN ((size_t)(TRPO_VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline, unused))
#if defined(__GNUC__) && !defined(__clang__)
#define NOINLINE static __attribute__((noinline, noclone, unused))
#else
#define NOINLINE static __attribute__((noinline, unused))
#endif

typedef REAL vreal __attribute__((vector_size(TRPO_VECTOR_BYTES)));
typedef INT vint __attribute__((vector_size(TRPO_VECTOR_BYTES)));
typedef UINT vuint __attribute__((vector_size(TRPO_VECTOR_BYTES)));
typedef REAL F(vreal_unaligned_) __attribute__((vector_size(TRPO_VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

INLINE vreal F(load)(const REAL *p) { return *(const F(vreal_unaligned_) *)p; }
INLINE void F(store)(REAL *p, vreal v) { *(F(vreal_unaligned_) *)p = v; }
/* x - 0 is exactly x for every x, so this folds to a broadcast; 0 + x would not (signed zero). */
INLINE vreal F(splat)(REAL x) { return x - (vreal){0}; }
INLINE vreal F(select)(vint mask, vreal yes, vreal no) { return (vreal)((mask & (vint)yes) | (~mask & (vint)no)); }
INLINE size_t F(round_up)(size_t n) { return (n + VLEN - 1) / VLEN * VLEN; }

/* Names of double's vectors, which both tables use: it is included first. */
#define D(name) TRPO_JOIN(name, f64)
#if TRPO_REAL_IS_DOUBLE
typedef vreal vdouble;
enum { DLEN = TRPO_VECTOR_BYTES / sizeof(double) };
#endif
