// Reads bundle.json and the golden cases of a bundle: C++17 and ONNX Runtime's C++ API, nothing else.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bundle {

// A JSON value. Numbers are kept as their text; objects keep their order.
struct Json {
  std::string text;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> fields;

  const Json& operator[](const std::string& name) const {
    for (const auto& [key, value] : fields) {
      if (key == name) return value;
    }
    throw std::runtime_error("bundle.json has no \"" + name + "\"");
  }
  double number() const { return std::strtod(text.c_str(), nullptr); }
  int64_t integer() const { return std::strtoll(text.c_str(), nullptr, 10); }
};

class Parser {
 public:
  explicit Parser(const std::string& text) : at_(text.c_str()) {}

  Json value() {
    Json found;
    const char first = next();
    if (first == '{' || first == '[') {
      const char last = first == '{' ? '}' : ']';
      ++at_;
      while (next() != last) {
        if (first == '{') {
          std::string key = string();
          expect(':');
          found.fields.emplace_back(std::move(key), value());
        } else {
          found.items.push_back(value());
        }
        if (next() != last) expect(',');
      }
      ++at_;
    } else if (first == '"') {
      found.text = string();
    } else {  // a number, true, false or null
      while (*at_ && !std::strchr(",]} \n", *at_)) found.text += *at_++;
      if (found.text.empty()) throw std::runtime_error("bundle.json is damaged");
    }
    return found;
  }

 private:
  const char* at_;

  char next() {
    while (*at_ == ' ' || *at_ == '\n') ++at_;
    return *at_;
  }
  void expect(char wanted) {
    if (next() != wanted) throw std::runtime_error("bundle.json is damaged");
    ++at_;
  }
  std::string string() {
    expect('"');
    std::string found;
    for (; *at_ && *at_ != '"'; ++at_) {
      if (*at_ != '\\') {
        found += *at_;
        continue;
      }
      static const char kShort[] = "b\bf\fn\nr\rt\t";
      const char code = *++at_;
      if (code == 'u') {
        unsigned long point = hex();
        if (point >= 0xd800 && point < 0xdc00 && at_[1] == '\\' && at_[2] == 'u') {  // the second half follows
          at_ += 2;
          point = 0x10000 + ((point - 0xd800) << 10) + hex() - 0xdc00;
        }
        utf8(point, found);
      } else {
        const char* known = code ? std::strchr(kShort, code) : nullptr;
        found += known ? known[1] : code;
      }
    }
    expect('"');
    return found;
  }
  unsigned long hex() {  // the four digits behind the u
    const std::string digits(at_ + 1, strnlen(at_ + 1, 4));
    at_ += digits.size();
    return std::strtoul(digits.c_str(), nullptr, 16);
  }
  static void utf8(unsigned long point, std::string& to) {
    const int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned char kFirst[] = {0, 0xc0, 0xe0, 0xf0};
    to += static_cast<char>(kFirst[more] | (point >> (6 * more)));
    for (int left = more - 1; left >= 0; --left) to += static_cast<char>(0x80 | ((point >> (6 * left)) & 0x3f));
  }
};

inline std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("there is no file " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline Json open(const std::string& folder) {
  const std::string text = read(folder + "/bundle.json");
  return Parser(text).value();
}

// numpy's name of a type, ONNX Runtime's number of it, its bytes.
struct Type {
  const char* name;
  ONNXTensorElementDataType number;
  size_t bytes;
};

inline const Type& type(const std::string& name) {
  static const Type kTypes[] = {
      {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4},  {"float16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2},
      {"float64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8}, {"bool", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1},
      {"int8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1},      {"uint8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1},
      {"int16", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, 2},    {"uint16", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, 2},
      {"int32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},    {"uint32", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, 4},
      {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},    {"uint64", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, 8},
  };
  for (const Type& known : kTypes) {
    if (name == known.name) return known;
  }
  throw std::runtime_error("arrays of " + name + " are not known here");
}

// An array of the golden cases: little-endian, as every Android, iOS and x86 device is. It stays where it is, in
// `content`, which must live as long.
struct Array {
  std::vector<int64_t> shape;
  const Type* type;
  size_t bytes;
  char* data;
};

inline Array array(const Json& told, std::string& content) {
  Array found{{}, &type(told["dtype"].text), 0, nullptr};
  size_t count = 1;
  for (const Json& size : told["shape"].items) {
    found.shape.push_back(size.integer());
    count *= static_cast<size_t>(size.integer());
  }
  const size_t offset = static_cast<size_t>(told["offset"].integer());
  found.bytes = count * found.type->bytes;
  if (offset > content.size() || found.bytes > content.size() - offset) {
    throw std::runtime_error("the golden cases are truncated");
  }
  found.data = content.data() + offset;
  return found;
}

inline Ort::Value tensor(const Array& from) {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return Ort::Value::CreateTensor(memory, from.data, from.bytes, from.shape.data(), from.shape.size(),
                                  from.type->number);
}

// The session of an artifact, with the options that its manifest asks for.
inline Ort::Session session(Ort::Env& env, const Json& artifact, const std::string& folder) {
  Ort::SessionOptions options;
  for (const auto& [key, value] : artifact["session_options"].fields) {
    options.AddConfigEntry(key.c_str(), value.text.c_str());
  }
  const std::string path = folder + "/" + artifact["path"].text;
  return Ort::Session(env, std::basic_string<ORTCHAR_T>(path.begin(), path.end()).c_str(), options);
}

// Runs the model on named arrays -> its outputs, in the order of `outputs`.
inline std::vector<Ort::Value> run(Ort::Session& session, const Json& inputs, const Json& outputs,
                                   std::string& content) {
  std::vector<const char*> in, out;
  std::vector<Ort::Value> values;
  for (const auto& [name, told] : inputs.fields) {
    in.push_back(name.c_str());
    values.push_back(tensor(array(told, content)));
  }
  for (const auto& output : outputs.fields) out.push_back(output.first.c_str());
  return session.Run(Ort::RunOptions{nullptr}, in.data(), values.data(), in.size(), out.data(), out.size());
}

}  // namespace bundle
