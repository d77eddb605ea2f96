// Where the fake interpreter has its answers from.
#include "selftest.h"

namespace {

const mh_edge::Case& Called(const void* model, size_t call) {
  size_t index = 0;
  while (mh_edge::models[index]->data != model) ++index;
  return mh_edge::models[index]->cases[call % mh_edge::models[index]->case_count];
}

}  // namespace

bool tflite::FedRight(const void* model, size_t call, const char* x, const char* hidden) {
  const mh_edge::Array* inputs = Called(model, call).inputs;
  return std::memcmp(x, inputs[0].data, inputs[0].bytes) == 0 && std::memcmp(hidden, inputs[1].data, inputs[1].bytes) == 0;
}

const char* tflite::Golden(const void* model, size_t call, size_t output) {
  return reinterpret_cast<const char*>(Called(model, call).outputs[output].data);
}
