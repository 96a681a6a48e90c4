/* weights.h - a model's tensors on one device, under the names of what they do. */
#ifndef KVCL_WEIGHTS_H
#define KVCL_WEIGHTS_H

#include "dev.h"
#include "model_int.h"

/* y = W x (+ bias); w == NULL: not there. */
typedef struct kvcl_linear {
    kvcl_mat *w;
    kvcl_view bias; /* f32 [rows]; buf NULL: none */
} kvcl_linear;

typedef struct kvcl_layer {
    kvcl_norm_spec attn_norm, ffn_norm;
    kvcl_norm_spec q_norm, k_norm; /* of each head [D]; kind NONE: none */
    uint32_t n_qkv;                /* 1: one matrix with the rows Q | K | V; 3: three */
    kvcl_linear qkv[3];            /* their rows are neighbours in the qkv row of a token */
    kvcl_linear attn_out;
    kvcl_linear gate; /* absent: no gated unit (gpt2) */
    kvcl_linear up, down;
} kvcl_layer;

typedef struct kvcl_weights {
    kvcl_dev *dev;
    kvcl_mat *token_embd;
    kvcl_mat *pos_embd; /* NULL: none */
    kvcl_mat *output;   /* token_embd when tied */
    kvcl_norm_spec output_norm;
    uint32_t n_layers;
    kvcl_layer *layers;
    kvcl_buf *vectors;        /* all norms and biases */
    uint64_t bytes_per_token; /* of matrices that one decode step reads */
    size_t bytes;             /* allocated on the device (on the CPU: mapped) */
    bool described;           /* sizes only: nothing can be computed with them */
} kvcl_weights;

/* Uploads everything; model keeps (the CPU reads its mapped file in place).  E_FORMAT with the
 * tensor's name when one is missing or has another shape. */
kvcl_status kvcl_weights_create(const kvcl_model *model, kvcl_queue *q, kvcl_weights *out);
void kvcl_weights_free(kvcl_weights *w); /* half-built is fine */
/* The same names, types and sizes without any memory on dev: for plans.  bytes as for create, but
 * for the padding of a device's layout. */
kvcl_status kvcl_weights_describe(const kvcl_model *model, kvcl_dev *dev, kvcl_weights *out);

#endif
