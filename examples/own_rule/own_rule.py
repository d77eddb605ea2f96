"""A rule for a layer of one's own: the same model exported without it and with it, and proven both times."""

from __future__ import annotations

import sys

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mh_edge
from mh_edge.quiet import quiet

with quiet():  # TensorFlow prints a page when it is loaded
    import keras
    from scale_norm import ScaleNorm

    from mh_edge.layers import MultiHeadAttention


def build() -> keras.Model:
    """(batch, 8, 8) -> each row scaled, attention, scaled again -> (batch, 10)."""
    rows = keras.Input((8, 8), name="rows")
    seen = MultiHeadAttention(head_num=4, activation="tanh")(ScaleNorm()(rows))
    flat = keras.layers.Flatten()(ScaleNorm()(seen))
    return keras.Model(rows, keras.layers.Dense(10, activation="softmax", name="digit")(flat), name="scaled")


def main(folder: str) -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        (digits.images / 16).astype("float32"), digits.target, test_size=360, random_state=0
    )
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=10, verbose=0)
    print(f"right of {len(test_x)} test digits: {model.evaluate(test_x, test_y, verbose=0)[1]:.1%}")
    for rules in ("without", "with"):
        if rules == "with":
            import scale_norm.rules  # noqa: F401 - importing it registers the rules

            checked = mh_edge.check_rule(ScaleNorm)
            checked.require()
            print(f"checked: {', '.join(f'{case.target} {case.case}' for case in checked.cases)}")
        result = mh_edge.export(model, folder, formats=("onnx", "tflite"), feeds={"rows": test_x[:8]})
        for made in result.artifacts:
            print(f"{rules} the rule, {made.path}: {sum(made.ops.values())} operations, made by {dict(made.rules)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "out")
