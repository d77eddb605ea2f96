"""Hypothesis strategies that draw recipes: small graphs of layers, each fitting the shapes that are there.

A kind of layer is a dictionary of the options it needs and those it may have; absent is the layer's own default, so a
small recipe shows what matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st

from generated.recipes import AGAIN, INPUT, MODEL, OURS, SEQUENTIAL, Building, Node, Recipe
from mh_edge.opsets import OLDEST_RUNTIME

# fmt: off
ACTIVATIONS = [
    "relu", "tanh", "sigmoid", "gelu", "softmax", "silu", "elu", "selu", "softplus", "softsign", "hard_sigmoid",
    "hard_silu", "leaky_relu", "relu6", "mish", "celu", "log_sigmoid", "hard_tanh", "hard_shrink", "soft_shrink",
    "tanh_shrink", "squareplus", "sparse_plus", "sparse_sigmoid", "sparsemax", "log_softmax", "exponential", "linear",
]
# fmt: on
GATES = ["sigmoid", "hard_sigmoid", "tanh", "linear", "relu"]
TIMES, WIDTHS, LARGEST = (1, 2, 5, 8), (1, 2, 3, 4, 6), 4000
WEIGHTLESS = (
    "Reshape",
    "Permute",
    "Flatten",
    "RepeatVector",
    "Dropout",
    "Rescaling",
    "LeakyReLU",
    "Masking",
    "Activation",
)
"""Layers that are not worth being called twice."""

LENGTH_KEEPERS = (
    *WEIGHTLESS[4:], "Dense", "LayerNormalization", "RMSNormalization", "BatchNormalization", "Add", "Multiply",
    "Subtract", "Average", "Maximum", "TimeDistributed", "EinsumDense", "GroupNormalization", "UnitNormalization",
    "LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", f"{OURS}MultiHeadAttention", f"{OURS}SeqSelfAttention",
)  # fmt: skip
"""What comes out of these is as long as what goes in; of others that is not known."""

LAYERS = (4, 3, 5, 2, 6, 1)
"""How many more layers a model has; hypothesis draws the first one oftenest."""

INITIAL_STATES = {"LSTM": 2, "GRU": 1, "SimpleRNN": 1}

Options = st.SearchStrategy[dict[str, Any]]


def options(needed: Mapping[str, Any] | None = None, **optional: Any) -> Options:
    """A dictionary with every needed option and some of the others; a list stands for one of its items."""

    def choice(value: Any) -> st.SearchStrategy[Any]:
        return value if isinstance(value, st.SearchStrategy) else st.sampled_from(value)

    return st.fixed_dictionaries(
        {name: choice(value) for name, value in (needed or {}).items()},
        optional={name: choice(value) for name, value in optional.items()},
    )


def specs(kinds: Mapping[str, Options]) -> st.SearchStrategy[list[Any]]:
    """[kind, options] of one of the kinds."""
    return st.one_of([strategy.map(lambda drawn, kind=kind: [kind, drawn]) for kind, strategy in kinds.items()])


RECURRENT = {"activation": ACTIVATIONS[:10], "use_bias": [False]}
SEQUENCES = {"return_sequences": [True], "go_backwards": [True], "zero_output_for_mask": [True], "dropout": [0.3]}
GATED = {"recurrent_activation": GATES}


def recurrent(units: Sequence[int], **more: Any) -> dict[str, Options]:
    return {
        "LSTM": options({"units": units}, **RECURRENT, **GATED, **more),
        "GRU": options({"units": units}, **RECURRENT, **GATED, reset_after=[False], **more),
        "SimpleRNN": options({"units": units}, **RECURRENT, **more),
    }


def cells(units: Sequence[int]) -> st.SearchStrategy[Any]:
    one = {f"{kind}Cell": strategy for kind, strategy in recurrent(units).items()}
    return st.one_of(specs(one), st.lists(specs(one), min_size=2, max_size=2))


def convolutions(rank: int, filters: Sequence[int], padding: Sequence[str], **more: Any) -> dict[str, Options]:
    common = {"activation": ACTIVATIONS[:8], "use_bias": [False]}
    needed = {"filters": filters, "kernel_size": [1, 2, 3, 5], "padding": padding}
    return {
        f"Conv{rank}D": options(needed, **common, **more),
        f"SeparableConv{rank}D": options(needed, depth_multiplier=[2], **common),
    }


DENSE = {"activation": ACTIVATIONS, "use_bias": [False]}
SELF_ATTENTION = {
    f"{OURS}SeqSelfAttention": options(
        units=[3], attention_width=[1, 2, 3, 15], history_only=[True], attention_activation=ACTIVATIONS[:4],
        attention_type=["multiplicative"], use_additive_bias=[False], use_attention_bias=[False],
    ),
}  # fmt: skip


def ours(width: int) -> dict[str, Options]:
    heads = [count for count in (1, 2, 3) if width % count == 0]
    common = {"history_only": [True], "activation": [None, *ACTIVATIONS[1:4]], "use_bias": [False]}
    return {f"{OURS}MultiHeadAttention": options({"head_num": heads}, **common), **SELF_ATTENTION}


def bidirectional(units: int) -> Options:
    sequences = {"return_sequences": [True], "zero_output_for_mask": [True]}
    return options({"layer": specs(recurrent([units], **sequences))}, merge_mode=["sum", "mul", "ave"])


def heads_of(rank: int, width: int, units: int) -> st.SearchStrategy[Any]:
    """The layer, or the list of layers, of a MultiHead on inputs of this rank and last size."""
    dense = options({"units": [units]}, **DENSE)
    if rank == 2:
        alike, mixed = {"Dense": dense}, {"Dense": dense}
    elif rank == 4:
        mixed = {"Dense": dense} | convolutions(2, [units], ["same"])
        alike = {"Dense": dense} | convolutions(2, [units], ["same", "valid"], strides=[2], dilation_rate=[2])
    else:
        sequences = convolutions(1, [units], ["same"]) | {
            "Conv1D": convolutions(1, [units], ["same", "causal"])["Conv1D"]
        }
        mixed = {"Dense": dense} | sequences
        alike = mixed | recurrent([units], **SEQUENCES) | ours(width)
        alike |= {"Bidirectional": bidirectional(units), "LayerNormalization": options(center=[False], scale=[False])}
        alike |= {"TimeDistributed": options({"layer": specs({"Dense": dense})})}
    one_kind = st.sampled_from(sorted(mixed)).flatmap(
        lambda kind: st.lists(specs({kind: mixed[kind]}), min_size=2, max_size=3)
    )
    return st.one_of(
        st.fixed_dictionaries({"layer": specs(alike), "layer_num": st.sampled_from([1, 2, 3])}),
        st.fixed_dictionaries({"layer": one_kind}),
        st.fixed_dictionaries({"layer": st.lists(specs(mixed), min_size=1, max_size=3)}),
    )


class Drawing:
    """Draws node after node onto what is there."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], prefix: str = "n") -> None:
        self.pick = draw
        self.built = Building()
        self.prefix = prefix
        self.length: dict[str, str] = {}

    def one(self, items: Sequence[Any]) -> Any:
        return self.pick(st.sampled_from(items))

    def chance(self, of: int = 2) -> bool:
        return self.one([False] * (of - 1) + [True])

    def add(self, kind: str, options: Mapping[str, Any], values: Sequence[str] = (), **call: Any) -> str:
        name = f"{self.prefix}{len(self.built.nodes)}"
        try:
            self.built.add(Node(name, kind, options, tuple(values), call))
        except (ValueError, TypeError):
            reject()
        kept = self.length[values[0]] if kind in LENGTH_KEEPERS else name
        self.length |= {value: kept for value in self.built.values if value.partition(":")[0] == name}
        return name

    def input(self, *shape: int | None, dtype: str | None = None) -> str:
        options: dict[str, Any] = {"shape": list(shape)}
        return self.add(INPUT, options if dtype is None else options | {"dtype": dtype})

    def shape(self, value: str) -> tuple[int | None, ...]:
        return tuple(self.built.values[value].shape)

    def first(self) -> None:
        time = self.one([None, None, None, *TIMES])
        kind = self.one(["sequence", "masked", "ids", "sequence", "masked", "vector", "image"])
        if kind == "ids":
            ids = self.input(time, dtype="int32")
            drawn = self.pick(options({"input_dim": [2, 7], "output_dim": WIDTHS}, mask_zero=[True]))
            self.add("Embedding", drawn, [ids])
        elif kind == "image":
            size = self.one([None, 4, 7])
            self.input(size, size, self.one([1, 3]))
        elif kind == "vector":
            self.input(self.one(WIDTHS))
        else:
            value = self.input(time, self.one(WIDTHS))
            if kind == "masked":
                self.add("Masking", {"mask_value": self.one([0.0, 0.5])}, [value])

    def next(self) -> None:
        """One more node, on a value drawn among the last ones that can be computed with."""
        usable = [name for name, value in self.built.values.items() if self._usable(value)]
        if not usable:
            reject()
        value = self.one(usable[::-1][:4])
        rank = len(self.shape(value))
        moves = {
            2: [self.heads, self.elementwise, self.vector, self.combined, self.again],
            3: [self.heads, self.recurrent, self.attention, self.heads, self.recurrent, self.attention, self.heads,
                self.sequence, self.elementwise, self.sequence, self.elementwise, self.reshaped, self.combined,
                self.again, self.nested],
            4: [self.heads, self.image, self.elementwise, self.reshaped, self.combined],
        }.get(rank, [self.elementwise, self.reshaped])  # fmt: skip
        self.one(moves)(value)

    def _usable(self, value: Any) -> bool:
        shape = tuple(value.shape)
        sizes = [size or 8 for size in shape[1:]]
        total = 1
        for size in sizes:
            total *= size
        return (
            value.dtype.startswith(("float", "bfloat"))
            and len(shape) > 1
            and None not in shape[-1:]
            and total <= LARGEST
        )

    def heads(self, value: str) -> None:
        shape = self.shape(value)
        hidden = self.pick(options(hidden_dim=[1, 2, 6], use_bias=[False]))
        width = hidden.get("hidden_dim", shape[-1])
        drawn = self.pick(heads_of(len(shape), width, self.one([1, 2, 4])))
        self.add(f"{OURS}MultiHead", drawn | hidden, [value])

    def elementwise(self, value: str) -> None:
        kinds = {
            "Activation": options({"activation": ACTIVATIONS}),
            "Dropout": options({"rate": [0.4]}),
            "LayerNormalization": options(center=[False], scale=[False], epsilon=[0.1]),
            "RMSNormalization": options(),
            "BatchNormalization": options(center=[False], scale=[False]),
            "Dense": options({"units": WIDTHS}, **DENSE),
            "LeakyReLU": options(negative_slope=[0.1]),
            "Rescaling": options({"scale": [0.5]}, offset=[1.0]),
            SEQUENTIAL: options({"layers": st.lists(specs({"Dense": options({"units": WIDTHS}, **DENSE),
                "LayerNormalization": options(), "BatchNormalization": options()}), min_size=1, max_size=3)}),
        }  # fmt: skip
        self.add(*self.pick(specs(kinds)), [value])

    def vector(self, value: str) -> None:
        kinds = {"Dense": options({"units": WIDTHS}, **DENSE), "RepeatVector": options({"n": TIMES})}
        self.add(*self.pick(specs(kinds)), [value])

    def sequence(self, value: str) -> None:
        width = self.shape(value)[-1] or 1
        valid = {"padding": ["valid", "same"], "pool_size": [2, 3]}
        dense = {"Dense": options({"units": WIDTHS}, **DENSE), "LayerNormalization": options()}
        kinds = {
            **convolutions(1, WIDTHS, ["same", "valid", "causal"], strides=[2], dilation_rate=[2]),
            "DepthwiseConv1D": options({"kernel_size": [3], "padding": ["same"]}),
            "Conv1DTranspose": options({"filters": WIDTHS, "kernel_size": [2, 3]}, strides=[2], padding=["same"]),
            "MaxPooling1D": options(valid, strides=[1]), "AveragePooling1D": options(valid, strides=[1]),
            "GlobalAveragePooling1D": options(keepdims=[True]), "GlobalMaxPooling1D": options(),
            "TimeDistributed": options({"layer": specs(dense)}),
            "EinsumDense": st.just({"equation": "abc,cd->abd", "output_shape": [None, 3], "bias_axes": "d"}),
            "ZeroPadding1D": options({"padding": [1, 2]}), "UpSampling1D": options({"size": [2]}),
            "GroupNormalization": options({"groups": [1, width]}), "UnitNormalization": options(),
            "Masking": options(mask_value=[0.0]),
        }  # fmt: skip
        self.add(*self.pick(specs(kinds)), [value])

    def image(self, value: str) -> None:
        inner = {"Dense": options({"units": [2]})} | ({} if self.masked(value) else recurrent([2]))
        kinds = {
            **convolutions(2, [1, 3], ["same", "valid"], strides=[2]),
            "DepthwiseConv2D": options({"kernel_size": [3], "padding": ["same"]}),
            "MaxPooling2D": options({"pool_size": [2], "padding": ["same", "valid"]}),
            "AveragePooling2D": options({"pool_size": [2], "padding": ["same", "valid"]}),
            "GlobalAveragePooling2D": options(), "GlobalMaxPooling2D": options(),
            "TimeDistributed": options({"layer": specs(inner)}),
        }  # fmt: skip
        self.add(*self.pick(specs(kinds)), [value])

    def recurrent(self, value: str) -> None:
        shape = self.shape(value)
        units = self.one([1, 3])
        more: dict[str, Any] = SEQUENCES | {"return_state": [True]}
        if shape[1] is not None:
            more |= {"unroll": [True]}
        kinds = recurrent([units], **more)
        common = {name: value for name, value in more.items() if name != "dropout"}
        layers = specs(recurrent([units], **{k: v for k, v in more.items() if k not in ("unroll", "go_backwards")}))
        kinds |= {
            "RNN": options({"cell": cells([units])}, **common),
            "Bidirectional": options({"layer": layers}, merge_mode=["sum", "mul", "ave", None]),
        }
        kind, drawn = self.pick(specs(kinds))
        call: dict[str, Any] = {}
        if kind in INITIAL_STATES and self.chance(4):
            call["initial_state"] = [self._vector(units) for _ in range(INITIAL_STATES[kind])]
        if self.chance(4):
            call["mask"] = self.input(shape[1], dtype="bool")
        self.add(kind, drawn, [value], **call)

    def _vector(self, width: int) -> str:
        """A vector of this width: one that is there, or a new input."""
        found = [name for name, value in self.built.values.items() if tuple(value.shape) == (None, width)]
        return self.one(found) if found and self.chance() else self.input(width)

    def attention(self, value: str) -> None:
        shape = self.shape(value)
        width = shape[-1] or 1
        other = self._same(value, free=(1,))
        kind = self.one(["own", "weighted", "scaled", "several", "keras", "grouped", "dot", "additive"])
        returned = {"return_attention": [True]}
        if kind == "own":
            layer, drawn = self.pick(specs(ours(width)))
            self.add(layer, drawn | self.pick(options(**returned)) if "Seq" in layer else drawn, [value])
        elif kind == "weighted":
            self.add(f"{OURS}SeqWeightedAttention", self.pick(options(use_bias=[False], **returned)), [value])
        elif kind == "scaled":
            values = self.one([[value], [value, value, value], [other, value, value]])
            drawn = self.pick(options(history_only=[True], **returned))
            self.add(f"{OURS}ScaledDotProductAttention", drawn, values)
        elif kind == "several":
            layer, drawn = self.pick(specs({k: v for k, v in ours(width).items() if "MultiHead" in k}))
            self.add(layer, drawn, [other, value, value])
        elif kind in ("dot", "additive"):
            drawn = self.pick(options(use_scale=[True, False] if kind == "additive" else [True], dropout=[0.3]))
            if kind == "dot":
                drawn |= self.pick(options(score_mode=["concat"]))
            flags = self.pick(options(use_causal_mask=[True], return_attention_scores=[True]))
            layer = "Attention" if kind == "dot" else "AdditiveAttention"
            self.add(layer, drawn, self.one([[value, value], [other, value], [other, value, value]]), **flags)
        else:
            flags = self.pick(options(use_causal_mask=[True], return_attention_scores=[True]))
            if (time := shape[1]) is not None and self.shape(other)[1] == time and self.chance(4):
                flags["attention_mask"] = self.input(time, time, dtype="bool")
            common = {"use_bias": [False], "dropout": [0.3]}
            if kind == "keras":
                needed = {"num_heads": [1, 2], "key_dim": [1, 3]}
                drawn = self.pick(options(needed, value_dim=[2], output_shape=[3], **common))
            else:
                drawn = self.pick(
                    options({"head_dim": [2], "num_query_heads": [4], "num_key_value_heads": [1, 2, 4]}, **common)
                )
            values = self.one([[value, value], [other, value], [other, value, value]])
            self.add("MultiHeadAttention" if kind == "keras" else "GroupQueryAttention", drawn, values, **flags)

    def _same(self, value: str, free: Sequence[int] = ()) -> str:
        """A value of the same shape but for the free axes: one that is there, or a new input."""
        shape = self.shape(value)
        unknown = None in shape[1:]

        def fits(name: str, other: tuple[int | None, ...]) -> bool:
            pairs = zip(shape, other, strict=False)
            alike = len(other) == len(shape) and all(axis in free or a == b for axis, (a, b) in enumerate(pairs))
            return alike and (bool(free) or not unknown or self.length[name] == self.length[value])

        found = [name for name, other in self.built.values.items() if fits(name, tuple(other.shape))]
        found = [name for name in found if self._usable(self.built.values[name])]
        # A new input can be as long as an input, but not as something whose length is computed.
        new = (
            free or not unknown or self.length[value] in (node.name for node in self.built.nodes if node.kind == INPUT)
        )
        return self.input(*shape[1:]) if new and self.chance(4) else self.one(found or [value])

    def masked(self, value: str) -> bool:
        return keras.src.backend.get_keras_mask(self.built.values[value]) is not None

    def combined(self, value: str) -> None:
        if len(self.shape(value)) > 3 and self.masked(value):  # Keras does not broadcast the mask
            return self.elementwise(value)
        kind = self.one(["Add", "Multiply", "Subtract", "Average", "Maximum", "Concatenate"])
        other = self._same(value)
        axes = options(axis=[1]) if kind == "Concatenate" else options()
        self.add(kind, self.pick(axes), [value, other])

    def again(self, value: str) -> None:
        """A layer that is there, called once more."""
        width = self.shape(value)[-1]
        found = [
            node.name
            for node in self.built.nodes
            if len(node.values) == 1
            and node.kind not in (INPUT, AGAIN, *WEIGHTLESS)
            and self.shape(node.values[0])[-1] == width
            and len(self.shape(node.values[0])) == len(self.shape(value))
        ]
        if found:
            self.add(AGAIN, {"of": self.one(found)}, [value])
        else:
            self.elementwise(value)

    def nested(self, value: str) -> None:
        """A model inside the model."""
        inner = Drawing(self.pick, prefix=f"{self.prefix}{len(self.built.nodes)}_")
        inner.input(*self.shape(value)[1:])
        for _ in range(self.one([1, 2])):
            usable = [name for name, found in inner.built.values.items() if inner._usable(found)]
            if len(inner.shape(usable[-1])) != 3:
                break
            self.one([inner.heads, inner.recurrent, inner.elementwise, inner.sequence])(usable[-1])
        if len(inner.built.inputs) > 1:
            reject()
        rows = [[n.name, n.kind, dict(n.options), list(n.values), dict(n.call)] for n in inner.built.nodes]
        self.add(MODEL, {"nodes": rows}, [value])

    def reshaped(self, value: str) -> None:
        shape = self.shape(value)[1:]
        fixed = None not in shape
        kinds: dict[str, Options] = {"Reshape": options({"target_shape": st.just([-1, shape[-1]])})}
        if fixed:
            kinds |= {"Flatten": options(), "Permute": options({"dims": st.permutations(range(1, len(shape) + 1))})}
        if len(shape) == 3 and shape[1] is not None and shape[2] is not None:
            kinds |= {"Reshape": options({"target_shape": st.just([-1, shape[1] * shape[2]])})}
        self.add(*self.pick(specs(kinds)), [value])


