package {{package}}

import android.content.Context
import java.io.File
import java.io.FileInputStream
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** The files of a bundle in the app's assets. */
class Assets(private val context: Context) {
    fun read(path: String): InputStream = context.assets.open(path)

    /** A model, without a copy of it; the asset must not be compressed (noCompress in build.gradle.kts). */
    fun mapped(path: String): ByteBuffer = context.assets.openFd(path).use { asset ->
        FileInputStream(asset.fileDescriptor).use {
            it.channel.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
        }
    }

    /** A model and the files that it reads, copied to where a runtime can open them by their names -> the model. */
    fun copied(artifact: Artifact): File {
        val installed = context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime
        for (path in artifact.data + artifact.path) {
            val file = File(context.noBackupFilesDir, path)
            if (file.lastModified() > installed) continue
            file.parentFile?.mkdirs()
            val part = File("$file.part")
            read(path).use { source -> part.outputStream().use { source.copyTo(it) } }
            check(part.renameTo(file)) { "$file cannot be written" }
        }
        return File(context.noBackupFilesDir, artifact.path)
    }
}

/** A model of the bundle in its runtime. */
fun openModel(context: Context, artifact: Artifact): Model = when (artifact.format) {
{{openers}}
    else -> throw IllegalArgumentException("no runtime for ${artifact.format} is built in")
}
