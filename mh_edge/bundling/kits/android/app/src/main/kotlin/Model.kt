package {{package}}

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A model of the bundle, whichever runtime it needs. Not for two threads at once. */
interface Model : AutoCloseable {
    /** Inputs by name -> outputs by name. */
    fun run(inputs: Map<String, Tensor>): Map<String, Tensor>
}

/** Numbers as models take and give them: little-endian, the last axis varies fastest. dtype: as bundle.json says it. */
class Tensor(val dtype: String, val shape: List<Int>, content: ByteBuffer) {
    private val kept: ByteBuffer = direct(content)

    /** All of them, in memory of their own, from the first on. */
    val bytes: ByteBuffer get() = kept.duplicate().order(ByteOrder.LITTLE_ENDIAN)

    val count: Int get() = shape.fold(1, Int::times)

    init {
        require(kept.limit() == count * width(dtype)) { "${kept.limit()} bytes are no $dtype of shape $shape" }
    }

    /** The numbers of a float32 tensor. */
    fun floats(): FloatArray = FloatArray(count).also { bytes.asFloatBuffer().get(it) }

    /** One number of any dtype; whole numbers beyond 2^53 are rounded. */
    fun number(index: Int): Double = when (dtype) {
        "float64" -> kept.getDouble(8 * index)
        "float32" -> kept.getFloat(4 * index).toDouble()
        "float16" -> half(kept.getShort(2 * index).toInt())
        else -> whole(index).toDouble()
    }

    /** One whole number; true is 1. */
    fun whole(index: Int): Long = when (dtype) {
        "bool" -> if (kept.get(index).toInt() == 0) 0 else 1
        "int8" -> kept.get(index).toLong()
        "uint8" -> kept.get(index).toLong() and 0xff
        "int16" -> kept.getShort(2 * index).toLong()
        "int32" -> kept.getInt(4 * index).toLong()
        "int64" -> kept.getLong(8 * index)
        else -> throw IllegalArgumentException("$dtype is no whole number")
    }

    companion object {
        fun of(values: FloatArray, vararg shape: Int) =
            made("float32", shape, values.size) { put -> values.forEach { put.putFloat(it) } }

        fun of(values: IntArray, vararg shape: Int) =
            made("int32", shape, values.size) { put -> values.forEach { put.putInt(it) } }

        fun of(values: LongArray, vararg shape: Int) =
            made("int64", shape, values.size) { put -> values.forEach { put.putLong(it) } }

        fun of(values: BooleanArray, vararg shape: Int) =
            made("bool", shape, values.size) { put -> values.forEach { put.put(if (it) 1 else 0) } }

        /** Bytes of one number. */
        fun width(dtype: String): Int = when (dtype) {
            "float64", "int64" -> 8
            "float32", "int32" -> 4
            "float16", "int16" -> 2
            "int8", "uint8", "bool" -> 1
            else -> throw IllegalArgumentException("dtype $dtype is not known here")
        }

        private fun made(dtype: String, shape: IntArray, count: Int, fill: (ByteBuffer) -> Unit): Tensor {
            val content = ByteBuffer.allocate(count * width(dtype)).order(ByteOrder.LITTLE_ENDIAN)
            fill(content)
            content.rewind()
            return Tensor(dtype, shape.toList(), content)
        }

        private fun direct(content: ByteBuffer): ByteBuffer {
            val copy = ByteBuffer.allocateDirect(content.remaining()).order(ByteOrder.LITTLE_ENDIAN)
            copy.put(content.duplicate())
            copy.rewind()
            return copy
        }

        /** sign · 2^(exponent - 15) · (1 + fraction / 1024), from the 16 bits of a float16. */
        private fun half(bits: Int): Double {
            val sign = if (bits and 0x8000 == 0) 1.0 else -1.0
            val exponent = bits shr 10 and 0x1f
            val fraction = (bits and 0x3ff) / 1024.0
            return sign * when (exponent) {
                0 -> Math.scalb(fraction, -14)
                0x1f -> if (fraction == 0.0) Double.POSITIVE_INFINITY else Double.NaN
                else -> Math.scalb(1 + fraction, exponent - 15)
            }
        }
    }
}
