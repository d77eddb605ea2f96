package {{package}}

import android.content.Context

/** What an app does with a model: open it once, give it inputs by name, read outputs by name -> what they begin with. */
fun sample(context: Context): String {
    val bundle = Bundle(Assets(context)::read)
    val artifact = bundle.artifacts.first()
    // In an app: mapOf("x" to Tensor.of(floatArrayOf(...), 1, 20, 16), ...) with the names and shapes of README.md.
    val inputs = bundle.cases(artifact).first().inputs
    return openModel(context, artifact).use { model ->
        model.run(inputs).entries.joinToString("\n") { (name, tensor) ->
            val first = (0 until minOf(tensor.count, 4)).joinToString { "%.4g".format(tensor.number(it)) }
            "$name: ${tensor.dtype} ${tensor.shape}: $first ..."
        }
    }
}
