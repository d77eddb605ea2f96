// The golden cases of {{id}}_model.h, for selftest.cpp.
#include "{{id}}_model.h"
#include "{{id}}_operators.h"
#include "selftest.h"

namespace {

using mh_edge::Array;
using mh_edge::Case;

alignas(8) const unsigned char golden[] = {
{{array}}
};

{{cases}}

const tflite::MicroOpResolver* Operators() {
  static {{id}}_Operators operators;
  static const bool added = {{id}}_AddOperators(operators) == kTfLiteOk;
  return added ? &operators : nullptr;
}

}  // namespace

namespace mh_edge {

extern const Model {{id}}_golden;
const Model {{id}}_golden = {
    {{name}}, g_{{id}}_model, Operators, {{id}}_ARENA_BYTES, {{inputs}}, {{outputs}}, cases,
    sizeof(cases) / sizeof(cases[0]),
};

}  // namespace mh_edge
