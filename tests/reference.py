"""Independent oracles in float64 NumPy, written for clarity: they import nothing of trpo_fast.

Derivatives are hand-written backpropagation, and are themselves checked against finite differences in
tests/test_reference.py. Arrays of any precision come in; everything is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


def _sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def _normal(x):
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in np.ravel(x)]).reshape(np.shape(x))


def _silu_derivative(x):
    return _sigmoid(x) * (1.0 + x * _sigmoid(-x))


def _gelu_derivative(x):
    return _normal(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


# name: (function, derivative), both of the pre-activation
ACTIVATIONS = {
    "tanh": (np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: np.where(x > 0, 1.0, 0.0)),
    "elu": (_elu, lambda x: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0.0)))),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1.0, 0.01)),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1.0 - _sigmoid(x))),
    "silu": (lambda x: x * _sigmoid(x), _silu_derivative),
    "gelu": (lambda x: x * _normal(x), _gelu_derivative),
    # the identity above 20, as torch has it
    "softplus": (
        lambda x: np.where(x > 20, x, np.logaddexp(0.0, x)),
        lambda x: np.where(x > 20, 1.0, _sigmoid(x)),
    ),
}


def exactly(x):
    """`x`."""
    return x


def as_bfloat16(x):
    """`x` to the nearest numbers of eight bits, ties to even."""
    fraction, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(fraction * 256.0), exponent - 8)


@dataclass(frozen=True)
class MLP:
    """Perceptron over a flat buffer W1 b1 W2 b2 ..., weights (outputs, inputs).

    `operands` is what the passes after the first do to the operands of their products, whose sums stay exact.
    """

    widths: tuple[int, ...]
    activation: str
    operands: Callable = exactly

    @property
    def size(self):
        return sum(outputs * inputs + outputs for inputs, outputs in pairwise(self.widths))

    def layers(self, theta):
        """[(W, b), ...] cut out of theta (n,)."""
        theta = np.asarray(theta, np.float64)
        assert theta.shape == (self.size,)
        result, at = [], 0
        for inputs, outputs in pairwise(self.widths):
            weight = theta[at : at + outputs * inputs].reshape(outputs, inputs)
            at += outputs * inputs
            result.append((weight, theta[at : at + outputs]))
            at += outputs
        return result

    def forward(self, theta, x):
        """Outputs (B, K), and per layer its input and its derivative factor, for the passes below."""
        function, derivative = ACTIVATIONS[self.activation]
        h, trace = np.asarray(x, np.float64), []
        layers = self.layers(theta)
        for index, (weight, bias) in enumerate(layers):
            z = h @ weight.T + bias
            last = index == len(layers) - 1
            trace.append((h, np.ones_like(z) if last else derivative(z)))
            h = z if last else function(z)
        return h, trace

    def pullback(self, theta, trace, cotangents, per_sample=False):
        """J' d summed over samples, (n,), or sample by sample, (B, n); cotangents d (B, K)."""
        pieces, d = [], np.asarray(cotangents, np.float64)
        for (weight, _), (h, slope) in zip(reversed(self.layers(theta)), reversed(trace), strict=True):
            d = d * slope
            if per_sample:
                pieces += [d, np.einsum("bo,bi->boi", d, h).reshape(len(d), -1)]
            else:
                pieces += [d.sum(0), (self.operands(d).T @ self.operands(h)).ravel()]
            d = self.operands(d) @ self.operands(weight)
        return np.concatenate(pieces[::-1], axis=-1)

    def pushforward(self, theta, trace, v):
        """J v, (B, K)."""
        t = np.zeros_like(trace[0][0])
        for (weight, _), (dweight, dbias), (h, slope) in zip(self.layers(theta), self.layers(v), trace, strict=True):
            through = self.operands(t) @ self.operands(weight).T
            t = slope * (through + self.operands(h) @ self.operands(dweight).T + dbias)
        return t


