/* rans_model.c - makes the tables of the entropy coder, picks models.  See rans_model.h. */
#include "rans_model.h"

#include "shared.h"

#define MAX_VALUE 127u
#define POINTS 16 /* of a value's interval at which the density is taken */

size_t kvcl_rans_table_bytes(void) { return sizeof(uint32_t) * KVCL_RANS_MODELS * KVCL_RANS_WORDS; }

static float deviation_of(uint32_t scale)
{
    static const float quarter[4] = {0.125f, 0.14865089f, 0.17677669f, 0.21022410f};
    return quarter[scale % 4] * (float)(1u << scale / 4);
}

/* Shares of 2^24 of the values 0, +-1 .. +-127 (those of either sign together).  The sum over
 * midpoints is as good as the integral: for a Gaussian they are at most half a deviation apart, and
 * on an exponential its error is one factor for all values. */
static void shares_of(bool laplace, float deviation, uint32_t shares[MAX_VALUE + 1])
{
    float inv = kvcl_recip(deviation);
    uint64_t total = 0;
    for (uint32_t v = 0; v <= MAX_VALUE; v++) {
        float sum = 0.0f;
        for (uint32_t j = 0; j < POINTS; j++) {
            float at = (float)v + ((float)j - 7.5f) * (1.0f / POINTS);
            float t = (at < 0.0f ? -at : at) * inv;
            sum += kvcl_exp(laplace ? t * -1.41421354f : t * t * -0.5f);
        }
        shares[v] = (uint32_t)(sum * 4194304.0f) * (v ? 2u : 1u);
        total += shares[v];
    }
    for (uint32_t v = 0; v <= MAX_VALUE; v++)
        shares[v] = (uint32_t)(((uint64_t)shares[v] << 24) / total);
}

static void model_shares(uint32_t model, uint32_t shares[MAX_VALUE + 1])
{
    kvcl_rans_family family = (kvcl_rans_family)(model / KVCL_RANS_SCALES);
    float deviation = deviation_of(model % KVCL_RANS_SCALES);
    uint32_t other[MAX_VALUE + 1];
    shares_of(family == KVCL_RANS_LAPLACE, deviation, shares);
    if (family != KVCL_RANS_MIXED)
        return;
    shares_of(true, deviation, other);
    for (uint32_t v = 0; v <= MAX_VALUE; v++)
        shares[v] = (shares[v] + other[v]) / 2;
}

/* Writes a value's entries; its slots are [begin, end). */
static void put(uint32_t *words, uint32_t value, uint32_t begin, uint32_t end)
{
    uint32_t freq = end - begin;
    words[value] = freq << 20 | begin << 8 | value;
    for (uint32_t slot = begin; slot < end; slot++)
        words[KVCL_RANS_SLOTS + slot] = freq << 20 | (slot - begin) << 8 | value;
}

/* Values up to `last` in magnitude are worth a frequency: half a slot or more, and +-1 always.
 * Each of them and the escape gets one slot, and its share of the others. */
static void fill_model(uint32_t model, uint32_t *words)
{
    uint32_t shares[MAX_VALUE + 1], last = MAX_VALUE, total = 0, sum = 0, begin = 0, n = 0;
    model_shares(model, shares);
    for (uint32_t v = 0; v <= MAX_VALUE; v++)
        total += shares[v];
    while (last > 1 && shares[last] < 1u << 12)
        last--;
    uint32_t spread = 4096 - (2 * last + 2);
    for (int v = -(int)last; v <= (int)last; v++) {
        uint32_t share = shares[v < 0 ? -v : v];
        sum += v == 0 ? share : share / 2;
        uint32_t end = ++n + (uint32_t)((uint64_t)spread * sum / total);
        put(words, (uint8_t)v, begin, end);
        begin = end;
    }
    put(words, 128, begin, 4096);
    for (uint32_t v = last + 1; v < 256 - last; v++)
        words[v] = words[128];
}

void kvcl_rans_table_fill(uint32_t *table)
{
    for (uint32_t model = 0; model < KVCL_RANS_MODELS; model++)
        fill_model(model, table + (size_t)model * KVCL_RANS_WORDS);
}

uint32_t kvcl_rans_pick(kvcl_rans_family family, float deviation)
{
    uint32_t scale = 0;
    while (scale + 1 < KVCL_RANS_SCALES && deviation > deviation_of(scale) * 1.09050775f)
        scale++;
    return (uint32_t)family * KVCL_RANS_SCALES + scale;
}

/* -log2(freq / 4096) in 1/65536: bit by bit of the logarithm, by squaring. */
static uint32_t cost_of(uint32_t freq)
{
    uint32_t whole = 0, log = 0;
    while (freq >> (whole + 1))
        whole++;
    uint64_t m = (uint64_t)freq << (30 - whole); /* 1 .. 2, in 2^-30 */
    for (int bit = 0; bit < 16; bit++) {
        m = m * m >> 30;
        log = log << 1 | (uint32_t)(m >> 31);
        m >>= m >> 31;
    }
    return (12 << 16) - (whole << 16 | log);
}

uint64_t kvcl_rans_cost(const uint32_t *table, uint32_t model, const uint32_t hist[256])
{
    const uint32_t *words = table + (size_t)model * KVCL_RANS_WORDS;
    uint64_t sum = 0;
    for (uint32_t v = 0; v < 256; v++)
        if (hist[v]) {
            uint32_t plain = kvcl_rans_escapes(words[v]) ? 8u << 16 : 0;
            sum += (uint64_t)hist[v] * (cost_of(kvcl_rans_freq(words[v])) + plain);
        }
    return sum;
}

uint32_t kvcl_rans_pick_for(const uint32_t *table, const uint32_t hist[256])
{
    uint32_t best = 0;
    uint64_t least = UINT64_MAX;
    for (uint32_t model = 0; model < KVCL_RANS_MODELS; model++) {
        uint64_t cost = kvcl_rans_cost(table, model, hist);
        if (cost < least) {
            least = cost;
            best = model;
        }
    }
    return best;
}

/* A value takes at most 12 bits and 8 plain ones, and its division's rounding less than a tenth of
 * a bit more (states are at least 16 times a frequency); all lanes' states start full. */
size_t kvcl_rans_bytes_max(uint32_t n_values)
{
    size_t n = n_values, words = n + n / 4 + n / 32 + 2 * KVCL_RANS_LANES;
    return kvcl_align_up(KVCL_RANS_LEAST + KVCL_RANS_LANES + 2 * words, 4);
}
