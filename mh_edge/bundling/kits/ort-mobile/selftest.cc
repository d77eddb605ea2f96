// Runs the golden cases of this bundle: selftest [FOLDER]. Exits with 0 if every number is right, with 1 if one is not.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "bundle.h"

namespace {

double half(uint16_t bits) {  // IEEE 754 binary16
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                               : std::ldexp(fraction, -24);
  return bits & 0x8000 ? -size : size;
}

template <typename T>
double as(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<double>(value);
}

double number(const char* at, ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return as<float>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return as<double>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: {
      uint16_t bits;
      std::memcpy(&bits, at, sizeof bits);
      return half(bits);
    }
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return as<int8_t>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return as<int16_t>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return as<uint16_t>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return as<int32_t>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return as<uint32_t>(at);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return static_cast<double>(as<int64_t>(at));
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return static_cast<double>(as<uint64_t>(at));
    default: return as<uint8_t>(at);
  }
}

// |got - expected|; infinite where only one of them is NaN, or infinite in its sign.
double off(double got, double expected) {
  if (std::isnan(got) || std::isnan(expected)) return std::isnan(got) && std::isnan(expected) ? 0.0 : INFINITY;
  return got == expected ? 0.0 : std::abs(got - expected);
}

// The largest difference of an output as a share of what is allowed: right up to 1.
double share(const Ort::Value& got, const bundle::Json& told, std::string& content) {
  const bundle::Array expected = bundle::array(told, content);
  const auto info = got.GetTensorTypeAndShapeInfo();
  if (info.GetElementType() != expected.type->number || info.GetShape() != expected.shape) return INFINITY;
  const double allowed = told["allowed"].number();
  const char* data = static_cast<const char*>(got.GetTensorRawData());
  double worst = 0.0;
  for (size_t at = 0; at < expected.bytes; at += expected.type->bytes) {
    if (!std::memcmp(data + at, expected.data + at, expected.type->bytes)) continue;
    double error = off(number(data + at, expected.type->number), number(expected.data + at, expected.type->number));
    const auto type = expected.type->number;  // a double does not hold all integers of 64 bits
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 || type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64)
      error = std::max(error, 1.0);
    if (error > 0.0) worst = std::max(worst, allowed > 0.0 ? error / allowed : INFINITY);
  }
  return worst;
}

int check(const std::string& folder) {
  const bundle::Json told = bundle::open(folder);
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "selftest");
  int wrong = 0;
  for (const bundle::Json& artifact : told["artifacts"].items) {
    const bundle::Json& golden = artifact["golden"];
    std::string content = bundle::read(folder + "/" + golden["path"].text);
    Ort::Session session = bundle::session(env, artifact, folder);
    double worst = 0.0;
    for (int twice = 0; twice < 2; ++twice) {  // what a session keeps between calls would show
      for (const bundle::Json& one : golden["cases"].items) {
        const auto outputs = bundle::run(session, one["inputs"], one["outputs"], content);
        for (size_t number = 0; number < outputs.size(); ++number) {
          const auto& [name, expected] = one["outputs"].fields[number];
          const double found = share(outputs[number], expected, content);
          if (found > 1.0) {
            std::printf("WRONG  %s, %s: %s is off by %g times what is allowed\n", artifact["path"].text.c_str(),
                        one["name"].text.c_str(), name.c_str(), found);
          }
          worst = std::max(worst, found);
        }
      }
    }
    wrong += worst > 1.0;
    std::printf("%s  %s: %zu golden cases, twice; the worst number uses %.2g of what it is allowed\n",
                worst > 1.0 ? "WRONG" : "RIGHT", artifact["path"].text.c_str(), golden["cases"].items.size(), worst);
  }
  if (told["artifacts"].items.empty()) std::printf("WRONG  there is no model in this bundle\n");
  return wrong || told["artifacts"].items.empty() ? 1 : 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string folder = count > 1 ? arguments[1] : ".";
  std::printf("ONNX Runtime %s\n", OrtGetApiBase()->GetVersionString());
#ifdef __cpp_exceptions
  try {
    return check(folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
#else
  return check(folder);
#endif
}
