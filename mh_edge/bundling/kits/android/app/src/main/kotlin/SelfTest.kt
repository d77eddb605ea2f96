package {{package}}

import java.io.InputStream
import java.nio.ByteBuffer
import java.security.MessageDigest
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject

/** What a self-test found. text: a line for each model. */
class Report(val passed: Boolean, val text: String)

/**
 * Runs every golden case of a bundle twice and compares: an output is right where |got - expected| <= allowed for each of
 * its numbers, with NaN and infinity in the same places. read: a file of the bundle, by its path there. open: a model of it.
 */
class SelfTest(private val read: (String) -> InputStream, private val open: (Artifact) -> Model) {
    fun run(): Report {
        val lines = mutableListOf<String>()
        var passed = true
        val bundle = Bundle(read)
        for (artifact in bundle.artifacts) {
            val line = try {
                bundle.requireWhole(artifact)
                "right: ${artifact.name}: ${prove(bundle, artifact)}"
            } catch (error: Exception) {
                passed = false
                "WRONG: ${artifact.name}: ${error.message ?: error}"
            } catch (error: LinkageError) {
                passed = false
                "WRONG: ${artifact.name}: the runtime could not be loaded: $error"
            }
            lines += line
        }
        return Report(passed && lines.isNotEmpty(), lines.joinToString("\n"))
    }

    private fun prove(bundle: Bundle, artifact: Artifact): String {
        val cases = bundle.cases(artifact)
        check(cases.isNotEmpty()) { "it has no golden cases" }
        val millis = mutableListOf<Double>()
        var share = 0.0
        open(artifact).use { model ->
            repeat(ROUNDS) {
                for (case in cases) {
                    val begin = System.nanoTime()
                    val got = model.run(case.inputs)
                    millis += (System.nanoTime() - begin) / 1e6
                    share = maxOf(share, case.judge(got))
                }
            }
        }
        val call = millis.takeLast(cases.size).sorted()[cases.size / 2]
        return "${cases.size} cases, $ROUNDS times each; error up to %.2g %% of what is allowed; %.3g ms a call"
            .format(100 * share, call)
    }

    private companion object {
        /** What a call leaves behind must not change the next one. */
        const val ROUNDS = 2
    }
}

/** bundle.json, and the files that it names. */
class Bundle(private val read: (String) -> InputStream) {
    private val told = JSONObject(bytes("bundle.json").decodeToString())

    val artifacts: List<Artifact> = told.getJSONArray("artifacts").items { getJSONObject(it) }.map { Artifact(it) }

    fun cases(artifact: Artifact): List<Case> {
        val content = ByteBuffer.wrap(bytes(artifact.golden))
        return artifact.told.getJSONObject("golden").getJSONArray("cases").items { getJSONObject(it) }.map { case ->
            val outputs = case.getJSONObject("outputs").entries()
            Case(
                case.getString("name"),
                case.getJSONObject("inputs").entries().mapValues { tensor(it.value, content) },
                outputs.mapValues { tensor(it.value, content) },
                outputs.mapValues { it.value.getDouble("allowed") },
            )
        }
    }

    /** Throws IllegalStateException where a file of the artifact is not the one that was bundled. */
    fun requireWhole(artifact: Artifact) {
        for (path in listOf(artifact.path, artifact.golden) + artifact.data) {
            val expected = told.getJSONObject("files").getJSONObject(path).getString("sha256")
            val found = sha256(path)
            check(found == expected) { "$path is not the file that was bundled: its sha256 is $found, expected $expected" }
        }
    }

    private fun bytes(path: String): ByteArray = read(path).use { it.readBytes() }

    private fun sha256(path: String): String {
        val digest = MessageDigest.getInstance("SHA-256")
        read(path).use { stream ->
            val part = ByteArray(1 shl 16)
            while (true) {
                val count = stream.read(part)
                if (count < 0) break
                digest.update(part, 0, count)
            }
        }
        return digest.digest().joinToString("") { "%02x".format(it) }
    }

    private fun tensor(told: JSONObject, content: ByteBuffer): Tensor {
        val dtype = told.getString("dtype")
        val shape = told.getJSONArray("shape").items { getInt(it) }
        val part = content.duplicate()
        part.position(told.getInt("offset"))
        part.limit(part.position() + shape.fold(Tensor.width(dtype), Int::times))
        return Tensor(dtype, shape, part)
    }
}

/** What bundle.json says of a model. data: the files beside it that it reads. options: of ONNX Runtime's session. */
class Artifact(internal val told: JSONObject) {
    val name: String = told.getString("name")
    val format: String = told.getString("format")
    val path: String = told.getString("path")
    val data: List<String> = told.getJSONArray("data").items { getString(it) }
    val golden: String = told.getJSONObject("golden").getString("path")
    val options: Map<String, String> =
        told.getJSONObject("session_options").let { all -> all.keys().asSequence().associateWith { all.getString(it) } }
}

/** Inputs, and the outputs that they must give. allowed: by output, the largest difference that is right. */
class Case(
    val name: String,
    val inputs: Map<String, Tensor>,
    val expected: Map<String, Tensor>,
    val allowed: Map<String, Double>,
) {
    /** The largest difference, as a share of what is allowed. Throws IllegalStateException where an output is wrong. */
    fun judge(got: Map<String, Tensor>): Double {
        check(got.keys == expected.keys) { "$name: the outputs are ${got.keys}, expected ${expected.keys}" }
        return expected.keys.maxOf { judge(it, got.getValue(it), expected.getValue(it), allowed.getValue(it)) }
    }

    private fun judge(output: String, got: Tensor, expected: Tensor, allowed: Double): Double {
        check(got.dtype == expected.dtype && got.shape == expected.shape) {
            "$name: $output is ${got.dtype} ${got.shape}, expected ${expected.dtype} ${expected.shape}"
        }
        var worst = 0.0
        for (index in 0 until expected.count) {
            val off = difference(got, expected, index)
            check(off <= allowed) {
                "$name: number $index of $output is ${got.number(index)}, expected ${expected.number(index)} within $allowed"
            }
            if (allowed > 0) worst = maxOf(worst, off / allowed)
        }
        return worst
    }
}

/** |got - expected|; infinite where only one of them is NaN, or they are not the same infinity. */
private fun difference(got: Tensor, expected: Tensor, index: Int): Double {
    if (!expected.dtype.startsWith("float")) {
        return if (got.whole(index) == expected.whole(index)) 0.0
        else abs(got.number(index) - expected.number(index)).coerceAtLeast(1.0)
    }
    val (one, other) = got.number(index) to expected.number(index)
    if (one == other || one.isNaN() && other.isNaN()) return 0.0
    return if (one.isFinite() && other.isFinite()) abs(one - other) else Double.POSITIVE_INFINITY
}

private fun <T> JSONArray.items(item: JSONArray.(Int) -> T): List<T> = (0 until length()).map { item(it) }

private fun JSONObject.entries(): Map<String, JSONObject> = keys().asSequence().associateWith { getJSONObject(it) }
