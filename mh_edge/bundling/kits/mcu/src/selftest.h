// What the golden cases of a model are, for selftest.cpp. The arrays themselves are in NAME_golden.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_op_resolver.h"

namespace mh_edge {

// An input or an output of a case. place: which one of the model's. data: little-endian, the last axis first. allowed:
// how far a number of an output may be from it.
struct Array {
  const char* name;
  size_t place;
  TfLiteType type;
  size_t bytes;
  const unsigned char* data;
  double allowed;
};

struct Case {
  const char* name;
  const Array* inputs;
  const Array* outputs;
};

// operators: those that the model needs, and no others; null when they cannot be registered. arena_bytes: its own share
// of `arena`.
struct Model {
  const char* name;
  const unsigned char* data;
  const tflite::MicroOpResolver* (*operators)();
  size_t arena_bytes;
  size_t input_count;
  size_t output_count;
  const Case* cases;
  size_t case_count;
};

// Of this bundle: its models, and memory for one at a time.
extern const Model* const models[];
extern const size_t model_count;
extern uint8_t arena[];

// Runs every golden case of every model twice, prints what is wrong -> whether all numbers are right.
bool SelfTest();

}  // namespace mh_edge
