package {{package}}

import java.nio.ByteBuffer
import org.tensorflow.lite.InterpreterApi
import org.tensorflow.lite.Tensor as LiteRtTensor

/**
 * A .tflite file in LiteRT, on the CPU (XNNPACK where it takes an operation).
 *
 * The interpreter and not CompiledModel: that has no way to give an input another size, and takes no 16-bit numbers.
 * file: mapped into memory, or a direct buffer.
 */
class LiteRtModel(file: ByteBuffer) : Model {
    private val interpreter = InterpreterApi.create(file, InterpreterApi.Options())
    private val inputs: List<String>
    private val outputs: Map<String, Int>

    init {
        val keys = interpreter.signatureKeys
        val key = if (SIGNATURE in keys) SIGNATURE else keys.firstOrNull()
        val places = (0 until interpreter.inputTensorCount).map { interpreter.getInputTensor(it) }
        val results = (0 until interpreter.outputTensorCount).map { interpreter.getOutputTensor(it) }
        if (key == null) {
            inputs = places.map { plain(it) }
            outputs = results.withIndex().associate { (index, tensor) -> plain(tensor) to index }
        } else {
            val names = interpreter.getSignatureInputs(key)
                .associateBy { interpreter.getInputTensorFromSignature(it, key).index() }
            val indices = results.map { it.index() }
            inputs = places.map { names.getValue(it.index()) }
            outputs = interpreter.getSignatureOutputs(key)
                .associateWith { indices.indexOf(interpreter.getOutputTensorFromSignature(it, key).index()) }
        }
    }

    override fun run(inputs: Map<String, Tensor>): Map<String, Tensor> {
        val given = this.inputs.map { requireNotNull(inputs[it]) { "the input $it is missing" } }
        given.forEachIndexed { index, tensor -> interpreter.resizeInput(index, tensor.shape.toIntArray()) }
        interpreter.runForMultipleInputsOutputs(Array<Any>(given.size) { given[it].bytes }, emptyMap())
        return outputs.mapValues { (_, index) ->
            val tensor = interpreter.getOutputTensor(index)
            Tensor(tensor.dataType().name.lowercase(), tensor.shape().toList(), tensor.asReadOnlyBuffer())
        }
    }

    override fun close() = interpreter.close()

    private companion object {
        const val SIGNATURE = "serving_default"

        /** The name of a tensor in a file without names for its inputs and outputs: `serving_default_x:0` is `x`. */
        fun plain(tensor: LiteRtTensor): String = tensor.name().removePrefix("${SIGNATURE}_").substringBefore(":")
    }
}