class NarrowCritic(MLP):
    """One output; products of hidden layers, in both passes, are of bf16 numbers, whose sums stay exact."""

    def forward(self, theta, x):
        function, derivative = ACTIVATIONS[self.activation]
        h, trace = np.asarray(x, np.float64), []
        *hidden, (weight, bias) = self.layers(theta)
        for inner, offset in hidden:
            z = as_bfloat16(h) @ as_bfloat16(inner).T + offset
            trace.append((h, derivative(z)))
            h = function(z)
        return h @ weight.T + bias, [*trace, (h, np.ones((len(h), 1)))]

    def pullback(self, theta, trace, cotangents):
        *hidden, (weight, _) = self.layers(theta)
        d = np.asarray(cotangents, np.float64)
        pieces = [d.sum(0), (d.T @ trace[-1][0]).ravel()]
        d = d @ weight
        for (inner, _), (h, slope) in zip(reversed(hidden), reversed(trace[:-1]), strict=True):
            d = d * slope
            pieces += [d.sum(0), (as_bfloat16(d).T @ as_bfloat16(h)).ravel()]
            d = as_bfloat16(d) @ as_bfloat16(inner)
        return np.concatenate(pieces[::-1])


@dataclass(frozen=True)
class Policy:
    """MLP policy over a flat buffer [log_std] W1 b1 ...; "gaussian" (diagonal, free log_std) or discrete.

    Discrete ones are blocks of choices, whose logits are the outputs: "categorical" has one block, "multicategorical"
    one for each of `nvec`, "bernoulli" one of two for each output z, with logits 0 and z. Masks are bool (B, choices),
    False where a choice is forbidden.
    """

    widths: tuple[int, ...]
    activation: str
    distribution: str
    nvec: tuple[int, ...] = ()
    operands: Callable = exactly

    @property
    def network(self):
        return MLP(self.widths, self.activation, self.operands)

    @property
    def outputs(self):
        return self.widths[-1]

    @property
    def discrete(self):
        return self.distribution != "gaussian"

    @property
    def blocks(self):
        """Number of choices of each component."""
        return {
            "gaussian": (),
            "categorical": (self.outputs,),
            "multicategorical": self.nvec,
            "bernoulli": (2,) * self.outputs,
        }[self.distribution]

    @property
    def free(self):
        """Parameters in front of the network's."""
        return 0 if self.discrete else self.outputs

    @property
    def size(self):
        return self.free + self.network.size

    def split(self, theta):
        theta = np.asarray(theta, np.float64)
        assert theta.shape == (self.size,)
        return theta[: self.free], theta[self.free :]

    def forward(self, theta, observations):
        """Means or logits, (B, A)."""
        return self.network.forward(self.split(theta)[1], observations)[0]

    def choice_logits(self, x):
        """Of every choice, (..., K), from outputs or tangents of them (..., A)."""
        return np.stack([np.zeros_like(x), x], -1).reshape(*x.shape[:-1], -1) if self.distribution == "bernoulli" else x

    def of_outputs(self, d):
        """The adjoint of `choice_logits`: (..., A) from (..., K)."""
        return d[..., 1::2] if self.distribution == "bernoulli" else d

    def per_block(self, function, *arrays):
        """`function` of each component's columns of arrays (B, K), put together again."""
        cuts = np.cumsum(self.blocks)[:-1]
        return np.concatenate([function(*b) for b in zip(*(np.split(a, cuts, -1) for a in arrays), strict=True)], -1)

    def log_p(self, outputs, masks=None):
        """Log-probability of every choice, (B, K); -inf where forbidden."""
        logits = self.choice_logits(outputs)
        return self.per_block(log_softmax, logits if masks is None else np.where(masks, logits, -np.inf))

    def chosen(self, actions):
        """One for every choice taken, (B, K)."""
        actions = np.asarray(actions).reshape(len(actions), -1)
        return np.concatenate([np.eye(n)[actions[:, j]] for j, n in enumerate(self.blocks)], -1)

    def log_prob(self, theta, observations, actions, masks=None):
        outputs, log_std = self.forward(theta, observations), self.split(theta)[0]
        if self.discrete:
            return np.where(self.chosen(actions) > 0, self.log_p(outputs, masks), 0.0).sum(-1)
        z = (np.asarray(actions, np.float64) - outputs) * np.exp(-log_std)
        return -(0.5 * z**2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, theta, observations, masks=None):
        """Mean over the batch, nats."""
        if not self.discrete:
            return float((self.split(theta)[0] + 0.5 * math.log(2 * math.pi * math.e)).sum())
        return float(-p_log_p(self.log_p(self.forward(theta, observations), masks)).sum(-1).mean())

    def kl(self, theta_p, theta_q, observations, masks=None):
        """KL(p || q) of every sample, (B,): joint over action dimensions."""
        p, q = self.forward(theta_p, observations), self.forward(theta_q, observations)
        if self.discrete:
            return discrete_kl(self.log_p(p, masks), self.log_p(q, masks))
        return gaussian_kl(p, self.split(theta_p)[0], q, self.split(theta_q)[0])

    def evaluate(
        self,
        theta,
        theta_old,
        observations,
        actions,
        advantages,
        kl_direction="new_old",
        total=None,
        masks=None,
        entropy_coefficient=0.0,
    ):
        """(improvement, kl), means with denominator `total`."""
        count = len(observations)
        total = count if total is None else total
        growth = self.log_prob(theta, observations, actions, masks) - self.log_prob(
            theta_old, observations, actions, masks
        )
        pair = (theta, theta_old) if kl_direction == "new_old" else (theta_old, theta)
        improvement = (np.expm1(growth) * np.asarray(advantages, np.float64)).sum() / total
        if entropy_coefficient:
            change = self.entropy(theta, observations, masks) - self.entropy(theta_old, observations, masks)
            improvement += entropy_coefficient * change * count / total
        return float(improvement), float(self.kl(*pair, observations, masks).sum() / total)

    def surrogate_gradient(
        self, theta, observations, actions, advantages, total=None, masks=None, entropy_coefficient=0.0
    ):
        """(1/total) sum of grad (log pi(a|s) A + entropy_coefficient H), (n,)."""
        total = len(observations) if total is None else total
        log_std, weights = self.split(theta)
        outputs, trace = self.network.forward(weights, observations)
        a = np.asarray(advantages, np.float64)[:, None] / total
        c = entropy_coefficient / total
        if self.discrete:
            log_p = self.log_p(outputs, masks)
            p = np.exp(log_p)
            # d H / d logit = -p (log p + H), H of the component
            of_entropy = self.per_block(lambda t, q: q * t.sum(-1, keepdims=True) - t, p_log_p(log_p), p)
            d = a * (self.chosen(actions) - p) + c * of_entropy
            return self.network.pullback(weights, trace, self.of_outputs(d))
        z = (np.asarray(actions, np.float64) - outputs) * np.exp(-log_std)
        of_log_std = (a * (z**2 - 1.0)).sum(0) + c * len(outputs)
        return np.concatenate([of_log_std, self.network.pullback(weights, trace, a * z * np.exp(-log_std))])

    def metric(self, theta, outputs, tangents, masks=None):
        """M of every sample applied to tangents (B, A) of mean or logits."""
        if not self.discrete:
            return tangents * np.exp(-2.0 * self.split(theta)[0])
        p = np.exp(self.log_p(outputs, masks))

        def block(q, t):
            return q * (t - (q * t).sum(-1, keepdims=True))

        return self.of_outputs(self.per_block(block, p, self.choice_logits(tangents)))

    def fisher_product(self, theta, observations, v, total=None, masks=None):
        """F v, (n,), without any matrix."""
        total = len(observations) if total is None else total
        weights = self.split(theta)[1]
        v_free, v_weights = self.split(v)
        outputs, trace = self.network.forward(weights, observations)
        tangents = self.network.pushforward(weights, trace, v_weights)
        product = self.network.pullback(weights, trace, self.metric(theta, outputs, tangents, masks))
        return np.concatenate([2.0 * len(observations) * v_free, product]) / total

    def jacobian(self, theta, observations):
        """d(outputs)/d(theta) of every sample, (B, A, n)."""
        weights = self.split(theta)[1]
        outputs, trace = self.network.forward(weights, observations)
        rows = []
        for k in range(self.outputs):
            unit = np.zeros_like(outputs)
            unit[:, k] = 1.0
            gradient = self.network.pullback(weights, trace, unit, per_sample=True)
            rows.append(np.concatenate([np.zeros((len(outputs), self.free)), gradient], axis=1))
        return np.stack(rows, axis=1)

    def fisher(self, theta, observations, total=None, masks=None):
        """Dense F, (n, n): the sum of J'MJ written out, M as explicit (A, A) matrices."""
        total = len(observations) if total is None else total
        outputs = self.forward(theta, observations)
        metrics = np.stack(
            [self.metric(theta, outputs, np.broadcast_to(unit, outputs.shape), masks) for unit in np.eye(self.outputs)],
            axis=-1,
        )
        jacobian = self.jacobian(theta, observations)
        n = self.size
        result = jacobian.reshape(-1, n).T @ (metrics @ jacobian).reshape(-1, n)
        result[np.arange(self.free), np.arange(self.free)] += 2.0 * len(outputs)
        return result / total


