/* Elementary functions on vectors of REAL, over the whole range of their arguments: exp, expm1, log, log1p to 2 ulp, tanh,
 * sigmoid, softplus and silu to 4, gelu to 6; of double also the sine and cosine of turns.
 *
 * A scalar is a lane of a vector, with the same bits. There is one way to contract each expression here, so that bits
 * depend on whether the instruction set has multiply-adds and on nothing else: neither on the length of its vectors nor on
 * what stands around a call. */
#if TRPO_REAL_IS_DOUBLE
#define MAGIC 0x1.8p52 /* adding it rounds to an integer that then sits in the low mantissa bits */
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define LN2_HIGH 0x1.62e42fee00000p-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define EXP_DEGREE 13
#define EXP_LOWEST (-746.0) /* exp rounds to 0 there and overflows at the other end */
#define EXP_HIGHEST 710.0
#define LOG_TERMS 10
#define SQRT_HALF 0x1.6a09e667f3bcdp-1
#define SUBNORMAL_BITS 54
#define HALF_PI 0x1.921fb54442d18p+0
#define HALF_PI_LOW 0x1.1a62633145c07p-54
#define TANH_LIMIT 22.0   /* tanh rounds to 1 beyond */
#define NORMAL_LIMIT 39.0 /* exp(-x^2 / 2) rounds to 0 beyond */
#define NORMAL_CENTRE 5.0
#define HIGH_BITS (~(((int64_t)1 << 27) - 1)) /* of a mantissa: half of them, so that the square is exact */
#define SMALLEST_NORMAL DBL_MIN
#define EPSILON DBL_EPSILON
#define SIGN_BIT INT64_MIN
#else
#define MAGIC 0x1.8p23f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f
#define EXP_DEGREE 7
#define EXP_LOWEST (-104.0f)
#define EXP_HIGHEST 89.0f
#define LOG_TERMS 4
#define SQRT_HALF 0x1.6a09e6p-1f
#define SUBNORMAL_BITS 25
#define HALF_PI 0x1.921fb6p+0f
#define HALF_PI_LOW -0x1.777a5cp-25f
#define TANH_LIMIT 10.0f
#define NORMAL_LIMIT 14.5f
#define NORMAL_CENTRE 4.0f
#define HIGH_BITS (~(((int32_t)1 << 12) - 1))
#define SMALLEST_NORMAL FLT_MIN
#define EPSILON FLT_EPSILON
#define SIGN_BIT INT32_MIN
#endif

static const double F(inverse_factorial)[] = {1.0,
                                              1.0,
                                              1.0 / 2,
                                              1.0 / 6,
                                              1.0 / 24,
                                              1.0 / 120,
                                              1.0 / 720,
                                              1.0 / 5040,
                                              1.0 / 40320,
                                              1.0 / 362880,
                                              1.0 / 3628800,
                                              1.0 / 39916800,
                                              1.0 / 479001600,
                                              1.0 / 6227020800,
                                              1.0 / 87178291200,
                                              1.0 / 1307674368000,
                                              1.0 / 20922789888000,
                                              1.0 / 355687428096000};

/* (t + c) Phi(-t) exp(t^2 / 2) as a polynomial in w = (t - c) / (t + c), c = NORMAL_CENTRE: interpolated, in 50 digits, where
 * Chebyshev's polynomial of that degree has its zeros between w of t = 0 and w of t = NORMAL_LIMIT. Phi is the standard
 * normal distribution function; that the product is smooth to the end of the range is from Shepherd & Laframboise 1981,
 * "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x) in 0 <= x < inf". To a third of an ulp. */
static const REAL F(normal_tail)[] = {
#if TRPO_REAL_IS_DOUBLE
    0x1.89d3abe1f95aep-1,   -0x1.54ad03f27ca17p-1, 0x1.fb31653876f8fp-2,   -0x1.410ed5f875a7ap-2,
    0x1.51f6329f0187bp-3,   -0x1.1b1c254c9a2e6p-4, 0x1.54b4d4f4b669dp-6,   -0x1.88590eaafa38ap-9,
    -0x1.a25037c87b0ecp-11, 0x1.1daf1d4d75665p-11, -0x1.f21467ad6278dp-15, -0x1.a170d475ef56ep-15,
    0x1.17dd44798bf8cp-16,  0x1.0b2760d8b1777p-18, -0x1.73af4afacfcbap-19, -0x1.697020b9644f5p-22,
    0x1.d114e6bba97a0p-22,  0x1.6b23b1c1c1515p-25, -0x1.1b383be38249ep-24, -0x1.4002f2e969bbcp-27,
    0x1.074d17a738a60p-27,  0x1.e1dfd082669c9p-30, -0x1.5d26340ff95b4p-33
#else
    0x1.82b4bcp-1f,  -0x1.373e3ap-1f, 0x1.8c6d8ep-2f,  -0x1.7dffc6p-3f, 0x1.eed98cp-5f, -0x1.ed4daep-8f,
    -0x1.cdd786p-9f, 0x1.9b62dcp-10f, 0x1.988772p-13f, -0x1.01ea14p-13f
#endif
};
enum { F(NORMAL_DEGREE_) = sizeof F(normal_tail) / sizeof(REAL) - 1 };

