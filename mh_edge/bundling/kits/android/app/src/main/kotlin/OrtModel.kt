package {{package}}

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.nio.ByteOrder

/**
 * An .onnx file in ONNX Runtime, on the CPU.
 *
 * path: a file, not an asset; weights that lie beside the model are found only so. options: of the session, those that the
 * model's speed depends on (bundle.json has them).
 */
class OrtModel(path: String, options: Map<String, String> = emptyMap()) : Model {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession = OrtSession.SessionOptions().use { made ->
        options.forEach { (key, value) -> made.addConfigEntry(key, value) }
        environment.createSession(path, made)
    }

    override fun run(inputs: Map<String, Tensor>): Map<String, Tensor> {
        val given = LinkedHashMap<String, OnnxTensor>()
        try {
            for ((name, tensor) in inputs) given[name] = made(tensor)
            return session.run(given).use { result -> result.associate { it.key to read(it.value as OnnxTensor) } }
        } finally {
            given.values.forEach { it.close() }
        }
    }

    override fun close() = session.close()

    private fun made(tensor: Tensor): OnnxTensor {
        val shape = LongArray(tensor.shape.size) { tensor.shape[it].toLong() }
        return OnnxTensor.createTensor(environment, tensor.bytes, shape, TYPES.getValue(tensor.dtype))
    }

    private fun read(tensor: OnnxTensor): Tensor {
        val dtype = TYPES.entries.first { it.value == tensor.info.type }.key
        return Tensor(dtype, tensor.info.shape.map { it.toInt() }, tensor.byteBuffer.order(ByteOrder.LITTLE_ENDIAN))
    }

    private companion object {
        val TYPES = mapOf(
            "float64" to OnnxJavaType.DOUBLE,
            "float32" to OnnxJavaType.FLOAT,
            "float16" to OnnxJavaType.FLOAT16,
            "int64" to OnnxJavaType.INT64,
            "int32" to OnnxJavaType.INT32,
            "int16" to OnnxJavaType.INT16,
            "int8" to OnnxJavaType.INT8,
            "uint8" to OnnxJavaType.UINT8,
            "bool" to OnnxJavaType.BOOL,
        )
    }
}
