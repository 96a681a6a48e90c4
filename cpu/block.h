/* block.h - rows of block pages that other twins make, too. */
#ifndef KVCL_CPU_BLOCK_H
#define KVCL_CPU_BLOCK_H

#include "cpu_int.h"

/* A row of n values as Q8_0 or Q4_0 by block_enc's encoders (engine/ops_code.h); false when one is
 * not finite or a block's d does not fit an f16. */
bool kvcl_cpu_block_row(kvcl_type type, const float *x, uint32_t n, unsigned char *out);

#endif
