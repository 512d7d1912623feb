"""Newton's method in JAX, its linear systems solved by the compiled loop: JAX arrays in, JAX arrays out.

python examples/jax_operator.py [parameters]        2,000 by default; needs `pip install jax`
"""

import sys

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError:
    print("skipped: needs jax, which is not installed")
    sys.exit()

import trpo_fast

RIDGE = 1e-3


def loss(theta: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Logistic regression with a ridge."""
    return jnp.logaddexp(0.0, -labels * (features @ theta)).mean() + 0.5 * RIDGE * theta @ theta


gradient = jax.jit(jax.grad(loss))


@jax.jit
def hessian_product(theta: jax.Array, v: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Forward over reverse."""
    return jax.jvp(lambda theta: jax.grad(loss)(theta, features, labels), (theta,), (v,))[1]


def newton_step(theta: jax.Array, features: jax.Array, labels: jax.Array) -> trpo_fast.CGResult:
    """About -H^-1 g, from at most 20 products with H."""

    def product(v: jax.Array) -> jax.Array:
        return hessian_product(theta, v, features, labels)

    return trpo_fast.conjugate_gradient(product, -gradient(theta, features, labels), max_iter=20, rtol=1e-3)


def main(size: int) -> None:
    """Minimize the loss."""
    keys = jax.random.split(jax.random.key(0), 3)
    features = jax.random.normal(keys[0], (2 * size, size)) * jnp.geomspace(0.05, 2.0, size)
    labels = jnp.sign(features @ jax.random.normal(keys[1], (size,)) + 0.1 * jax.random.normal(keys[2], (2 * size,)))
    theta = jnp.zeros(size)
    first = float(jnp.linalg.norm(gradient(theta, features, labels)))
    for step in range(8):
        result = newton_step(theta, features, labels)
        assert isinstance(result.x, jax.Array)
        theta = theta + result.x
        norm = float(jnp.linalg.norm(gradient(theta, features, labels)))
        print(f"{step}  |gradient| {norm:.1e} after {result.iterations} products")
    assert norm < 1e-4 * first
    print(f"the gradient fell by a factor of {first / norm:.0e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
