#include "{{id}}_model.h"

#ifndef __cplusplus
#include <stdalign.h>
#endif

alignas(16) const unsigned char g_{{id}}_model[] = {
{{array}}
};
const unsigned int g_{{id}}_model_len = sizeof(g_{{id}}_model);
