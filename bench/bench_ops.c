/* bench_ops.c - the program bench_ops: times single operations on a device, and beside another
 * device in the same rounds. */
#include "cmd_table.h"
#include "opt.h"
#include "ops_case.h"
#include "roofline.h"

#include "os.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#define MAX_ROUNDS 101
#define SWEEPS 3
#define MOST_RUNS 256 /* of one sample */

typedef struct ops_opts {
    const char *device, *against, *heads;
    kvcl_opt_list only;
    int64_t tokens, dim, layers, rounds, sample_ms, n_threads;
    bool list, cpu_time, no_bandwidth, allow_inexact;
} ops_opts;

#define AT(member) .offset = offsetof(ops_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "What is measured"},
    {.names = {"--only"},
     .kind = KVCL_OPT_LIST,
     AT(only),
     .arg = "WORDS",
     .help = "operations whose name contains these words, e.g. attend, 'encode quant4', matvec; "
             "may be given several times; default: all"},
    {.names = {"--list"},
     .kind = KVCL_OPT_FLAG,
     AT(list),
     .help = "names the operations, then ends"},
    {.names = {"--tokens"},
     .kind = KVCL_OPT_INT,
     AT(tokens),
     .arg = "N",
     .min = 64,
     .max = 4194304,
     .def = "32768",
     .help = "tokens in the cache, a multiple of 64"},
    {.names = {"--heads"},
     .kind = KVCL_OPT_STRING,
     AT(heads),
     .arg = "Q/KV",
     .def = "32/8",
     .help = "query heads / key and value heads"},
    {.names = {"--dim"},
     .kind = KVCL_OPT_INT,
     AT(dim),
     .arg = "N",
     .min = 32,
     .max = 256,
     .def = "128",
     .help = "dimensions of a head, a multiple of 32"},
    {.names = {"--layers"},
     .kind = KVCL_OPT_INT,
     AT(layers),
     .arg = "N",
     .min = 1,
     .max = 1000,
     .def = "4",
     .help = "layers of a 1.1B llama that a matvec run goes through; take enough that their "
             "weights (47 MB each in Q8_0) do not stay in the device's cache"},
    {.kind = KVCL_OPT_HEADING, .help = "How"},
    {.names = {"-dev", "--device"},
     .kind = KVCL_OPT_STRING,
     AT(device),
     .arg = "DEVICE",
     .env = "KVCL_DEVICE",
     .help = "an id, index or part of a name of 'kvcl devices'; default: the best GPU, else cpu"},
    {.names = {"--against"},
     .kind = KVCL_OPT_STRING,
     AT(against),
     .arg = "DEVICE",
     .help = "a second device that runs the same in turn with the first: cpu shows how far a "
             "device is from the CPU path; their outputs are compared, too"},
    {.names = {"--rounds"},
     .kind = KVCL_OPT_INT,
     AT(rounds),
     .arg = "N",
     .min = 1,
     .max = MAX_ROUNDS,
     .def = "7",
     .help = "samples of each operation and device, whose median counts"},
    {.names = {"--sample-ms"},
     .kind = KVCL_OPT_INT,
     AT(sample_ms),
     .arg = "N",
     .min = 1,
     .max = 10000,
     .def = "20",
     .help = "an operation is repeated until a sample takes about as long"},
    {.names = {"--cpu-time"},
     .kind = KVCL_OPT_FLAG,
     AT(cpu_time),
     .help =
         "counts processor time of this program instead of the clock's, for machines with other "
         "work: makes sense for devices on the processor, with one thread each"},
    {.names = {"--no-bandwidth"},
     .kind = KVCL_OPT_FLAG,
     AT(no_bandwidth),
     .help = "do not measure what the memory gives"},
    {.names = {"-t", "--threads"},
     .kind = KVCL_OPT_INT,
     AT(n_threads),
     .arg = "N",
     .max = 1024,
     .env = "KVCL_THREADS",
     .help = "CPU threads; 0: one per processor"},
    {.names = {"--allow-inexact"},
     .kind = KVCL_OPT_FLAG,
     AT(allow_inexact),
     .help = "use a device even if its self-test gives other bits"},
    {.names = {"-h"}, .kind = KVCL_OPT_HELP, .help = "short help"},
    {.names = {"--help"}, .kind = KVCL_OPT_MANUAL, .help = "full help, examples first"},
};

