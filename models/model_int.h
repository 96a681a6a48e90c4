/* model_int.h - inside of kvcl_model, for the layers that build on it. */
#ifndef KVCL_MODEL_INT_H
#define KVCL_MODEL_INT_H

#include "hparams.h"
#include "tokenizer.h"

struct kvcl_model {
    kvcl_ctx *ctx;
    kvcl_gguf gguf; /* mapped as long as the model is open */
    kvcl_hparams hp;
    kvcl_vocab_ids ids;
    kvcl_tokenizer *tok; /* NULL: tok_why says why */
    kvcl_status tok_status;
    char tok_why[512];
    kvcl_model_info info;
};

#endif
