/* spectral_rest.c - see spectral_rest.h. */
#include "spectral_rest.h"

#include "mem.h"
#include "rans_enc.h"
#include "rans_model.h"

#include <math.h>

#define MIN_SCALE (-8000) /* of rows that are nothing */
/* Steps of keys and values for one of a synthesis' row, and of coefficients for the analysis' noise
 * (numpy on captured rows: a half of each costs 3 to 9 % more bits, twice saves less than 1 %). */
#define SYNTH_PART 180.0
#define ANALYSIS_PART 6.0
#define LEAST_PART 0.15  /* deviations of fewer steps are left out */
#define FILL 0.97        /* of a page's room that codes take */
#define FINEST 40        /* quarters of octaves */
#define SPARE_BYTES 128u /* of a chunk: its stream's head */

/* ---- layout -------------------------------------------------------------------------------- */

static size_t table_bytes(uint32_t D) { return KVCL_SPECTRAL_HEAD + 8 * (size_t)D; }

/* Bits of a matrix' entry, hundredths: what the codes of a coefficient take and 2.7 more. */
static uint32_t entry_bits(uint32_t rate) { return kvcl_min_u32(rate + 270, 720); }

kvcl_rest_basis kvcl_rest_basis_layout(const kvcl_spectral_shape *s, uint32_t rate)
{
    kvcl_rest_basis b;
    size_t D = s->head_dim, heads = s->n_kv_heads;
    size_t chunks = heads * (kvcl_rest_chunks(s, false) + kvcl_rest_chunks(s, true));
    b.scales = 2 * heads * table_bytes(s->head_dim);
    b.models = b.scales + (s->words_k + s->words_v) * sizeof(int16_t);
    b.places = kvcl_align_up(b.models + chunks * KVCL_REST_CHUNK, 4);
    b.streams = b.places + 2 * chunks * sizeof(uint32_t);
    b.bytes = b.streams + heads * 3 * D * D * entry_bits(rate) / 800 + chunks * SPARE_BYTES;
    b.bytes = kvcl_align_up(b.bytes, 64);
    return b;
}

/* ---- steps --------------------------------------------------------------------------------- */

/* 64 log2(x), rounded down; x > 0. */
static int log_of(double x)
{
    static const double root = 1.0108892860517005; /* 2^(1/64) */
    int whole = 0, part = 0;
    for (; x >= 2.0; whole++)
        x *= 0.5;
    for (; x < 1.0 && whole > -100; whole--)
        x *= 2.0;
    for (double edge = root; part < 63 && x >= edge; part++)
        edge *= root;
    return 64 * whole + part;
}

/* Amplitudes of a part become those of codes of 8 bits and equal steps; devs [D]: squared
 * deviations in steps of the coefficients that have a code, without gaps, by code. */
static uint32_t set_steps(uint32_t D, const double *cost, double step, kvcl_spectral_part *p,
                          double *devs)
{
    float *amp = (float *)(uintptr_t)p->amp;
    uint8_t *width = (uint8_t *)(uintptr_t)p->width;
    uint32_t n = 0;
    for (uint32_t e = 0; e < D; e++) {
        double root = sqrt(cost[e]);
        double to = root > 0.0 && step > 0.0 ? 32.0 * step * (double)amp[e] / root : 0.0;
        bool coded = to >= 1e-9 && to <= 1e9;
        amp[e] = coded ? (float)to : 0.0f;
        width[e] = coded ? 8 : 0;
        if (coded)
            devs[n++] = cost[e] / (step * step);
    }
    p->in_order = true;
    return n;
}

/* Scales of a part's words, from word `first` on. */
static void set_scales(const double *devs, uint32_t n, int16_t *scales)
{
    for (uint32_t i = 0; i < n; i += 4) {
        double sum = 0.0;
        uint32_t some = kvcl_min_u32(4, n - i);
        for (uint32_t j = 0; j < some; j++)
            sum += devs[i + j];
        scales[i / 4] = (int16_t)log_of(sqrt(sum / some));
    }
}