INLINE vreal F(clamp)(vreal x, REAL low, REAL high) { /* NaN passes */
    x = F(select)(x > high, F(splat)(high), x);
    return F(select)(x < low, F(splat)(low), x);
}

INLINE vreal F(absolute)(vreal x) { return (vreal)((vint)x & ~SIGN_BIT); }

INLINE vreal F(positive_part)(vreal x) { return F(select)(x < 0, (vreal){0}, x); } /* NaN passes */

/* x rounded to an integer, |x| < 2^(MANTISSA_BITS - 1); the same in *n, unsigned as all arithmetic with bits, since what comes of
 * a NaN's overflows. */
INLINE vreal F(rounded)(vreal x, vuint *n) {
    const vreal shifted = x + F(splat)(MAGIC);
    *n = (vuint)shifted - (vuint)F(splat)(MAGIC);
    return shifted - F(splat)(MAGIC);
}

/* 2^n where that is a normal number; 0 for n = -EXPONENT_BIAS. */
INLINE vreal F(power_of_two)(vuint n) { return (vreal)((n + EXPONENT_BIAS) << MANTISSA_BITS); }

/* (exp(r) - 1 - r) / r^2 by its Taylor series. */
INLINE vreal F(exp_series)(vreal r) {
    vreal sum = F(splat)((REAL)F(inverse_factorial)[EXP_DEGREE]);
    _Pragma("GCC unroll 16") for (int i = EXP_DEGREE - 1; i >= 2; i--) sum =
        sum * r + F(splat)((REAL)F(inverse_factorial)[i]);
    return sum;
}

/* x = n ln 2 + r, |r| <= ln(2)/2; returns p = expm1(r) by its Taylor series, whose remainder is below a quarter of an ulp.
 * ln 2 is split in two so that n * LN2_HIGH is exact; with `exact`, what r lost to rounding is made good, which shows where
 * 2^n (1 + p) - 1 cancels. EXP_LOWEST <= x <= EXP_HIGHEST; a NaN comes out as NaN in p. */
INLINE vreal F(exp_parts)(vreal x, int exact, vuint *n) {
    const vreal whole = F(rounded)(x * F(splat)((REAL)1.44269504088896340736), n);
    const vreal high = x - whole * F(splat)(LN2_HIGH), r = high - whole * F(splat)(LN2_LOW);
    const vreal sum = F(exp_series)(r);
    if (!exact) return r + r * r * sum;
    return r + (r * r * sum + ((high - r) - whole * F(splat)(LN2_LOW)));
}

/* 2^n (1 + p), with 2^n in two factors: one of them may be no normal number. */
INLINE vreal F(exp_product)(vreal p, vuint n) {
    const vuint half = ((n + 2 * EXPONENT_BIAS) >> 1) - EXPONENT_BIAS;
    const vreal scale = F(power_of_two)(half);
    return (scale * p + scale) * F(power_of_two)(n - half);
}

INLINE vreal F(vexp)(vreal x) {
    vuint n;
    const vreal p = F(exp_parts)(F(clamp)(x, EXP_LOWEST, EXP_HIGHEST), 0, &n);
    return F(exp_product)(p, n);
}

/* expm1 for |x| <= 2 TANH_LIMIT, but for the sign of zero. */
INLINE vreal F(bounded_expm1)(vreal x) {
    vuint n;
    const vreal p = F(exp_parts)(x, 0, &n), scale = F(power_of_two)(n);
    return scale * p + (scale - F(splat)(1));
}

