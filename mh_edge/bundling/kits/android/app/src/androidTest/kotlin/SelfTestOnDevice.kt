package {{package}}

import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertTrue
import org.junit.Test

/** The self-test as a test of the app: `./gradlew connectedAndroidTest`. */
class SelfTestOnDevice {
    @Test
    fun everyGoldenCaseIsRight() {
        val context = InstrumentationRegistry.getInstrumentation().targetContext
        val report = SelfTest(Assets(context)::read) { openModel(context, it) }.run()
        assertTrue(report.text, report.passed)
        assertTrue(sample(context).isNotEmpty())
    }
}