@dataclass(frozen=True)
class Product:
    """Policies over the parts of an action that share all layers but the last, of which each has rows of its own.

    The flat buffer is [log_std of all Gaussian parts] W1 b1 ..., outputs, actions (floats) and masks of the parts one
    after the other. Everything adds up over the parts, each a `Policy` on its own entries of the buffer.
    """

    widths: tuple[int, ...]
    activation: str
    parts: tuple[tuple[str, int, tuple[int, ...]], ...]
    """(distribution, outputs, nvec) of each."""

    distribution = "product"
    discrete = False

    @property
    def policies(self):
        return [Policy((*self.widths[:-1], n), self.activation, kind, nvec) for kind, n, nvec in self.parts]

    @property
    def free(self):
        return sum(policy.free for policy in self.policies)

    @property
    def size(self):
        return self.free + MLP(self.widths, self.activation).size

    @property
    def blocks(self):
        return sum((policy.blocks for policy in self.policies), ())

    @property
    def entries(self):
        """Of each part: indices into the buffer."""
        inputs, outputs = self.widths[-2:]
        last = self.size - outputs * (inputs + 1)
        hidden = np.arange(self.free, last)
        found, scale, row = [], 0, 0
        for policy in self.policies:
            n = policy.outputs
            weights = last + np.arange(row * inputs, (row + n) * inputs)
            biases = last + outputs * inputs + np.arange(row, row + n)
            found.append(np.concatenate([np.arange(scale, scale + policy.free), hidden, weights, biases]))
            scale, row = scale + policy.free, row + n
        return found

    def apart(self, theta, actions=None, masks=None):
        """(policy, its theta, its actions, its masks) for each part."""
        theta = np.asarray(theta, np.float64)
        column = flag = 0
        for policy, entries in zip(self.policies, self.entries, strict=True):
            items, flags = len(policy.blocks) or policy.outputs, sum(policy.blocks)
            own = None if actions is None else np.asarray(actions)[:, column : column + items]
            if own is not None and policy.discrete:
                own = own.astype(int)
            yield policy, theta[entries], own, None if masks is None else masks[:, flag : flag + flags]
            column, flag = column + items, flag + flags

    def added(self, pieces):
        """A vector (n,) from one for each part."""
        whole = np.zeros(self.size)
        for entries, piece in zip(self.entries, pieces, strict=True):
            whole[entries] += piece
        return whole

    def forward(self, theta, observations):
        return np.concatenate([policy.forward(own, observations) for policy, own, _, _ in self.apart(theta)], -1)

    def chosen(self, actions):
        zeros = np.zeros(self.size)
        return np.concatenate([p.chosen(own) for p, _, own, _ in self.apart(zeros, actions) if p.discrete], -1)

    def log_prob(self, theta, observations, actions, masks=None):
        return sum(p.log_prob(own, observations, a, m) for p, own, a, m in self.apart(theta, actions, masks))

    def entropy(self, theta, observations, masks=None):
        return sum(p.entropy(own, observations, m) for p, own, _, m in self.apart(theta, masks=masks))

    def kl(self, theta_p, theta_q, observations, masks=None):
        pairs = zip(self.apart(theta_p, masks=masks), self.apart(theta_q), strict=True)
        return sum(p.kl(own, other, observations, m) for (p, own, _, m), (_, other, _, _) in pairs)

    evaluate = Policy.evaluate

    def surrogate_gradient(self, theta, observations, actions, advantages, *, masks=None, **more):
        return self.added(
            p.surrogate_gradient(own, observations, a, advantages, masks=m, **more)
            for p, own, a, m in self.apart(theta, actions, masks)
        )

    def fisher_product(self, theta, observations, v, total=None, masks=None):
        parts = zip(self.apart(theta, masks=masks), self.apart(v), strict=True)
        return self.added(p.fisher_product(own, observations, u, total, m) for (p, own, _, m), (_, u, _, _) in parts)

    def fisher(self, theta, observations, total=None, masks=None):
        whole = np.zeros((self.size, self.size))
        parts = self.apart(theta, masks=masks)
        for entries, (policy, own, _, m) in zip(self.entries, parts, strict=True):
            whole[np.ix_(entries, entries)] += policy.fisher(own, observations, total, m)
        return whole