/* Twice 2^(n - 1) (1 + p) - 1/2: 2^n may overflow where expm1 does not. */
INLINE vreal F(vexpm1)(vreal x) {
    vuint n;
    const vreal p = F(exp_parts)(F(clamp)(x, -2 * TANH_LIMIT, EXP_HIGHEST), 1, &n);
    const vreal half_scale = F(power_of_two)(n - 1), half = half_scale * p + (half_scale - F(splat)((REAL)0.5));
    return F(select)(F(absolute)(x) < EPSILON / 4, x, half + half);
}

/* log(u) + c, c small against 1 (or u not positive and finite): u = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), and with
 * s = f / (2 + f): log(1 + f) = 2 atanh(s) = f - s (f - R), R = 2 s^2 / 3 + 2 s^4 / 5 + ... */
INLINE vreal F(log_parts)(vreal u, vreal c) {
    const vuint base = (vuint)F(splat)(SQRT_HALF), one = (vuint)F(splat)(1);
    const vint tiny = u < SMALLEST_NORMAL;
    const vreal normal = F(select)(tiny, u * F(splat)((REAL)((INT)1 << SUBNORMAL_BITS)), u);
    const vuint bits = (vuint)normal + (one - base); /* the exponent is that of 2^k */
    const vreal f = (vreal)((bits & (((INT)1 << MANTISSA_BITS) - 1)) + base) - F(splat)(1);
    const vuint biased = (bits >> MANTISSA_BITS) - ((vuint)tiny & SUBNORMAL_BITS);
    const vreal k = (vreal)(biased + (vuint)F(splat)(MAGIC)) - F(splat)(MAGIC + EXPONENT_BIAS);
    const vreal s = f / (F(splat)(2) + f), square = s * s;
    vreal sum = F(splat)((REAL)(2.0 / (2 * LOG_TERMS + 1)));
    _Pragma("GCC unroll 16") for (int i = LOG_TERMS - 1; i >= 1; i--) sum =
        sum * square + F(splat)((REAL)(2.0 / (2 * i + 1)));
    const vreal low = k * F(splat)(LN2_LOW) + c, away = s * (f - square * sum) - low;
    vreal y = k * F(splat)(LN2_HIGH) - (away - f);
    y = F(select)(u == 0, F(splat)(-(REAL)INFINITY), y);
    y = F(select)(u < 0, F(splat)((REAL)NAN), y);
    return F(select)(u < (REAL)INFINITY, y, u);
}

INLINE vreal F(vlog)(vreal x) { return F(log_parts)(x, (vreal){0}); }

/* With what 1 + x loses to rounding, c: log(u + c) = log(u) + c / u. */
INLINE vreal F(vlog1p)(vreal x) {
    const vreal one = F(splat)(1), u = one + x;
    const vreal c = F(select)(x < 1, x - (u - one), one - (u - x));
    return F(select)(u == 1, x, F(log_parts)(u, c / u));
}

/* tanh |x| = u / (u + 1), u = expm1(2 |x|) / 2: no cancellation at either end. In single precision, where most of the time of
 * small networks goes into it, with less than exp takes: |x| = n ln(2)/2 + h, u = 2^n (h + h^2 q(h)) + (2^n - 1) / 2. There q
 * is the best polynomial of degree 4 up to an error of 1.4e-8 of u, and one constant is ln 2 enough, as tanh is flat where n
 * is large. */
INLINE vreal F(vtanh)(vreal x) {
    const vint sign = (vint)x & SIGN_BIT;
    vreal y = F(absolute)(x);
    y = F(select)(y > TANH_LIMIT, F(splat)(TANH_LIMIT), y);
#if TRPO_REAL_IS_DOUBLE
    const vreal t = F(bounded_expm1)(y + y);
    return (vreal)((vint)(t / (t + F(splat)(2))) | sign);
#else
    vuint n;
    const vreal whole = F(rounded)(y * F(splat)(2.88539008177792681f), &n);
    const vreal h = y - whole * F(splat)(0.34657359027997264f), scale = F(power_of_two)(n);
    vreal q = F(splat)(0x1.6be7f8p-5f) * h + F(splat)(0x1.1229d0p-3f);
    q = q * h + F(splat)(0x1.55567ep-2f);
    q = q * h + F(splat)(0x1.5554aep-1f);
    q = q * h + F(splat)(1);
    const vreal u = scale * (h * h * q + h) + (scale * F(splat)(0.5f) - F(splat)(0.5f));
    return (vreal)((vint)(u / (u + F(splat)(1))) | sign);
#endif
}

