"""When a merged form is taken on ONNX Runtime: the rule, and the measurements behind it.

One operation saves the start of the others, further readings of the input, and stacking N results number by number; it
loses only where it multiplies more than the heads do, or leaves a kernel that is better. So what is compared is
multiplications. The times below are merged / apart, one thread; under 1 is a gain.

- Dense, and convolutions that read at the same places: the same multiplications, so always merged. Dense .16 to .95,
  Conv1D .38 to .97, Conv2D .42 to .94, at widths 3 to 256, 2 to 8 heads, 1 to 1024 rows.
- hidden_dim folded into the heads: `FOLD_RATIO`.
- Convolutions of several sizes, zero-filled to one: `FILLED`. Depthwise and separable ones: `CHANNELS`.
- LSTM, GRU and SimpleRNN as one with a block-diagonal recurrent kernel: `RECURRENT_UNITS`, `RECURRENT_WIDTH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mh_edge.merging import CONVOLUTION, DENSE

FOLD_RATIO = {DENSE: 2.0, CONVOLUTION: 1.25}
"""hidden_dim folded into Dense heads takes .25 to .84 of the time up to twice the multiplications, 1.1 to 1.8 at 3.2
and 4; into convolutions .45 to .84 up to 1.2 times, 1.07 at 1.5.
"""

BATCHED_HEADS, BATCHED_UNITS = 4, 32
"""x W + b and one batched product for all heads take .71 to .85 of the time from 4 heads and up to 32 units; .86 to
1.06 with 2 heads, .72 to 1.19 with 64 units and more.
"""

FILLED = 1536
"""Zero-filled multiplications for each output step. Kernels of 3, 5, 7 steps take .59 to .76 of the time as one at
6 x 4 channels (144), .81 to .95 at 16 x 16 (1536), .90 to 1.29 from 24 x 24 on (3456); of 1 and 3 steps .88 to .97 at
24 x 24 (1152), .91 to 1.10 at 32 x 32 (2048).
"""

CHANNELS = 8
"""From this many channels on, ONNX Runtime's own kernel for depthwise convolutions is faster than one wide convolution
(.50 to .72 of the time at 3 and 6 channels, .86 to 1.37 at 16); separable ones take .33 to .50 as one at 3 and 6
channels, .68 to 1.56 at 16.
"""

RECURRENT_UNITS = {"LSTM": 16, "GRU": 16, "SimpleRNN": 8}
"""Most units of a head. Two LSTM heads as one take .49 to .66 of the time at 4 and 8 units, .61 to .93 at 16, .74 to
1.12 at 24; GRU .56 to .69, .65 to 1.02, .83 to 1.04 at 24; SimpleRNN .60 to .96, .82 to 1.01 at 16 (16 to 256 steps,
batch 1 to 128, one direction and two, with and without a mask). Three GRU heads of 16 take .77 to .89 at batch 1 and
come out even at batch 128: .97 to 1.04, 1.07 once, where the same form against itself gives .97 to 1.02.
"""

RECURRENT_WIDTH = {"LSTM": 48, "GRU": 32, "SimpleRNN": 32}
"""Most units of one operation; more heads are cut into equal blocks, because the zeros grow with the square: 8 LSTM
heads of 16 units take .64 to .88 as three, .80 to 1.20 as one; 3 GRU heads .67 to 1.06 as one.
"""


@dataclass(frozen=True)
class Fold:
    """kind: of the heads; ratio: multiplications with hidden_dim folded / with it apart."""

    kind: str
    ratio: float

    @classmethod
    def of(cls, kind: str, layer: Any, out: int, places: int = 1) -> Fold:
        """For the heads of a MultiHead with hidden_dim, each of which takes `places` steps to `out` numbers."""
        width, hidden = layer.W.shape[0], layer.hidden_dim
        return cls(kind, width * places * out / (hidden * (width + places * out)))

    @property
    def pays(self) -> bool:
        """Whether folding is faster."""
        return self.ratio <= FOLD_RATIO[self.kind]

    @property
    def reason(self) -> str:
        """The ratio in a sentence."""
        return f"folding hidden_dim into the heads takes {self.ratio:.2g} times the multiplications"
