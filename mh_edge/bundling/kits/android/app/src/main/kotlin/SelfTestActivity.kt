package {{package}}

import android.app.Activity
import android.os.Bundle as State
import android.util.Log
import android.widget.ScrollView
import android.widget.TextView
import kotlin.concurrent.thread

/** Shows what the self-test found, and writes it to the log. */
class SelfTestActivity : Activity() {
    override fun onCreate(state: State?) {
        super.onCreate(state)
        val view = TextView(this).apply {
            text = "running ..."
            setTextIsSelectable(true)
        }
        setContentView(ScrollView(this).apply {
            fitsSystemWindows = true
            addView(view)
        })
        thread {
            val report = SelfTest(Assets(this)::read) { openModel(this, it) }.run()
            val verdict = if (report.passed) "PASSED" else "FAILED"
            val text = "$verdict\n${report.text}" + if (report.passed) "\n\n${sample(this)}" else ""
            Log.i("mh-edge", text)
            runOnUiThread { view.text = text }
        }
    }
}
