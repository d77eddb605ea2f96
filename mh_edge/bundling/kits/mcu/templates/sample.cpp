// One call of {{id}}, to be copied into a program beside {{id}}_model.c, {{id}}_model.h and {{id}}_operators.h.
#include "{{id}}_model.h"
#include "{{id}}_operators.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

// The interpreter, ready to be called; null when it cannot be made. Made once: it keeps the arena.
//
{{tensors}}
//
// The numbers of a tensor lie at data.f (float32), data.int8, data.i16, data.b (bool) ..., the last axis first. Integers
// that stand for other numbers: q = round(x / params.scale) + params.zero_point.
tflite::MicroInterpreter* Opened() {
  alignas(16) static uint8_t arena[{{id}}_ARENA_BYTES];
  static {{id}}_Operators operators;
  static const bool added = {{id}}_AddOperators(operators) == kTfLiteOk;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(g_{{id}}_model), operators, arena, sizeof(arena));
  static const bool ready = added && interpreter.AllocateTensors() == kTfLiteOk;
  return ready ? &interpreter : nullptr;
}

// Fill the inputs before each call, read the outputs after it.
bool Call(tflite::MicroInterpreter& interpreter) { return interpreter.Invoke() == kTfLiteOk; }
