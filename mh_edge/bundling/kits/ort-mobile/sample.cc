// Opens an .ort file and runs it once, on zeros, and true for every boolean: sample MODEL.ort. Put your
// own numbers there.
#include <onnxruntime_cxx_api.h>

#include <cstdio>
#include <string>
#include <vector>

int main(int count, char** arguments) {
  const std::string model = count > 1 ? arguments[1] : "models/model.ort";
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "sample");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  // For a model with masks: numbers too small for float32 are taken as 0, which costs no time.
  options.AddConfigEntry("session.set_denormal_as_zero", "1");
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(model.begin(), model.end()).c_str(), options);

  Ort::AllocatorWithDefaultOptions allocator;
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<std::string> in, out;
  std::vector<std::vector<char>> numbers;  // a tensor does not copy its numbers: they must live until it has run
  std::vector<Ort::Value> values;
  for (size_t index = 0; index < session.GetInputCount(); ++index) {
    in.emplace_back(session.GetInputNameAllocated(index, allocator).get());
    const Ort::TypeInfo type = session.GetInputTypeInfo(index);
    const auto info = type.GetTensorTypeAndShapeInfo();
    std::vector<int64_t> shape = info.GetShape();
    size_t elements = 1;
    for (int64_t& size : shape) {
      if (size < 0) size = 8;  // the model leaves it free
      elements *= static_cast<size_t>(size);
    }
    const bool mask = info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
    numbers.emplace_back(elements * 8, mask);  // the widest number has 8 bytes; a float32 input takes 4 * elements
    values.push_back(Ort::Value::CreateTensor(memory, numbers.back().data(), numbers.back().size(), shape.data(),
                                              shape.size(), info.GetElementType()));
  }
  for (size_t index = 0; index < session.GetOutputCount(); ++index) {
    out.emplace_back(session.GetOutputNameAllocated(index, allocator).get());
  }
  std::vector<const char*> inputs, outputs;
  for (const std::string& name : in) inputs.push_back(name.c_str());
  for (const std::string& name : out) outputs.push_back(name.c_str());
  const auto results = session.Run(Ort::RunOptions{nullptr}, inputs.data(), values.data(), values.size(),
                                   outputs.data(), outputs.size());
  for (size_t index = 0; index < results.size(); ++index) {
    const auto info = results[index].GetTensorTypeAndShapeInfo();
    std::printf("%s: %zu numbers", out[index].c_str(), info.GetElementCount());
    if (info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && info.GetElementCount() > 0) {
      std::printf(", the first is %g", results[index].GetTensorData<float>()[0]);
    }
    std::printf("\n");
  }
}