/* A device, its buffers, its samples of the operation at hand: nanoseconds of one run. */
typedef struct side {
    kvcl_dev *dev;
    kvcl_ops_rig rig;
    double bandwidth; /* bytes/s */
    uint32_t n_runs;  /* of a sample */
    double samples[MAX_ROUNDS];
    uint64_t hash;
} side;

typedef struct bench {
    const ops_opts *o;
    kvcl_ctx *ctx;
    kvcl_ops_params p;
    side sides[2];
    size_t n_sides;
    kvcl_ops_case cases[KVCL_OPS_CASES];
    size_t n_cases;
    bool differs;
    kvcl_table table;
} bench;

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts in place. */
static double median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* ---- options ------------------------------------------------------------------------------- */

/* "32/8" */
static bool read_heads(const char *text, uint32_t *n_q, uint32_t *n_kv)
{
    char *end;
    const long q = strtol(text, &end, 10);
    if (end == text || *end != '/' || q < 1 || q > 1024)
        return false;
    const char *second = end + 1;
    const long kv = strtol(second, &end, 10);
    if (end == second || *end || kv < 1 || kv > q || q % kv != 0)
        return false;
    *n_q = (uint32_t)q;
    *n_kv = (uint32_t)kv;
    return true;
}

static bool is_wanted(const kvcl_opt_list *only, const char *name)
{
    for (size_t i = 0; i < only->n; i++)
        if (strstr(name, only->item[i]))
            return true;
    return only->n == 0;
}

static kvcl_status read_options(bench *b)
{
    const ops_opts *o = b->o;
    KVCL_CHECK(b->ctx, read_heads(o->heads, &b->p.n_q_heads, &b->p.n_kv_heads), KVCL_E_ARG,
               "--heads %s: want query heads / key and value heads, the first a multiple of the "
               "second, as 32/8",
               o->heads);
    KVCL_CHECK(b->ctx, o->tokens % KVCL_PAGE_TOKENS == 0, KVCL_E_ARG,
               "--tokens %lld: want a multiple of %d", (long long)o->tokens, KVCL_PAGE_TOKENS);
    KVCL_CHECK(b->ctx, o->dim % 32 == 0, KVCL_E_ARG, "--dim %lld: want a multiple of 32",
               (long long)o->dim);
    b->p.tokens = (uint32_t)o->tokens;
    b->p.head_dim = (uint32_t)o->dim;
    b->p.n_layers = (uint32_t)o->layers;
    size_t n = kvcl_ops_list(&b->p, b->cases);
    for (size_t i = 0; i < n; i++)
        if (is_wanted(&o->only, b->cases[i].name))
            b->cases[b->n_cases++] = b->cases[i];
    KVCL_CHECK(b->ctx, b->n_cases > 0, KVCL_E_ARG,
               "--only %s: no operation has these words in its name; --list shows all",
               o->only.item[0]);
    return KVCL_OK;
}

/* ---- measuring ----------------------------------------------------------------------------- */

/* Of a processor what it reads, else what a copy moves. */
static bool reads_host(const kvcl_device_info *d)
{
    return d->kind == KVCL_KIND_CPU || d->kind == KVCL_KIND_OPENCL_CPU;
}

static kvcl_status open_side(bench *b, const char *which)
{
    side *s = &b->sides[b->n_sides];
    KVCL_TRY(kvcl_device_open(b->ctx, which, &s->dev));
    b->n_sides++;
    const kvcl_device_info *d = kvcl_device_get_info(s->dev);
    if (b->o->no_bandwidth)
        s->bandwidth = 0;
    else if (reads_host(d))
        KVCL_TRY(kvcl_roofline_read(b->ctx, d->n_units, SWEEPS, &s->bandwidth));
    else
        KVCL_TRY(kvcl_roofline_copy(s->dev, SWEEPS, &s->bandwidth));
    return kvcl_ops_open(s->dev, &b->p, &s->rig);
}

static double now_ns(const bench *b)
{
    if (b->o->cpu_time)
        return (double)clock() * (1e9 / (double)CLOCKS_PER_SEC);
    return (double)kvcl_os_now_ns();
}