@st.composite
def recipes(draw: Any) -> Recipe:
    """Recipes of one to six layers."""
    drawing = Drawing(draw)
    drawing.first()
    for _ in range(draw(st.sampled_from(LAYERS))):
        drawing.next()
    if not drawing.built.outputs():
        reject()
    shapes = [node.options["shape"] for node in drawing.built.nodes if node.kind == INPUT]
    sizes = draw(options(batch=[1, 2]))
    if len(shapes) == 1 and None in shapes[0] and len(shapes[0]) < 3:
        sizes |= draw(options(sequence=[1, 5]))
    return Recipe(
        nodes=tuple(drawing.built.nodes),
        policy=draw(st.sampled_from(["float32", "float32", "float32", "mixed_float16", "float16"])),
        sizes=sizes,
        opset=draw(st.sampled_from(sorted(OLDEST_RUNTIME, reverse=True))),
        merge=draw(st.sampled_from([True, True, False])),
        seed=draw(st.integers(0, 99)),
    )


def drawn(count: int, start: int = 0) -> list[Recipe]:
    """So many different recipes, the same ones each time for one `start`."""
    found: dict[str, Recipe] = {}
    number = start
    while len(found) < count:
        recipe = _one(number)
        found.setdefault(recipe.text(), recipe)
        number += 1
    return list(found.values())


def _one(number: int) -> Recipe:
    """A run of its own for each: within one run hypothesis varies what it has, and many would be alike."""
    kept: list[Recipe] = []

    @seed(number)
    @settings(
        max_examples=2, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(recipes())
    def keep(recipe: Recipe) -> None:
        kept.append(recipe)

    keep()
    return kept[-1]  # the first is the simplest there is