def environment_action(action, low, high, action_map):
    """What the environment gets of a Gaussian action: "affine" takes [-1, 1] to [low, high]; then both are clipped."""
    action, low, high = (np.asarray(array, np.float64) for array in (action, low, high))
    if action_map == "affine":
        action = low + (high - low) * (action + 1) / 2
    return np.minimum(np.maximum(action, low), high)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def gaussian_kl(mean_p, log_std_p, mean_q, log_std_q):
    """KL(p || q) of diagonal Gaussians, summed over the last axis; the textbook formula but for expm1."""
    u = 2.0 * (log_std_p - log_std_q)
    return 0.5 * (np.expm1(u) - u + ((mean_p - mean_q) * np.exp(-log_std_q)) ** 2).sum(-1)


def discrete_kl(log_p, log_q):
    """KL(p || q) over the last axis; terms p (log p - log q) - p + q add up to it and do not cancel."""
    possible = log_p > -np.inf
    d = np.where(possible, log_q, 0.0) - np.where(possible, log_p, 0.0)
    return (np.exp(log_p) * (np.expm1(d) - d)).sum(-1)


def p_log_p(log_p):
    return np.exp(log_p) * np.where(log_p > -np.inf, log_p, 0.0)


def conjugate_gradient(
    product: Callable[[np.ndarray], np.ndarray],
    b: np.ndarray,
    iterations: int,
    damping: float = 0.0,
    reorthogonalize: bool = True,
) -> np.ndarray:
    """x after `iterations` steps from zero on (A + damping I) x = b, residuals kept orthogonal in two passes."""
    b = np.asarray(b, np.float64)
    x, r = np.zeros_like(b), b.copy()
    p, basis = r.copy(), [r / np.linalg.norm(r)]
    for _ in range(iterations):
        Ap = product(p) + damping * p
        rr = r @ r
        alpha = rr / (p @ Ap)
        x += alpha * p
        r -= alpha * Ap
        if reorthogonalize:
            for _ in range(2):
                for q in basis:
                    r -= (q @ r) * q
        norm = np.linalg.norm(r)
        if norm <= 1e-15 * np.linalg.norm(b):
            break
        basis.append(r / norm)
        p = r + (r @ r) / rr * p
    return x


