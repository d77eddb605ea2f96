"""Keras's masking around ONNX's recurrent operations.

Keras under a mask (mask: (batch, time), True is valid): a masked step leaves the state alone and repeats the previous
output; before the first valid step the output is 0. ONNX's operations know only `sequence_lens`, a number of leading
valid steps. Three forms without a Loop, all exact for any mask:

- Held: a GRU whose gates saturate holds its state by itself: one more input feature, 1 at masked steps, pushes the
  update gate z to exactly 1, and h' = z h + (1 - z) n = h.
- Compacted: the valid steps are moved to the front, the operations run with sequence_lens = number of valid steps, and
  the outputs are gathered back: with c_t = number of valid steps up to and including t, step t of a forward pass shows
  compact output c_t - 1, step t of a backward pass shows compact output c_t - m_t (the next valid step).
- InFront: the same without sequence_lens, of which plug-ins take none (QNN) or ignore it (OpenVINO). The valid steps
  are moved to the front in the order in which the pass meets them, so that every pass is a forward one, and nothing is
  read of the steps behind them: the last output is that of the last valid step, step t shows what the pass gave for the
  last valid step that it had met there. The last state of an LSTM's cell is not to be had in this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from mh_edge_onnx.context import Context

TRUSTED = ("cpu",)
"""Runtimes measured to fill Y with zeros beyond sequence_lens, of which ONNX says nothing, and to keep equal keys of
TopK in order, of which it does.
"""


class Masking:
    """What all forms know of a mask."""

    lengths: ir.Value | None = None
    """The operation's sequence_lens."""

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        self.ctx = ctx
        self.mask = ctx.op("Unsqueeze", mask, ctx.constant([2]))

    def valid(self) -> ir.Value:
        """(batch, time, 1): 1 at valid steps, else 0."""
        return self.ctx.op("Cast", self.mask, to=ir.DataType.INT32)

    def enter(self, x: ir.Value) -> ir.Value:
        """(batch, time, in) as the first operation reads it."""
        raise NotImplementedError

    def step_inputs(self, steps: ir.Value) -> ir.Value:
        """(time, batch, in) of each operation."""
        return steps

    def ended(self, y: ir.Value, finals: Sequence[ir.Value]) -> Sequence[ir.Value]:
        """Y (time, directions, batch, units) and the final states of the operation -> those of its last valid step."""
        del y
        return finals

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """Outputs (batch, time, units) -> what Keras shows at each step."""
        raise NotImplementedError

    def final(self, states: Sequence[ir.Value], initial: Sequence[ir.Value]) -> list[ir.Value]:
        """The final states of a layer that was given initial ones; of a row without a valid step, those."""
        some = self._any()
        return [self.ctx.op("Where", some, state, start) for state, start in zip(states, initial, strict=True)]

    def last(self, output: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """The output at the last step computed: 0 in a row without a valid step, or where masked steps show 0 and it
        is masked.
        """
        if zero_masked:
            end = self.ctx.op("Gather", self.mask, self.ctx.constant(0 if backwards else -1), axis=1)
            return self._zero_unless(end, output)
        return self._zero_unless(self._any(), output) if started else output

    def _any(self) -> ir.Value:
        """(batch, 1): whether a row has a valid step."""
        count = self.ctx.op("ReduceSum", self.valid(), self.ctx.constant([1]), keepdims=0)
        return self.ctx.op("Greater", count, self.ctx.constant(0, "int32"))

    def _reached(self, backwards: bool) -> ir.Value:
        """(batch, time, 1): whether the pass has met a valid step."""
        count = self.ctx.op("CumSum", self.valid(), self.ctx.constant(1), reverse=int(backwards))
        return self.ctx.op("Greater", count, self.ctx.constant(0, "int32"))

    def _zero_unless(self, shown: ir.Value, output: ir.Value) -> ir.Value:
        return self.ctx.op("Where", shown, output, self.ctx.constant(0.0, "float32"))

    def _first(self, keys: ir.Value) -> ir.Value:
        """keys: (batch, time, 1) -> the steps, that of the largest key first."""
        time = self.ctx.shape(keys)[1]
        count = self.ctx.constant([time]) if isinstance(time, int) else self.ctx.op("Shape", keys, start=1, end=2)
        return self.ctx.ops("TopK", keys, count, outputs=2, axis=1)[1]


class Held(Masking):
    """A further feature of the input, 1 at masked steps, on which the cells hold their state."""

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        super().__init__(ctx, mask)
        flag = ctx.op("Where", self.mask, ctx.constant(0.0, "float32"), ctx.constant(1.0, "float32"))
        self._flag = ctx.op("Transpose", flag, perm=[1, 0, 2])

    def enter(self, x: ir.Value) -> ir.Value:
        """(batch, time, in), 0 at masked steps: what stands there may be larger than what holds the state."""
        return self.ctx.op("Where", self.mask, x, self.ctx.constant(0.0, "float32"))

    def step_inputs(self, steps: ir.Value) -> ir.Value:
        """(time, batch, in) -> (time, batch, in + 1)."""
        return self.ctx.op("Concat", steps, self._flag, axis=-1)

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """Each step shows its own output, which is 0 before the first valid one if the state was."""
        if zero_masked:
            return self._zero_unless(self.mask, y)
        return self._zero_unless(self._reached(backwards), y) if started else y

    def final(self, states: Sequence[ir.Value], initial: Sequence[ir.Value]) -> list[ir.Value]:
        """As they are: the initial ones were held, too."""
        del initial
        return list(states)


class Compacted(Masking):
    """The permutation of time that brings the valid steps to the front."""

    def __init__(self, ctx: Context, mask: ir.Value) -> None:
        super().__init__(ctx, mask)
        valid = self.valid()
        self._trusted = ctx.runtime in TRUSTED
        self.lengths = ctx.op("ReduceSum", valid, ctx.constant([1, 2]), keepdims=0)
        # Where the order of equal keys is not to be trusted, those of valid steps are made different; the order of the
        # masked ones does not matter.
        keys = valid if self._trusted else ctx.op("Mul", valid, ctx.op("CumSum", valid, ctx.constant(1), reverse=1))
        self._order = self._first(keys)

    def enter(self, x: ir.Value) -> ir.Value:
        """(batch, time, in) with the valid steps first."""
        return self.ctx.op("GatherND", x, self._order, batch_dims=1)

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """Compact outputs (batch, time, units) -> what Keras shows at each original step.

        A step before the first valid one has the index -1, which is the last step; the one after the last valid one,
        backwards, the number of valid steps. Both lie beyond that number, where Y is 0.
        """
        del started
        op, constant = self.ctx.op, self.ctx.constant
        if backwards:
            index = op("CumSum", self.valid(), constant(1), exclusive=1)
        else:
            index = op("Sub", op("CumSum", self.valid(), constant(1)), constant(1, "int32"))
        shown = op("GatherND", y, op("Cast", index, to=ir.DataType.INT64), batch_dims=1)
        if zero_masked:
            return self._zero_unless(self.mask, shown)
        return shown if self._trusted else self._zero_unless(self._reached(backwards), shown)


class InFront(Masking):
    """The valid steps in the order in which one pass meets them, then the masked ones.

    QNN's CumSum runs forward only, its GatherND knows no batch_dims: both are written in other ways.
    """

    def __init__(self, ctx: Context, mask: ir.Value, backwards: bool) -> None:
        super().__init__(ctx, mask)
        valid = self.valid()
        self._count = ctx.op("ReduceSum", valid, ctx.constant([1]), keepdims=1)
        until = ctx.op("CumSum", valid, ctx.constant(1))
        since = ctx.op("Sub", ctx.op("Add", self._count, valid), until)
        self._met, ahead = (since, until) if backwards else (until, since)
        # Those of valid steps all differ: QNN's TopK takes the later of two equal ones first.
        self._order = self._first(ctx.op("Mul", valid, ahead))

    def enter(self, x: ir.Value) -> ir.Value:
        """(batch, time, in) with the valid steps first."""
        return self._taken(x, self._order)

    def ended(self, y: ir.Value, finals: Sequence[ir.Value]) -> Sequence[ir.Value]:
        """The output of the last valid step, 0 without one, as the first state: (1, batch, units)."""
        steps = self.ctx.op("Transpose", self.ctx.op("Squeeze", y, self.ctx.constant([1])), perm=[1, 0, 2])
        return [self.ctx.op("Transpose", self._output(steps, self._count), perm=[1, 0, 2]), *finals[1:]]

    def restore(self, y: ir.Value, backwards: bool, zero_masked: bool, started: bool) -> ir.Value:
        """What the pass gave for the last valid step that it had met at each step."""
        del backwards, started
        shown = self._output(y, self._met)
        return self._zero_unless(self.mask, shown) if zero_masked else shown

    def _output(self, y: ir.Value, count: ir.Value) -> ir.Value:
        """count: (batch, steps, 1) -> the compact outputs after so many valid steps, 0 after none."""
        op, one = self.ctx.op, self.ctx.constant(1, "int32")
        index = op("Cast", op("Sub", op("Max", count, one), one), to=ir.DataType.INT64)
        return self._zero_unless(op("Greater", count, self.ctx.constant(0, "int32")), self._taken(y, index))

    def _taken(self, values: ir.Value, index: ir.Value) -> ir.Value:
        """values: (batch, time, size), index: (batch, steps, 1) -> (batch, steps, size)."""
        sizes = (*self.ctx.shape(index)[:2], self.ctx.shape(values)[2])
        if not all(isinstance(size, int) for size in sizes):
            return self.ctx.op("GatherND", values, index, batch_dims=1)
        return self.ctx.op("GatherElements", values, self.ctx.op("Expand", index, self.ctx.constant(sizes)), axis=1)