/* ---- how fine ------------------------------------------------------------------------------ */

typedef struct rest_maker {
    kvcl_ctx *ctx;
    const kvcl_spectral_shape *s;
    kvcl_rest_basis layout;
    kvcl_spectral_fit fit;
    double step[2], q[2];      /* of rung 320; expected of pages; of K and V */
    kvcl_spectral_part *parts; /* [2][Hk], made of the fit's */
    double *tops;              /* [2][Hk][2][D]: largest weights wanted, of synthesis, analysis */
    double *devs;              /* [D] */
    unsigned char *full;       /* a basis of ops_spectral.h */
    uint32_t *table;           /* of the entropy coder */
    uint16_t *words;
    unsigned char *out;
} rest_maker;

/* About what a code of a Gaussian of deviation s costs, in steps of its quantiser. */
static double code_bits(double s)
{
    double v = s * s;
    return v < 1e-4 ? 0.0 : log_of(1.0 + 17.0 * v) / 128.0 * (v / (v + 0.05));
}

/* The steps that pages of this rate will have. */
static void expect_steps(rest_maker *m, uint32_t rate)
{
    static const double root = 1.0905077326652577; /* 2^(1/8) */
    size_t n = (size_t)m->s->n_kv_heads * m->s->head_dim;
    double room = FILL * (double)rate / 100.0 * 2.0 * (double)n, sum = 2.0 * room, times = 0.01;
    for (uint32_t eighth = 0; eighth < 106 && sum > room; eighth++) { /* up to 100 */
        sum = 0.0;
        for (size_t i = 0; i < 2 * n; i++)
            if (m->step[i >= n] > 0.0)
                sum += code_bits(sqrt(m->fit.cost[i]) / (times * m->step[i >= n]));
        times *= root;
    }
    for (uint32_t of_v = 0; of_v < 2; of_v++)
        m->q[of_v] = times * m->step[of_v];
}

static double squares(uint32_t D, const int8_t *row)
{
    int32_t sum = 0;
    for (uint32_t d = 0; d < D; d++)
        sum += row[d] * row[d];
    return (double)sum;
}

/* Largest weights of part h's rows.  With S and E scaled to errors' costs of 1: noise of a step d
 * in S's entries costs d^2 / 12 times M's trace, in E's d^2 / 12 times that of the covariance. */
static void set_tops(rest_maker *m, uint32_t h)
{
    uint32_t D = m->s->head_dim, of_v = h >= m->s->n_kv_heads;
    const kvcl_spectral_part *p = &m->fit.parts[h];
    const double *cost = m->fit.cost + (size_t)h * D;
    double *tops = m->tops + (size_t)h * 2 * D, q = m->q[of_v], metric = 0.0, spread = 0.0;
    for (uint32_t i = 0; i < D; i++) {
        double amp = (double)p->amp[i], back = amp * (double)p->gain[i];
        if (p->analysis && amp > 0.0)
            metric += squares(D, p->analysis + (size_t)i * D) * cost[i] / (amp * amp);
        spread += squares(D, p->synth + (size_t)i * D) * back * back;
    }
    metric = p->analysis ? sqrt(metric / D) : 1.0;
    for (uint32_t i = 0; i < D; i++) {
        double amp = (double)p->amp[i], dev = sqrt(cost[i]);
        bool kept = amp > 0.0 && q > 0.0 && dev >= LEAST_PART * q;
        tops[i] = kept ? SYNTH_PART * 127.0 * amp * (double)p->gain[i] * metric / q : 0.0;
        tops[D + i] = kept ? ANALYSIS_PART * 127.0 * dev / amp * sqrt(spread) / q : 0.0;
    }
}

/* A row with its largest weight, 127, made `top`. */
static void round_row(uint32_t D, const int8_t *row, double top, int8_t *out)
{
    double times = (top < 127.0 ? top : 127.0) / 127.0;
    for (uint32_t d = 0; d < D; d++)
        out[d] = (int8_t)floor(times * row[d] + 0.5);
}

