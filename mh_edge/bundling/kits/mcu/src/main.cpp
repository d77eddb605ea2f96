// Runs the self-test where the board starts: setup() on Arduino, app_main() in ESP-IDF, main() elsewhere.

#include "selftest.h"
#include "tensorflow/lite/micro/system_setup.h"

#if defined(ARDUINO)

void setup() {
  tflite::InitializeTarget();
  mh_edge::SelfTest();
}

void loop() {}

#elif defined(ESP_PLATFORM)

extern "C" void app_main(void) {
  tflite::InitializeTarget();
  mh_edge::SelfTest();
}

#else

int main() {
  tflite::InitializeTarget();
  return mh_edge::SelfTest() ? 0 : 1;
}

#endif