def generalized_advantages(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """(advantages, returns), each (T, E), by the definition, one environment and one step at a time."""
    rewards, values, next_values = (np.asarray(a, np.float64) for a in (rewards, values, next_values))
    advantages = np.zeros_like(values)
    steps, environments = values.shape
    for e in range(environments):
        following = 0.0
        for t in reversed(range(steps)):
            bootstrap = 0.0 if terminated[t, e] else next_values[t, e]
            delta = rewards[t, e] + gamma * bootstrap - values[t, e]
            ended = terminated[t, e] or truncated[t, e]
            following = delta + (0.0 if ended else gamma * gae_lambda * following)
            advantages[t, e] = following
    return advantages, advantages + values


def discounted_returns(rewards, done, valid, carry, gamma):
    """(returns so far (T, E), carry (E,)): carry = gamma carry + r, forgotten after an episode's end."""
    carry = np.array(carry, np.float64)
    out = np.zeros(np.shape(rewards))
    for t in range(len(rewards)):
        for e in range(len(carry)):
            if valid[t, e]:
                carry[e] = gamma * carry[e] + rewards[t, e]
            out[t, e] = carry[e]
            if done[t, e]:
                carry[e] = 0.0
    return out, carry


def fit_values(
    network: MLP,
    theta: np.ndarray,
    first_moment: np.ndarray,
    second_moment: np.ndarray,
    observations: np.ndarray,
    returns: np.ndarray,
    permutations: Iterable[np.ndarray],
    *,
    adam_step: int,
    batch_size: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
):
    """Adam (Kingma & Ba 2015, Algorithm 1) on the mean squared error, one epoch for each permutation.

    Returns (theta, first_moment, second_moment, adam_step, mean squared error over the last epoch as it was met).
    """
    theta, m, v = (np.array(a, np.float64) for a in (theta, first_moment, second_moment))
    observations, returns = np.asarray(observations, np.float64), np.asarray(returns, np.float64)
    loss = math.nan
    for order in permutations:
        squares = 0.0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            outputs, trace = network.forward(theta, observations[rows])
            errors = outputs[:, 0] - returns[rows]
            squares += float(errors @ errors)
            gradient = network.pullback(theta, trace, (2.0 / len(rows)) * errors[:, None])
            adam_step += 1
            m = beta1 * m + (1.0 - beta1) * gradient
            v = beta2 * v + (1.0 - beta2) * gradient**2
            corrected_m, corrected_v = m / (1.0 - beta1**adam_step), v / (1.0 - beta2**adam_step)
            theta = theta - learning_rate * corrected_m / (np.sqrt(corrected_v) + epsilon)
        loss = squares / len(order)
    return theta, m, v, adam_step, loss


def sign_bits(philox, rows, count, stream, step=0):
    """+-1 of (len(rows), count): bit j of a row's 128-bit draws, from the generator alone."""
    signs = np.empty((len(rows), count))
    for index, row in enumerate(rows):
        for j in range(count):
            words = philox((0, 0), (j // 128, int(row), step, stream << 24))
            signs[index, j] = 1.0 if words[j % 128 // 32] >> (j % 32) & 1 else -1.0
    return signs


def kronecker_factors(policy: Policy, theta, observations, cotangents, input_rows, score_rows):
    """[(A, G), ...] of K-FAC (Martens & Grosse 2015, sec. 3).

    A = mean a a', a with a 1 appended, over input_rows; G = mean d d' over score_rows, d backpropagated from the
    cotangents (len(score_rows), K) of the outputs.
    """
    network, weights = policy.network, policy.split(theta)[1]
    factors = []
    d = np.asarray(cotangents, np.float64)
    trace = network.forward(weights, observations)[1]
    for (weight, _), (h, slope) in zip(reversed(network.layers(weights)), reversed(trace), strict=True):
        a = np.concatenate([h[input_rows], np.ones((len(input_rows), 1))], axis=1)
        d = d * slope[score_rows]
        factors.append((a.T @ a / len(a), d.T @ d / len(d)))
        d = d @ weight
    return factors[::-1]


def kronecker_solve(policy: Policy, factors, free_diagonal, damping, factored_damping, v):
    """(F + damping I)^-1 v with F's blocks A x G, both damped (Martens & Grosse 2015, sec. 6.3); log_std's exact."""
    v_free, v_weights = policy.split(v)
    pieces = [v_free / (free_diagonal + damping)]
    for (A, G), (weight, bias) in zip(factors, policy.network.layers(v_weights), strict=True):
        pi = math.sqrt(np.trace(A) / len(A) * len(G) / np.trace(G))
        root = math.sqrt(factored_damping)
        V = np.concatenate([weight, bias[:, None]], axis=1)
        U = np.linalg.solve(G + root / pi * np.eye(len(G)), V)
        U = np.linalg.solve(A + pi * root * np.eye(len(A)), U.T).T
        pieces += [U[:, :-1].ravel(), U[:, -1]]
    return np.concatenate(pieces)