static int32_t dot(uint32_t D, const int8_t *a, const int8_t *b)
{
    int32_t sum = 0;
    for (uint32_t d = 0; d < D; d++)
        sum += a[d] * b[d];
    return sum;
}

/* Part h with weights `fine` times as fine as wanted. */
static void make_part(const rest_maker *m, uint32_t h, double fine)
{
    uint32_t D = m->s->head_dim;
    const kvcl_spectral_part *from = &m->fit.parts[h];
    kvcl_spectral_part *p = &m->parts[h];
    const double *tops = m->tops + (size_t)h * 2 * D;
    const int8_t *find = from->analysis ? from->analysis : from->synth;
    for (uint32_t i = 0; i < D; i++) {
        size_t at = (size_t)i * D;
        int8_t *synth = (int8_t *)(uintptr_t)p->synth + at, *analysis = synth;
        round_row(D, from->synth + at, fine * tops[i], synth);
        if (p->analysis) {
            analysis = (int8_t *)(uintptr_t)p->analysis + at;
            round_row(D, find + at, fine * tops[D + i], analysis);
        }
        int32_t back = dot(D, synth, analysis);
        double was = squares(D, find + at);
        double times = back > 0 && was > 0.0 ? dot(D, analysis, find + at) / was : 0.0;
        ((float *)(uintptr_t)p->gain)[i] = back > 0 ? (float)(1.0 / back) : 0.0f;
        ((float *)(uintptr_t)p->amp)[i] = (float)(times * (double)from->amp[i]);
    }
}

/* ---- streams ------------------------------------------------------------------------------- */

/* Matrices of m->full to streams; false when they do not fit. */
static bool code_matrices(const rest_maker *m)
{
    const kvcl_spectral_shape *s = m->s;
    uint32_t D = s->head_dim, n_cols = 4 * D, used = 0, chunk = 0;
    const unsigned char *at = m->full;
    unsigned char *streams = m->out + m->layout.streams;
    uint32_t room = (uint32_t)(m->layout.bytes - m->layout.streams);
    for (uint32_t h = 0; h < 2 * s->n_kv_heads; h++) {
        bool of_v = h >= s->n_kv_heads;
        const int8_t *values = (const int8_t *)at + kvcl_spectral_synth();
        for (uint32_t i = 0; i < kvcl_rest_chunks(s, of_v); i++, chunk++) {
            uint8_t *models = m->out + m->layout.models + chunk * KVCL_REST_CHUNK;
            uint32_t *place = (uint32_t *)(void *)(m->out + m->layout.places) + 2 * chunk;
            for (uint32_t row = 0; row < KVCL_REST_CHUNK; row++) {
                uint32_t hist[256] = {0};
                for (uint32_t j = 0; j < n_cols; j++)
                    hist[(uint8_t)values[row * n_cols + j]]++;
                models[row] = (uint8_t)kvcl_rans_pick_for(m->table, hist);
            }
            kvcl_rans_coder c = {.table = m->table, .models = models, .n_cols = n_cols};
            uint32_t bytes =
                room - used < KVCL_RANS_LEAST
                    ? 0
                    : kvcl_rans_encode_page(&c, values, KVCL_REST_CHUNK * n_cols, kvcl_rans_encode,
                                            m->words, streams + used, room - used);
            if (bytes == 0)
                return false;
            place[0] = used / 4;
            place[1] = bytes;
            used = kvcl_min_u32(room, (uint32_t)kvcl_align_up(used + bytes, 4));
            values += KVCL_REST_CHUNK * n_cols;
        }
        at += kvcl_spectral_part_bytes(of_v, D, 1);
    }
    memset(streams + used, 0, room - used);
    return true;
}