/* 1 / (1 + e^-x), relatively accurate on both sides; the same of -x in *rest. */
INLINE vreal F(sigmoid_pair)(vreal x, vreal *rest) {
    const vreal e = F(vexp)(-F(absolute)(x)), above = F(splat)(1) / (F(splat)(1) + e), below = e * above;
    *rest = F(select)(x < 0, above, below);
    return F(select)(x < 0, below, above);
}

INLINE vreal F(vsigmoid)(vreal x) {
    vreal rest;
    return F(sigmoid_pair)(x, &rest);
}

/* log(1 + e^x); -softplus(-x) is the logarithm of the sigmoid. */
INLINE vreal F(vsoftplus)(vreal x) { return F(positive_part)(x) + F(vlog1p)(F(vexp)(-F(absolute)(x))); }

/* Phi(x), relatively accurate on both sides, and the density in *density. Where exp(-x^2 / 2) is small its argument must be
 * known to more digits than REAL has: x^2 = h^2 + (x - h) (x + h), the first exact. */
INLINE vreal F(vnormal)(vreal x, vreal *density) {
    vuint n;
    vreal t = F(absolute)(x);
    t = F(select)(t > NORMAL_LIMIT, F(splat)(NORMAL_LIMIT), t);
    const vreal q = F(splat)(1) / (t + F(splat)(NORMAL_CENTRE)), w = (t - F(splat)(NORMAL_CENTRE)) * q;
    vreal tail = F(splat)(F(normal_tail)[F(NORMAL_DEGREE_)]);
    _Pragma("GCC unroll 32") for (int i = F(NORMAL_DEGREE_) - 1; i >= 0; i--) tail =
        tail * w + F(splat)(F(normal_tail)[i]);
    const vreal h = (vreal)((vint)t & HIGH_BITS), half_h = F(splat)((REAL)-0.5) * h;
    const vreal low = F(splat)((REAL)-0.5) * (t - h) * (t + h);
    const vreal whole = F(rounded)(half_h * h * F(splat)((REAL)1.44269504088896340736), &n);
    const vreal r = ((half_h * h - whole * F(splat)(LN2_HIGH)) - whole * F(splat)(LN2_LOW)) + low;
    const vreal e = F(exp_product)(r + r * r * F(exp_series)(r), n);
    *density = e * F(splat)((REAL)0.39894228040143267794);
    const vreal below = e * (q * tail);
    return F(select)(x < 0, below, F(splat)(1) - below);
}

/* Sine and cosine of 2 pi x, |x| < 2^(MANTISSA_BITS - 4): quarter turns are taken off exactly; a + low is what is left. */
INLINE void F(sine_cosine_of_turns)(vreal x, vreal *sine, vreal *cosine) {
    const vreal one = F(splat)(1), turns = F(splat)(4) * x;
    vuint quarters;
    const vreal rest = turns - F(rounded)(turns, &quarters), low = rest * F(splat)(HALF_PI_LOW);
    const vreal a = rest * F(splat)(HALF_PI), square = a * a;
    vreal odd = F(splat)((REAL)F(inverse_factorial)[17]), even = F(splat)((REAL)F(inverse_factorial)[16]);
    _Pragma("GCC unroll 16") for (int i = 15; i >= 3; i -= 2) {
        const REAL sign = i % 4 == 1 ? 1 : -1;
        odd = odd * square + F(splat)(sign * (REAL)F(inverse_factorial)[i]);
        if (i > 4) even = even * square + F(splat)(sign * (REAL)F(inverse_factorial)[i - 1]);
    }
    const vreal s = (a * square * odd + low) + a, c = square * square * even + (one - F(splat)((REAL)0.5) * square);
    const vint swapped = -(vint)(quarters & 1);
    const int to_sign = 8 * (int)sizeof(REAL) - 2;
    *sine = (vreal)((vuint)F(select)(swapped, c, s) ^ ((quarters & 2) << to_sign));
    *cosine = (vreal)((vuint)F(select)(swapped, s, c) ^ (((quarters + 1) & 2) << to_sign));
}

#undef MAGIC
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_DEGREE
#undef EXP_LOWEST
#undef EXP_HIGHEST
#undef LOG_TERMS
#undef SQRT_HALF
#undef SUBNORMAL_BITS
#undef HALF_PI
#undef HALF_PI_LOW
#undef TANH_LIMIT
#undef NORMAL_LIMIT
#undef NORMAL_CENTRE
#undef HIGH_BITS
#undef SMALLEST_NORMAL
#undef EPSILON
#undef SIGN_BIT
