/* Operands of products that are numbers of REAL. */
#define OPERAND REAL
typedef vreal F(voperand_);

INLINE F(voperand_) F(load_operands)(const OPERAND *p) { return F(load)(p); }
INLINE F(voperand_) F(splat_operand)(OPERAND x) { return F(splat)(x); }
INLINE vreal F(multiply_add)(vreal sum, F(voperand_) x, F(voperand_) b) { return sum + x * b; }
