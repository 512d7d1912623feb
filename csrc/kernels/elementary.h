/* exp, expm1, tanh and sigmoid on vectors, and activations over a tile.
 *
 * exp(x) = 2^n (1 + p), x = n ln 2 + r, |r| <= ln(2)/2, p = expm1(r) by its Taylor series, whose remainder is below a
 * quarter of an ulp at the degrees used. ln 2 is split in two so that n * LN2_HIGH is exact for every n in range. */
#if TRPO_REAL_IS_DOUBLE
#define MAGIC 0x1.8p52 /* adding it rounds to an integer that then sits in the low mantissa bits */
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define LN2_HIGH 0x1.62e42fee00000p-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define TAYLOR_DEGREE 13
#define EXP_LIMIT 709.0
#define TANH_LIMIT 22.0 /* tanh rounds to 1 beyond */
#define SIGN_BIT INT64_MIN
#else
#define MAGIC 0x1.8p23f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f
#define TAYLOR_DEGREE 7
#define EXP_LIMIT 88.0f
#define TANH_LIMIT 10.0f
#define SIGN_BIT INT32_MIN
#endif

static const double F(inverse_factorial)[] = {
    1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};

/* p = expm1(r) and scale = 2^n for |x| <= EXP_LIMIT, 0 for the lowest n, whose results are subnormal; a NaN comes out as
 * NaN in p. */
INLINE vreal F(exp_parts)(vreal x, vreal *scale) {
    const vreal shifted = x * F(splat)((REAL)1.44269504088896340736) + F(splat)(MAGIC);
    const vreal n = shifted - F(splat)(MAGIC);
    const vreal r = (x - n * F(splat)(LN2_HIGH)) - n * F(splat)(LN2_LOW);
    const vint bits = (vint)shifted - (vint)F(splat)(MAGIC);
    *scale = (vreal)((bits + EXPONENT_BIAS) << MANTISSA_BITS);
    vreal sum = F(splat)((REAL)F(inverse_factorial)[TAYLOR_DEGREE]);
    _Pragma("GCC unroll 16") for (int i = TAYLOR_DEGREE - 1; i >= 2; i--) sum =
        sum * r + F(splat)((REAL)F(inverse_factorial)[i]);
    return r + r * r * sum;
}

INLINE vreal F(clamp)(vreal x, REAL limit) { /* NaN passes */
    x = F(select)(x > limit, F(splat)(limit), x);
    return F(select)(x < -limit, F(splat)(-limit), x);
}

INLINE vreal F(bounded_expm1)(vreal x) { /* |x| <= EXP_LIMIT */
    vreal scale, p = F(exp_parts)(x, &scale);
    return scale * p + (scale - F(splat)(1));
}

INLINE vreal F(vexpm1)(vreal x) { return F(bounded_expm1)(F(clamp)(x, EXP_LIMIT)); }

INLINE vreal F(vexp)(vreal x) {
    vreal scale, p = F(exp_parts)(F(clamp)(x, EXP_LIMIT), &scale);
    return scale * p + scale;
}

/* tanh |x| = t / (t + 2), t = expm1(2 |x|): no cancellation at either end. */
INLINE vreal F(vtanh)(vreal x) {
    const vint sign = (vint)x & SIGN_BIT;
    vreal y = (vreal)((vint)x & ~SIGN_BIT);
    y = F(select)(y > TANH_LIMIT, F(splat)(TANH_LIMIT), y);
    const vreal t = F(bounded_expm1)(y + y);
    return (vreal)((vint)(t / (t + F(splat)(2))) | sign);
}

INLINE vreal F(activate_vector)(trpo_activation activation, vreal z) {
    const vreal one = F(splat)(1);
    switch (activation) {
    case TRPO_TANH: return F(vtanh)(z);
    case TRPO_RELU: return F(select)(z < 0, (vreal){0}, z); /* NaN passes */
    case TRPO_ELU: return F(select)(z > 0, z, F(vexpm1)(z));
    case TRPO_LEAKY_RELU: return F(select)(z < 0, z * F(splat)((REAL)0.01), z);
    case TRPO_SIGMOID: return one / (one + F(vexp)(-z));
    default: return z;
    }
}

/* z: n items (a multiple of VLEN), activated in place. */
static void F(activate)(trpo_activation activation, size_t n, REAL *z) {
    if (activation == TRPO_TANH) /* the switch hoisted out for the common case */
        for (size_t i = 0; i < n; i += VLEN) F(store)(z + i, F(vtanh)(F(load)(z + i)));
    else
        for (size_t i = 0; i < n; i += VLEN) F(store)(z + i, F(activate_vector)(activation, F(load)(z + i)));
}

/* y[i] = function(x[i]) for any n: the whole-array form that accuracy tests call. */
static void F(elementary)(trpo_activation activation, size_t n, const void *x_, void *y_) {
    const REAL *x = x_;
    REAL *y = y_;
    for (size_t i = 0; i < n; i += VLEN) {
        REAL lane[TRPO_VECTOR_BYTES / sizeof(REAL)] = {0};
        const size_t count = n - i < VLEN ? n - i : VLEN;
        for (size_t j = 0; j < count; j++) lane[j] = x[i + j];
        F(store)(lane, F(activate_vector)(activation, F(load)(lane)));
        for (size_t j = 0; j < count; j++) y[i + j] = lane[j];
    }
}

#undef MAGIC
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef LN2_HIGH
#undef LN2_LOW
#undef TAYLOR_DEGREE
#undef EXP_LIMIT
#undef TANH_LIMIT
#undef SIGN_BIT