static kvcl_status sample(const bench *b, side *s, const kvcl_ops_case *c, uint32_t n,
                          double *ns_out)
{
    const double begin = now_ns(b);
    KVCL_TRY(kvcl_ops_run(&s->rig, c, n));
    *ns_out = (now_ns(b) - begin) / n;
    return KVCL_OK;
}

/* Inputs, a first run (which compiles), then as many runs to a sample as its time asks for. */
static kvcl_status begin_case(const bench *b, side *s, const kvcl_ops_case *c)
{
    double ns;
    KVCL_TRY(kvcl_ops_prepare(&s->rig, c));
    KVCL_TRY(sample(b, s, c, 1, &ns));
    KVCL_TRY(kvcl_ops_hash(&s->rig, c, &s->hash));
    KVCL_TRY(sample(b, s, c, 2, &ns));
    const double runs = (double)b->o->sample_ms * 1e6 / (ns + 1.0);
    s->n_runs = runs < 1.0 ? 1 : runs > MOST_RUNS ? MOST_RUNS : (uint32_t)runs;
    return KVCL_OK;
}

static void add_row(bench *b, const kvcl_ops_case *c, double ratio)
{
    const size_t n = (size_t)b->o->rounds;
    side *s = &b->sides[0], *other = &b->sides[1];
    const double ns = median(s->samples, n), rate = (double)c->bytes / ns; /* GB/s */
    kvcl_table_add(&b->table);
    kvcl_table_set(&b->table, 0, "%s", c->name);
    kvcl_table_set(&b->table, 1, "%.1f", ns * 1e-3);
    kvcl_table_set(&b->table, 2, "%.1f", s->samples[0] * 1e-3);
    kvcl_table_set(&b->table, 3, "%.2f", rate);
    if (s->bandwidth > 0)
        kvcl_table_set(&b->table, 4, "%.0f %%", 100 * rate * 1e9 / s->bandwidth);
    if (b->n_sides == 1)
        return;
    const bool same = other->hash == s->hash;
    b->differs = b->differs || !same;
    kvcl_table_set(&b->table, 5, "%.1f", median(other->samples, n) * 1e-3);
    kvcl_table_set(&b->table, 6, "%.1f", other->samples[0] * 1e-3);
    kvcl_table_set(&b->table, 7, "%.2f", ratio);
    kvcl_table_set(&b->table, 8, "%.2f", other->samples[0] / s->samples[0]);
    kvcl_table_set(&b->table, 9, "%s", same ? "same" : "differ");
}

static kvcl_status measure(bench *b, const kvcl_ops_case *c)
{
    double ratios[MAX_ROUNDS];
    for (size_t k = 0; k < b->n_sides; k++)
        KVCL_TRY(begin_case(b, &b->sides[k], c));
    for (int64_t i = 0; i < b->o->rounds; i++) {
        for (size_t k = 0; k < b->n_sides; k++)
            KVCL_TRY(sample(b, &b->sides[k], c, b->sides[k].n_runs, &b->sides[k].samples[i]));
        ratios[i] = b->sides[b->n_sides - 1].samples[i] / b->sides[0].samples[i];
    }
    add_row(b, c, median(ratios, (size_t)b->o->rounds));
    return KVCL_OK;
}

static void print_report(const bench *b)
{
    kvcl_table_print(&b->table, stdout, true, false);
    printf("\n%u tokens, %u/%u heads of %u, %u layers, %lld rounds.\n", (unsigned)b->p.tokens,
           (unsigned)b->p.n_q_heads, (unsigned)b->p.n_kv_heads, (unsigned)b->p.head_dim,
           (unsigned)b->p.n_layers, (long long)b->o->rounds);
    for (size_t k = 0; k < b->n_sides; k++) {
        const kvcl_device_info *d = kvcl_device_get_info(b->sides[k].dev);
        printf("%s %s, %s (%s)", k ? "Other:" : "Device:", d->id, d->name, d->detail);
        if (b->sides[k].bandwidth > 0)
            printf(": memory %s at %.1f GB/s",
                   reads_host(d) ? "read" : "copied, both directions counted,",
                   b->sides[k].bandwidth * 1e-9);
        puts(".");
    }
}

