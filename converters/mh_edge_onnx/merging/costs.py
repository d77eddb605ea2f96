"""When a merged form is taken on ONNX Runtime: the rule, and the measurements behind it.

One operation saves its own start, a second reading of the input, and above all the stacking of N results number by
number; it loses only where it multiplies more than the heads do. So what is compared is multiplications. The times
below are merged / apart, one thread; under 1 is a gain.

- Dense, and convolutions that read at the same places: the same multiplications, so always merged. Dense .16 to .95,
  Conv1D .36 to .87, at widths 4 to 256, 2 to 8 heads, 1 to 512 rows.
- hidden_dim folded into the heads: in·out for h·(in + out), `Fold`.
- Convolutions of several sizes, zero-filled to one: `FILLED`.
- LSTM, GRU and SimpleRNN as one with a block-diagonal recurrent kernel: `RECURRENT_UNITS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FOLD_RATIO = 2.0
"""Folded hidden layers take .25 to .84 of the time up to this many times the multiplications, 1.1 to 1.8 at 3.2 and
4.
"""

BATCHED_HEADS = 4
"""x W + b and one batched product for all heads take .6 to .9 of the time from 4 heads on, .86 to 1.06 for 2."""

FILLED = 6144
"""Zero-filled multiplications for each output step, up to which kernels of 3, 5, 7 steps take .58 to .72 of the time
as one (at 16 x 16 channels, 1536 of them); at 64 x 32 channels, 12288, convolutions side by side are faster.
"""

RECURRENT_UNITS = {"LSTM": 24, "GRU": 16, "SimpleRNN": 8}
"""Most units of a head. Two LSTM heads as one take .49 to .66 of the time at 4 and 8 units, .71 to .74 at 16, .81 to
.91 at 24, .96 to 1.13 at 32; GRU .56 to .69, .74 to .88, .83 to 1.04 at 24; SimpleRNN .60 to .96, .82 to 1.01 at 16
(16 to 64 steps, batch 1 to 32, one direction and two).
"""

RECURRENT_WIDTH = 48
"""Most units of one operation; more heads are cut into equal blocks, because the zeros grow with the square: 4 LSTM
heads of 16 units take .66 to .84 as one and .72 as two, 8 heads .80 to 1.20 as one.
"""


@dataclass(frozen=True)
class Fold:
    """ratio: multiplications with hidden_dim folded into the heads / with it apart."""

    ratio: float

    @classmethod
    def of(cls, layer: Any, out: int, places: int = 1) -> Fold:
        """For the heads of a MultiHead with hidden_dim, each of which takes `places` steps to `out` numbers."""
        width, hidden = layer.W.shape[0], layer.hidden_dim
        return cls(width * places * out / (hidden * (width + places * out)))

    @property
    def pays(self) -> bool:
        return self.ratio <= FOLD_RATIO

    @property
    def reason(self) -> str:
        return f"folding hidden_dim into the heads takes {self.ratio:.2g} times the multiplications"
