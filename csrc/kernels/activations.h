/* Activations over a tile, and every elementary function over an array. */

/* Of an activation whose derivative is kept: its value, and the derivative in *slope. */
INLINE vreal F(value_and_slope)(trpo_activation activation, vreal z, vreal *slope) {
    vreal rest, value;
    if (activation == TRPO_GELU) {
        const vreal below = F(vnormal)(z, &rest);
        *slope = below + z * rest;
        return z * below;
    }
    const vreal sigmoid = F(sigmoid_pair)(z, &rest);
    if (activation == TRPO_SILU) {
        value = z * sigmoid;
        *slope = sigmoid + value * rest;
        return value;
    }
    *slope = F(select)(z > 20, F(splat)(1), sigmoid);
    return F(select)(z > 20, z, F(vsoftplus)(z));
}

INLINE vreal F(activate_vector)(trpo_activation activation, vreal z) {
    vreal slope;
    switch (activation) {
    case TRPO_TANH: return F(vtanh)(z);
    case TRPO_RELU: return F(select)(z < 0, (vreal){0}, z); /* NaN passes */
    case TRPO_ELU: return F(select)(z > 0, z, F(vexpm1)(z));
    case TRPO_LEAKY_RELU: return F(select)(z < 0, z * F(splat)((REAL)0.01), z);
    case TRPO_SIGMOID: return F(vsigmoid)(z);
    case TRPO_SILU: return F(value_and_slope)(TRPO_SILU, z, &slope);
    case TRPO_GELU: return F(value_and_slope)(TRPO_GELU, z, &slope);
    case TRPO_SOFTPLUS: return F(value_and_slope)(TRPO_SOFTPLUS, z, &slope);
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

/* activation: a literal wherever this is inlined, as NULL is. */
INLINE void F(activate_kept)(const trpo_activation activation, size_t n, REAL *z, REAL *slopes) {
    for (size_t i = 0; i < n; i += VLEN) {
        vreal slope;
        F(store)(z + i, F(value_and_slope)(activation, F(load)(z + i), &slope));
        if (slopes) F(store)(slopes + i, slope);
    }
}

/* As activate, to the same bits, of an activation whose derivative is kept. slopes: n items, OUT; NULL: not wanted. */
static void F(activate_and_differentiate)(trpo_activation activation, size_t n, REAL *z, REAL *slopes) {
    if (activation == TRPO_SILU)
        slopes ? F(activate_kept)(TRPO_SILU, n, z, slopes) : F(activate_kept)(TRPO_SILU, n, z, NULL);
    else if (activation == TRPO_GELU)
        slopes ? F(activate_kept)(TRPO_GELU, n, z, slopes) : F(activate_kept)(TRPO_GELU, n, z, NULL);
    else
        slopes ? F(activate_kept)(TRPO_SOFTPLUS, n, z, slopes) : F(activate_kept)(TRPO_SOFTPLUS, n, z, NULL);
}

INLINE vreal F(function_vector)(int function, vreal x) {
    vreal sine, cosine;
    switch (function) {
    case TRPO_EXP: return F(vexp)(x);
    case TRPO_EXPM1: return F(vexpm1)(x);
    case TRPO_LOG: return F(vlog)(x);
    case TRPO_LOG1P: return F(vlog1p)(x);
    case TRPO_SINE_OF_TURNS: F(sine_cosine_of_turns)(x, &sine, &cosine); return sine;
    case TRPO_COSINE_OF_TURNS: F(sine_cosine_of_turns)(x, &sine, &cosine); return cosine;
    case TRPO_DERIVATIVE + TRPO_SILU: F(value_and_slope)(TRPO_SILU, x, &sine); return sine;
    case TRPO_DERIVATIVE + TRPO_GELU: F(value_and_slope)(TRPO_GELU, x, &sine); return sine;
    case TRPO_DERIVATIVE + TRPO_SOFTPLUS: F(value_and_slope)(TRPO_SOFTPLUS, x, &sine); return sine;
    default: return F(activate_vector)((trpo_activation)function, x);
    }
}

/* y[i] = function(x[i]) for any n: the whole-array form that tests of accuracy call. */
static void F(elementary)(int function, size_t n, const void *x_, void *y_) {
    const REAL *x = x_;
    REAL *y = y_;
    for (size_t i = 0; i < n; i += VLEN) {
        REAL lane[TRPO_VECTOR_BYTES / sizeof(REAL)] = {0};
        const size_t count = n - i < VLEN ? n - i : VLEN;
        for (size_t j = 0; j < count; j++) lane[j] = x[i + j];
        F(store)(lane, F(function_vector)(function, F(load)(lane)));
        for (size_t j = 0; j < count; j++) y[i + j] = lane[j];
    }
}
