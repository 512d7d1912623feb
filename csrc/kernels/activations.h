/* Activations over a tile, and every elementary function over an array. */

INLINE vreal F(activate_vector)(trpo_activation activation, vreal z) {
    switch (activation) {
    case TRPO_TANH: return F(vtanh)(z);
    case TRPO_RELU: return F(select)(z < 0, (vreal){0}, z); /* NaN passes */
    case TRPO_ELU: return F(select)(z > 0, z, F(vexpm1)(z));
    case TRPO_LEAKY_RELU: return F(select)(z < 0, z * F(splat)((REAL)0.01), z);
    case TRPO_SIGMOID: return F(vsigmoid)(z);
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

INLINE vreal F(function_vector)(int function, vreal x) {
    vreal sine, cosine;
    switch (function) {
    case TRPO_EXP: return F(vexp)(x);
    case TRPO_EXPM1: return F(vexpm1)(x);
    case TRPO_LOG: return F(vlog)(x);
    case TRPO_LOG1P: return F(vlog1p)(x);
    case TRPO_SINE_OF_TURNS: F(sine_cosine_of_turns)(x, &sine, &cosine); return sine;
    case TRPO_COSINE_OF_TURNS: F(sine_cosine_of_turns)(x, &sine, &cosine); return cosine;
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
