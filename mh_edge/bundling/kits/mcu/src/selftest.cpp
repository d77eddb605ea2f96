// Loads each model in an arena of the stated size, feeds it the golden inputs and compares what it gives.
//
// Right is |got - expected| <= allowed for every number, with NaN and infinity in the same places.

#include "selftest.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace mh_edge {
namespace {

// The number nearest to what is allowed, or furthest beyond it. share: difference / allowed, at most 1 when right.
struct Worst {
  double share = 0.0;
  size_t index = 0;
};

double Share(double got, double expected, double allowed) {
  if (std::isnan(got) || std::isnan(expected)) {
    return std::isnan(got) && std::isnan(expected) ? 0.0 : INFINITY;
  }
  if (got == expected) return 0.0;  // infinities of one sign too
  const double off = std::fabs(got - expected);
  return allowed > 0.0 && std::isfinite(off) ? off / allowed : INFINITY;
}

template <typename T>
Worst Compare(const Array& expected, const TfLiteTensor& got) {
  Worst worst;
  for (size_t index = 0; index < expected.bytes / sizeof(T); ++index) {
    T left, right;
    std::memcpy(&left, got.data.raw_const + index * sizeof(T), sizeof(T));
    std::memcpy(&right, expected.data + index * sizeof(T), sizeof(T));
    double share = Share(static_cast<double>(left), static_cast<double>(right), expected.allowed);
    // A double has not all integers beyond 2^53: those that differ are at least 1 apart.
    if (std::is_integral<T>::value && left != right) share = std::fmax(share, Share(1.0, 0.0, expected.allowed));
    if (share > worst.share) worst = {share, index};
  }
  return worst;
}

Worst Compared(const Array& expected, const TfLiteTensor& got) {
  switch (expected.type) {
    case kTfLiteFloat32:
      return Compare<float>(expected, got);
    case kTfLiteInt8:
      return Compare<int8_t>(expected, got);
    case kTfLiteUInt8:
      return Compare<uint8_t>(expected, got);
    case kTfLiteInt16:
      return Compare<int16_t>(expected, got);
    case kTfLiteInt32:
      return Compare<int32_t>(expected, got);
    case kTfLiteInt64:
      return Compare<int64_t>(expected, got);
    case kTfLiteBool:
      return Compare<bool>(expected, got);
    default:
      return {INFINITY, 0};
  }
}

bool Alike(const Array& expected, const TfLiteTensor* tensor) {
  if (tensor != nullptr && tensor->type == expected.type && tensor->bytes == expected.bytes) return true;
  MicroPrintf("  WRONG %s has another type or size than the model", expected.name);
  return false;
}

// The largest share of the case; above 1 when it is wrong, which is printed.
double Run(const Model& model, const Case& golden, tflite::MicroInterpreter& interpreter) {
  for (size_t index = 0; index < model.input_count; ++index) {
    const Array& input = golden.inputs[index];
    TfLiteTensor* tensor = interpreter.input(input.place);
    if (!Alike(input, tensor)) return INFINITY;
    std::memcpy(tensor->data.raw, input.data, input.bytes);
  }
  if (interpreter.Invoke() != kTfLiteOk) {
    MicroPrintf("  WRONG %s: the model does not run", golden.name);
    return INFINITY;
  }
  double worst = 0.0;
  for (size_t index = 0; index < model.output_count; ++index) {
    const Array& output = golden.outputs[index];
    const TfLiteTensor* tensor = interpreter.output(output.place);
    if (!Alike(output, tensor)) return INFINITY;
    const Worst found = Compared(output, *tensor);
    if (found.share > 1.0) {
      MicroPrintf("  WRONG %s: %s[%u] is further off than allowed", golden.name, output.name,
                  static_cast<unsigned>(found.index));
    }
    worst = std::fmax(worst, found.share);
  }
  return worst;
}

bool Test(const Model& model) {
  MicroPrintf("%s", model.name);
  const tflite::MicroOpResolver* operators = model.operators();
  if (operators == nullptr) {
    MicroPrintf("  WRONG the operations cannot be registered");
    return false;
  }
  tflite::MicroInterpreter interpreter(tflite::GetModel(model.data), *operators, arena, model.arena_bytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("  WRONG the model does not fit in an arena of %u bytes", static_cast<unsigned>(model.arena_bytes));
    return false;
  }
  if (interpreter.inputs_size() != model.input_count || interpreter.outputs_size() != model.output_count) {
    MicroPrintf("  WRONG the model has other inputs or outputs than its golden cases");
    return false;
  }
  size_t right = 0;
  double worst = 0.0;
  // Twice: what is left of one call must not reach into the next.
  const size_t calls = 2 * model.case_count;
  for (size_t call = 0; call < calls; ++call) {
    const double share = Run(model, model.cases[call % model.case_count], interpreter);
    if (share > 1.0) continue;
    ++right;
    worst = std::fmax(worst, share);
  }
  // Whole numbers only: the printf of many boards has no others.
  MicroPrintf("  %u of %u calls right, at most %u %% of the difference that is allowed", static_cast<unsigned>(right),
              static_cast<unsigned>(calls), static_cast<unsigned>(std::ceil(100.0 * worst)));
  MicroPrintf("  arena: %u of %u bytes stay in use", static_cast<unsigned>(interpreter.arena_used_bytes()),
              static_cast<unsigned>(model.arena_bytes));
  return right == calls;
}

}  // namespace

bool SelfTest() {
  bool right = true;
  for (size_t index = 0; index < model_count; ++index) right &= Test(*models[index]);
  MicroPrintf(right ? "SELFTEST PASSED" : "SELFTEST FAILED");
  return right;
}

}  // namespace mh_edge
