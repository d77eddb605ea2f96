// All models of this bundle, and memory for one at a time.
#include "selftest.h"

namespace mh_edge {

{{declarations}}

const Model* const models[] = { {{list}} };
const size_t model_count = sizeof(models) / sizeof(models[0]);

alignas(16) uint8_t arena[{{arena}}];

}  // namespace mh_edge
