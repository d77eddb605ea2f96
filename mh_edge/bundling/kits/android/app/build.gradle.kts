plugins {
    id("com.android.application")
}

android {
    namespace = "{{package}}"
    compileSdk = 36
    defaultConfig {
        applicationId = "{{package}}"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "1"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    androidResources {
        // A compressed asset cannot be mapped into memory.
        noCompress += listOf("tflite", "onnx")
    }
    sourceSets["main"].assets.directories.add("build/bundle")
}

// The assets are the bundle's own files, so that nothing lies in it twice.
val bundleAssets = tasks.register<Sync>("bundleAssets") {
    from(rootProject.file("bundle.json"))
    from(rootProject.file("models")) { into("models") }
    from(rootProject.file("golden")) { into("golden") }
    into(layout.buildDirectory.dir("bundle"))
}
tasks.named("preBuild") { dependsOn(bundleAssets) }

dependencies {
{{dependencies}}
    androidTestImplementation("androidx.test:runner:1.7.0")
}