static kvcl_status run(bench *b)
{
    KVCL_TRY(read_options(b));
    for (size_t i = 0; b->o->list && i < b->n_cases; i++)
        puts(b->cases[i].name);
    if (b->o->list)
        return KVCL_OK;
    KVCL_TRY(open_side(b, b->o->device));
    if (b->o->against)
        KVCL_TRY(open_side(b, b->o->against));
    kvcl_table_init(&b->table, b->o->against
                                   ? "operation|>us|>best|>GB/s|>of bandwidth|>other us|>best|"
                                     ">x the other|>best by best|bits"
                                   : "operation|>us|>best|>GB/s|>of bandwidth");
    for (size_t i = 0; i < b->n_cases; i++) {
        fprintf(stderr, "bench_ops: %zu of %zu, %s\n", i + 1, b->n_cases, b->cases[i].name);
        KVCL_TRY(measure(b, &b->cases[i]));
    }
    print_report(b);
    KVCL_CHECK(b->ctx, !b->differs, KVCL_E_DIFFERS,
               "the devices computed other bits; see the last column");
    return KVCL_OK;
}

/* ---- the program --------------------------------------------------------------------------- */

static void on_log(void *user, kvcl_log_level level, const char *message)
{
    KVCL_UNUSED(user);
    KVCL_UNUSED(level);
    fprintf(stderr, "bench_ops: %s\n", message);
}

static int bench_main(const void *values, const kvcl_opt_result *parsed)
{
    const ops_opts *o = values;
    static const char out_of_memory[] = "bench_ops: the program has no memory\n";
    KVCL_UNUSED(parsed);
    kvcl_ctx_options opt = {.log = on_log,
                            .log_level = KVCL_LOG_WARN,
                            .n_threads = (uint32_t)o->n_threads,
                            .allow_inexact = o->allow_inexact};
    bench *b = calloc(1, sizeof *b);
    if (!b) {
        fputs(out_of_memory, stderr);
        return kvcl_status_exit_code(KVCL_E_MEM);
    }
    b->o = o;
    kvcl_status st = kvcl_ctx_create(&opt, &b->ctx);
    if (st == KVCL_OK)
        st = run(b);
    fflush(stdout);
    if (st != KVCL_OK) {
        const char *sentence = b->ctx ? kvcl_last_error(b->ctx) : "";
        fprintf(stderr, "bench_ops: %s\n", *sentence ? sentence : kvcl_status_string(st));
    }
    for (size_t k = 0; k < b->n_sides; k++) {
        kvcl_ops_close(&b->sides[k].rig);
        kvcl_device_close(b->sides[k].dev);
    }
    kvcl_ctx_free(b->ctx);
    free(b);
    return kvcl_status_exit_code(st);
}

static const kvcl_command command = {
    .program = "./dev bench",
    .name = "ops",
    .summary = "Times single operations on a device: attention over pages of every codec, their "
               "encoders, transforms, decode's matrix products",
    .synopsis = "[--device DEVICE] [--against cpu] [--tokens N] [--only WORDS] [option ...]",
    .examples = "  ./dev bench ops                                          # the default device\n"
                "  ./dev bench ops --device opencl:pocl:0 --against cpu     # PoCL beside the CPU\n"
                "  ./dev bench ops --device opencl:nvidia:0 --tokens 131072 --layers 22\n"
                "  ./dev bench ops --only 'attend quant4' --only matvec --rounds 15\n",
    .notes = "Each sample repeats one operation on the same data and waits for the device once; "
             "the table has the median of the rounds and the best of them. GB/s counts every byte "
             "that the operation must read or write once, beside what this machine's memory "
             "gives: read on processors, copied on other devices. With --against the two devices "
             "take turns in every round; 'x the other' is the median of the rounds' ratios (2.00 "
             "is twice as fast as the other device), 'best by best' that of the best samples: the "
             "one to believe on a machine with other work. 'bits' compares outputs; if any "
             "differ, the exit code is 7.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(ops_opts),
    .run = bench_main,
};

int main(int argc, char **argv)
{
    ops_opts values;
    kvcl_opt_result parsed;
    kvcl_os_passive_waiting(argv);
    if (kvcl_opt_parse(&command, argc - 1, argv + 1, &values, &parsed) != KVCL_OK) {
        fprintf(stderr, "bench_ops: %s\n", parsed.error);
        return 2;
    }
    if (parsed.help) {
        (parsed.help == 1 ? kvcl_opt_print_short : kvcl_opt_print_full)(stdout, &command);
        return 0;
    }
    return command.run(&values, &parsed);
}
