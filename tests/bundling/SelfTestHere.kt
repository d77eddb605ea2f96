package com.example.square

import java.io.File

/** Runs the self-test on a bundle in a folder, with a model that gives what is expected, or in one way something else. */
fun main(args: Array<String>) {
    val read = { path: String -> File(args[0], path).inputStream() }
    for ((name, fault) in FAULTS) {
        var call = 0
        val report = SelfTest(read) { Fake(Bundle(read).cases(it)) { outputs -> fault(outputs, call++) } }.run()
        println("$name|${report.passed}|${report.text.replace('\n', ' ')}")
    }
}

private class Fake(
    private val cases: List<Case>,
    private val fault: (Map<String, Tensor>) -> Map<String, Tensor>,
) : Model {
    override fun run(inputs: Map<String, Tensor>) =
        fault(cases.first { case -> inputs.all { (name, given) -> case.inputs[name]?.bytes == given.bytes } }.expected)

    override fun close() {}
}

private val FAULTS: Map<String, (Map<String, Tensor>, Int) -> Map<String, Tensor>> = mapOf(
    "none" to { outputs, _ -> outputs },
    "little" to { outputs, _ -> outputs.mapValues { (_, it) -> scaled(it, 1.0005f) } },
    "beyond" to { outputs, _ -> outputs.mapValues { (_, it) -> scaled(it, 1.01f) } },
    "nan" to { outputs, _ -> outputs.mapValues { (_, it) -> scaled(it, Float.NaN) } },
    "infinite" to { outputs, _ -> outputs.mapValues { (_, it) -> scaled(it, Float.POSITIVE_INFINITY) } },
    "later" to { outputs, call -> outputs.mapValues { (_, it) -> if (call < LATER) it else scaled(it, 2f) } },
    "missing" to { _, _ -> emptyMap() },
    "further" to { outputs, _ -> outputs + ("z" to Tensor.of(FloatArray(1), 1)) },
    "shape" to { outputs, _ -> outputs.mapValues { (_, it) -> Tensor.of(it.floats(), *it.shape.toIntArray(), 1) } },
    "dtype" to { outputs, _ -> outputs.mapValues { (_, it) -> Tensor.of(IntArray(it.count), *it.shape.toIntArray()) } },
)

/** Calls of the first round of at least so many cases are right. */
private const val LATER = 3

private fun scaled(tensor: Tensor, factor: Float): Tensor =
    Tensor.of(FloatArray(tensor.count) { tensor.floats()[it] * factor }, *tensor.shape.toIntArray())