/* A whole basis, `fine` times as fine as wanted; *fits: whether its streams fit. */
static kvcl_status make_all(const rest_maker *m, double fine, bool *fits)
{
    const kvcl_spectral_shape *s = m->s;
    int16_t *scales = (int16_t *)(void *)(m->out + m->layout.scales);
    uint32_t D = s->head_dim, heads = s->n_kv_heads, word = 0;
    for (uint32_t w = 0; w < s->words_k + s->words_v; w++)
        scales[w] = MIN_SCALE;
    for (uint32_t h = 0; h < 2 * heads; h++) {
        bool of_v = h >= heads;
        word = h == heads ? s->words_k : word;
        make_part(m, h, fine);
        uint32_t n =
            set_steps(D, m->fit.cost + (size_t)h * D, m->step[of_v], &m->parts[h], m->devs);
        set_scales(m->devs, n, scales + word);
        word += kvcl_div_up(n, 4);
    }
    KVCL_TRY(kvcl_spectral_pack(m->ctx, s, m->parts, m->full));
    *fits = code_matrices(m);
    return KVCL_OK;
}

static void copy_tables(const rest_maker *m)
{
    uint32_t D = m->s->head_dim;
    const unsigned char *from = m->full;
    unsigned char *to = m->out;
    for (uint32_t h = 0; h < 2 * m->s->n_kv_heads; h++) {
        bool of_v = h >= m->s->n_kv_heads;
        memcpy(to, from, KVCL_SPECTRAL_HEAD);
        memcpy(to + KVCL_SPECTRAL_HEAD, from + kvcl_spectral_places(of_v, D),
               table_bytes(D) - KVCL_SPECTRAL_HEAD);
        to += table_bytes(D);
        from += kvcl_spectral_part_bytes(of_v, D, 1);
    }
}

/* The finest that fits; what is nothing at all always does. */
static kvcl_status make_finest(const rest_maker *m)
{
    static const double root = 1.189207115002721; /* 2^(1/4) */
    uint32_t low = 0, high = FINEST;
    for (bool done = false, fits; !done;) {
        uint32_t at = (low + high + 1) / 2;
        double fine = at ? 0.00390625 : 0.0; /* 1/256 */
        for (uint32_t i = 0; i < at; i++)
            fine *= root;
        done = low == high;
        KVCL_TRY(make_all(m, fine, &fits));
        if (fits)
            low = at;
        else
            high = at - 1;
    }
    copy_tables(m);
    return KVCL_OK;
}

/* ---- memory -------------------------------------------------------------------------------- */

static void *take(unsigned char **at, size_t bytes)
{
    void *p = *at;
    if (*at)
        *at += kvcl_align_up(bytes, 16);
    return p;
}

/* Places what m has in one block from `at` on; NULL: returns the bytes alone. */
static size_t place(rest_maker *m, unsigned char *at)
{
    size_t D = m->s->head_dim, heads = 2 * (size_t)m->s->n_kv_heads, n = heads * D;
    size_t sizes[] = {heads * sizeof *m->parts, 2 * n * sizeof(double),
                      D * sizeof(double),       kvcl_spectral_basis_bytes(m->s),
                      kvcl_rans_table_bytes(),  (KVCL_REST_CHUNK * 8 * D + 256) * sizeof(uint16_t),
                      2 * n * sizeof(float),    n * (2 * D + 1)};
    size_t bytes = 0;
    for (size_t i = 0; i < kvcl_array_len(sizes); i++)
        bytes += kvcl_align_up(sizes[i], 16);
    if (!at)
        return bytes;
    m->parts = take(&at, sizes[0]);
    m->tops = take(&at, sizes[1]);
    m->devs = take(&at, sizes[2]);
    m->full = take(&at, sizes[3]);
    m->table = take(&at, sizes[4]);
    m->words = take(&at, sizes[5]);
    float *numbers = take(&at, sizes[6]);
    int8_t *weights = take(&at, sizes[7]);
    for (size_t h = 0; h < heads; h++, numbers += 2 * D, weights += 2 * D * D + D) {
        bool two = m->fit.parts[h].analysis != NULL;
        m->parts[h] = (kvcl_spectral_part){.n_comp = m->s->head_dim, .synth = weights};
        m->parts[h].analysis = two ? weights + D * D : NULL;
        m->parts[h].gain = numbers;
        m->parts[h].amp = numbers + D;
        m->parts[h].width = (uint8_t *)(weights + 2 * D * D);
    }
    return bytes;
}

