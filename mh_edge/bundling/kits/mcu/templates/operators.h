// What TensorFlow Lite Micro must hold and have for {{id}}_model.h: its operations, and memory for its tensors.
#pragma once

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

// {{measured}} bytes were needed where this was made; the rest is room for kernels that are made for one processor.
#define {{id}}_ARENA_BYTES {{arena}}

using {{id}}_Operators = tflite::MicroMutableOpResolver<{{count}}>;

inline TfLiteStatus {{id}}_AddOperators({{id}}_Operators& operators) {
{{operators}}
  return kTfLiteOk;
}
