"""Every formula of the layers once more, in NumPy and float64, as the tests' second opinion.

Written from the formulas, sharing no code with the layers. Shapes: B batch, T time, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

MASKED = 10000.0


def f64(x: ArrayLike) -> Array:
    return np.asarray(x, dtype=np.float64)


def linear(x: Array) -> Array:
    return x


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


ACTIVATIONS: Mapping[str | None, Function] = {
    None: linear,
    "linear": linear,
    "relu": relu,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
}


def softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def scaled_dot_product_attention(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, key_mask: ArrayLike | None = None, history_only: bool = False
) -> tuple[Array, Array]:
    """(B, Tq, d), (B, Tk, d), (B, Tk, v) -> (B, Tq, v) and the weights (B, Tq, Tk)."""
    q, k, v = f64(query), f64(key), f64(value)
    scores = np.einsum("bqd,bkd->bqk", q, k) / np.sqrt(k.shape[-1])
    if history_only:
        for t in range(q.shape[1]):
            scores[:, t, t + 1 :] -= MASKED
    if key_mask is not None:
        scores -= MASKED * (1.0 - f64(key_mask))[:, None, :]
    weights = softmax(scores)
    return np.einsum("bqk,bkd->bqd", weights, v), weights


def multi_head_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    weights: Mapping[str, ArrayLike],
    head_num: int,
    activation: str | None = "relu",
    key_mask: ArrayLike | None = None,
    history_only: bool = False,
) -> tuple[Array, Array]:
    """weights: Wq Wk Wv Wo and, if used, bq bk bv bo -> (B, Tq, v_in) and the attention (B, Tq, H, Tk)."""

    def project(x: ArrayLike, role: str) -> Array:
        return ACTIVATIONS[activation](f64(x) @ f64(weights[f"W{role}"]) + f64(weights.get(f"b{role}", 0.0)))

    q, k, v = project(query, "q"), project(key, "k"), project(value, "v")
    width = v.shape[-1] // head_num
    heads = [slice(n * width, (n + 1) * width) for n in range(head_num)]
    results = [scaled_dot_product_attention(q[..., h], k[..., h], v[..., h], key_mask, history_only) for h in heads]
    joined = np.concatenate([output for output, _ in results], axis=-1)
    return project(joined, "o"), np.stack([attention for _, attention in results], axis=2)


def seq_self_attention(
    x: ArrayLike,
    weights: Mapping[str, ArrayLike],
    attention_type: str = "additive",
    attention_width: int | None = None,
    history_only: bool = False,
    activation: str | None = None,
    mask: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """weights: Wt Wx Wa (additive) or Wa, and, if used, bh and ba; (B, T, D) -> (B, T, D) and (B, T, T)."""
    x = f64(x)
    time = x.shape[1]
    if attention_type == "additive":
        of_query, of_key = x @ f64(weights["Wt"]), x @ f64(weights["Wx"])
        hidden = np.tanh(of_query[:, :, None, :] + of_key[:, None, :, :] + f64(weights.get("bh", 0.0)))
        scores = (hidden @ f64(weights["Wa"]))[..., 0]
    else:
        scores = np.einsum("bid,de,bje->bij", x, f64(weights["Wa"]), x)
    scores = ACTIVATIONS[activation](scores + f64(weights.get("ba", 0.0)))
    if history_only and attention_width is None:
        attention_width = time
    if attention_width is not None:
        for t in range(time):
            lower = t - (attention_width - 1) if history_only else t - attention_width // 2
            for other in range(time):
                if not lower <= other < lower + attention_width:
                    scores[:, t, other] -= MASKED
    if mask is not None:
        masked = 1.0 - f64(mask)
        scores -= MASKED * masked[:, :, None] * masked[:, None, :]
    attention = softmax(scores)
    return attention @ x, attention


def attention_penalty(attention: ArrayLike, factor: float) -> float:
    """factor · Σ (a aᵀ − I)² / B for a: (B, T, T)."""
    a = f64(attention)
    overlap = a @ a.transpose(0, 2, 1) - np.eye(a.shape[1])
    return float(factor * np.sum(overlap**2) / a.shape[0])


def seq_weighted_attention(
    x: ArrayLike, weights: Mapping[str, ArrayLike], mask: ArrayLike | None = None
) -> tuple[Array, Array]:
    """weights: W and, if used, b; (B, T, D) -> (B, D) and the weights (B, T)."""
    x = f64(x)
    scores = (x @ f64(weights["W"]))[..., 0] + f64(weights.get("b", 0.0))
    if mask is not None:
        scores = scores - MASKED * (1.0 - f64(mask))
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attention = exponentials / (exponentials.sum(axis=-1, keepdims=True) + 1e-7)
    return np.einsum("bt,btd->bd", attention, x), attention


def multi_head(
    x: ArrayLike, heads: Sequence[Function], kernel: ArrayLike | None = None, bias: ArrayLike | None = None
) -> Array:
    """kernel: (D, h·N), bias: (h·N,), both None without hidden_dim -> the heads' output shape followed by N."""
    inputs = [f64(x)] * len(heads)
    if kernel is not None:
        hidden = f64(x) @ f64(kernel) + (0.0 if bias is None else f64(bias))
        inputs = np.split(hidden, len(heads), axis=-1)
    return np.stack([head(part) for head, part in zip(heads, inputs, strict=True)], axis=-1)


def head_penalty(parts: Sequence[ArrayLike], factor: float) -> float:
    """factor · Σ (V Vᵀ − I)², one row of V for each head's part of a weight."""
    rows = np.stack([f64(part).ravel() for part in parts])
    return float(factor * np.sum((rows @ rows.T - np.eye(len(rows))) ** 2))
