/* The model as an array: {{bytes}} bytes, sha256 {{sha256}} */
#ifndef MH_EDGE_{{id}}_model_h
#define MH_EDGE_{{id}}_model_h

#ifdef __cplusplus
extern "C" {
#endif

extern const unsigned char g_{{id}}_model[];
extern const unsigned int g_{{id}}_model_len;

#ifdef __cplusplus
}
#endif

#endif