kvcl_status kvcl_spectral_rest_make(kvcl_ctx *ctx, const kvcl_spectral_shape *s,
                                    const kvcl_spectral_moments *moments, uint32_t n_threads,
                                    uint32_t rate, void *basis)
{
    rest_maker m = {.ctx = ctx, .s = s, .out = basis};
    void *block = NULL;
    KVCL_CHECK(
        ctx, s->fold == 1 && s->head_dim % 32 == 0, KVCL_E_UNSUPPORTED,
        "basis of pages at rest: slots of %u tokens, %u dimensions; want 1, a multiple of 32",
        (unsigned)s->fold, (unsigned)s->head_dim);
    KVCL_TRY(kvcl_spectral_fit_make(ctx, s, moments, n_threads, &m.fit));
    kvcl_status st = kvcl_mem_alloc(ctx, place(&m, NULL), "a basis of pages at rest", &block);
    if (st == KVCL_OK) {
        place(&m, block);
        m.layout = kvcl_rest_basis_layout(s, rate);
        kvcl_rans_table_fill(m.table);
        for (uint32_t of_v = 0; of_v < 2; of_v++)
            m.step[of_v] = sqrt(m.fit.energy[of_v] / ((double)s->n_kv_heads * s->head_dim));
        expect_steps(&m, rate);
        for (uint32_t h = 0; h < 2 * s->n_kv_heads; h++)
            set_tops(&m, h);
        st = make_finest(&m);
    }
    kvcl_mem_free(ctx, block);
    kvcl_spectral_fit_free(ctx, &m.fit);
    return st;
}

/* ---- the way back -------------------------------------------------------------------------- */

/* Bytes from `off` on. */
static kvcl_view from_byte(kvcl_view v, size_t off)
{
    return (kvcl_view){v.buf, v.off + off, v.bytes - off};
}

kvcl_status kvcl_spectral_rest_open(kvcl_queue *q, const kvcl_spectral_shape *s, uint32_t rate,
                                    kvcl_view basis, kvcl_view rans, kvcl_view full, kvcl_view bad)
{
    kvcl_rest_basis at = kvcl_rest_basis_layout(s, rate);
    uint32_t D = s->head_dim;
    size_t from = basis.off, to = full.off, chunk = (size_t)KVCL_REST_CHUNK * 4 * D;
    kvcl_view models = from_byte(basis, at.models), places = from_byte(basis, at.places);
    for (uint32_t h = 0; h < 2 * s->n_kv_heads; h++) {
        bool of_v = h >= s->n_kv_heads;
        uint32_t n = kvcl_rest_chunks(s, of_v);
        KVCL_TRY(kvcl_buf_copy(q, full.buf, to, basis.buf, from, KVCL_SPECTRAL_HEAD));
        KVCL_TRY(kvcl_buf_copy(q, full.buf, to + kvcl_spectral_places(of_v, D), basis.buf,
                               from + KVCL_SPECTRAL_HEAD, table_bytes(D) - KVCL_SPECTRAL_HEAD));
        kvcl_rans_dec_args a = {.shape = {n, KVCL_REST_CHUNK, 4 * D, KVCL_REST_CHUNK, 0}};
        a.streams = from_byte(basis, at.streams);
        a.places = (kvcl_view){places.buf, places.off, 2 * n * sizeof(uint32_t)};
        a.models = (kvcl_view){models.buf, models.off, (size_t)n * KVCL_REST_CHUNK};
        a.table = rans;
        a.values = (kvcl_view){full.buf, to + kvcl_spectral_synth(), n * chunk};
        a.bad = bad;
        KVCL_TRY(kvcl_op_rans_dec(q, &a));
        models = from_byte(models, (size_t)n * KVCL_REST_CHUNK);
        places = from_byte(places, 2 * n * sizeof(uint32_t));
        from += table_bytes(D);
        to += kvcl_spectral_part_bytes(of_v, D, 1);
    }
    return KVCL_OK;
}
