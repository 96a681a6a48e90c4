/* rans_model.h - the models of the entropy coder: how often each value of a component comes.
 *
 * A model is a family and a scale: the distribution of round(x), x with mean zero and standard
 * deviation 2^(scale / 4 - 3), that is 0.125 to 26.9 quantiser steps.  Model number = family *
 * KVCL_RANS_SCALES + scale.  Frequencies of a model sum to 4096; values too rare for a frequency of
 * their own share that of the escape (-128 in the tables), so that every int8 value has a code.
 * Made with this project's exact arithmetic: the same tables on every machine. */
#ifndef KVCL_RANS_MODEL_H
#define KVCL_RANS_MODEL_H

#include "base.h"

typedef enum kvcl_rans_family {
    KVCL_RANS_GAUSS = 0,
    KVCL_RANS_MIXED = 1, /* half Gauss, half Laplace of the same deviation */
    KVCL_RANS_LAPLACE = 2
} kvcl_rans_family;

#define KVCL_RANS_SCALES 32u

/* Bytes of the tables of all models: u32 [KVCL_RANS_MODELS][KVCL_RANS_WORDS] (cl/shared.h). */
size_t kvcl_rans_table_bytes(void);
void kvcl_rans_table_fill(uint32_t *table);

/* The model for a component of a standard deviation, in steps; what is not a number or beyond the
 * scales takes the nearest end. */
uint32_t kvcl_rans_pick(kvcl_rans_family family, float deviation);
/* Exact cost of values that came hist[(uint8_t)value] times each, in 1/65536 bit. */
uint64_t kvcl_rans_cost(const uint32_t *table, uint32_t model, const uint32_t hist[256]);
/* The model of least cost; the lowest number of several. */
uint32_t kvcl_rans_pick_for(const uint32_t *table, const uint32_t hist[256]);

/* What a stream of n values can take at most, whatever the values and models; a multiple of 4. */
size_t kvcl_rans_bytes_max(uint32_t n_values);

#endif
