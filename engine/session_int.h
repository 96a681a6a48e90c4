/* session_int.h - inside of kvcl_session, for session*.c. */
#ifndef KVCL_SESSION_INT_H
#define KVCL_SESSION_INT_H

#include "engine_int.h"

struct kvcl_session {
    kvcl_engine *engine;
    kvcl_ctx *ctx;
    kvcl_session_options opt; /* as used */
    uint32_t n_ctx;
    kvcl_cache *cache;
    kvcl_forward forward;
    kvcl_buf *rope_table;
    char *tier_dir; /* what opt names */
};

/* Fills what is 0, refuses what cannot be; the cache's options for this model. */
kvcl_status kvcl_session_resolve(const kvcl_model *model, kvcl_session_options *opt,
                                 kvcl_cache_options *cache_out);
/* Bytes of the rotation table; 0 when the model has none. */
size_t kvcl_session_rope_bytes(const kvcl_model *model, uint32_t n_ctx);
/* E_ARG, E_FULL with a sentence when these tokens cannot follow. */
kvcl_status kvcl_session_check_tokens(kvcl_session *s, const int32_t *tokens, uint32_t n);

#endif
