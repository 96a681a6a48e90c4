/* cmd_devices.c - kvcl devices: what there is to compute on. */
#include "cmd_devices.h"
#include "cmd_table.h"

#include "mem.h"
#include "probe.h"

#include <stddef.h>

typedef struct devices_opts {
    kvcl_common_opts common;
    bool json, test, probe;
} devices_opts;

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    {.names = {"--json"},
     .kind = KVCL_OPT_FLAG,
     .offset = offsetof(devices_opts, json),
     .help = "as JSON on standard output"},
    {.names = {"--test"},
     .kind = KVCL_OPT_FLAG,
     .offset = offsetof(devices_opts, test),
     .help = "open each device and run its self-test, which gives the class"},
    {.names = {"--probe"},
     .kind = KVCL_OPT_FLAG,
     .offset = offsetof(devices_opts, probe),
     .help = "measure each device anew: bandwidth of its memory and cost of an operation; the "
             "result is kept and used where tiers of the cache are placed"},
    KVCL_ROWS_COMMON(devices_opts),
};

typedef struct device_row {
    kvcl_device_info info;
    kvcl_status status; /* of opening it */
    char error[256];
    kvcl_probe probe; /* with --probe */
} device_row;

/* Opens a device, so that its class and detail become known. */
static void test_device(kvcl_app *app, device_row *row, bool probe)
{
    kvcl_dev *dev;
    row->status = kvcl_device_open(app->ctx, row->info.id, &dev);
    if (row->status != KVCL_OK) {
        snprintf(row->error, sizeof row->error, "%s", kvcl_last_error(app->ctx));
        return;
    }
    bool is_default = row->info.is_default;
    row->info = *kvcl_device_get_info(dev);
    row->info.is_default = is_default;
    if (probe)
        row->status = kvcl_probe_get(dev, KVCL_PROBE_ANEW, &row->probe);
    if (row->status != KVCL_OK)
        snprintf(row->error, sizeof row->error, "%s", kvcl_last_error(app->ctx));
    kvcl_device_close(dev);
}

json_t *kvcl_device_json(const kvcl_device_info *d)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:I, s:b}", "id",
                     kvcl_json_text(d->id, strlen(d->id)), "name",
                     kvcl_json_text(d->name, strlen(d->name)), "platform",
                     kvcl_json_text(d->platform, strlen(d->platform)), "driver",
                     kvcl_json_text(d->driver, strlen(d->driver)), "detail",
                     kvcl_json_text(d->detail, strlen(d->detail)), "kind", kvcl_kind_name(d->kind),
                     "class", kvcl_exactness_name(d->exactness), "mem_bytes",
                     (json_int_t)d->mem_bytes, "max_alloc_bytes", (json_int_t)d->max_alloc_bytes,
                     "n_units", (json_int_t)d->n_units, "is_default", (int)d->is_default);
}

static kvcl_status print_json(kvcl_app *app, const device_row *rows, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *d = kvcl_device_json(&rows[i].info);
        if (rows[i].status != KVCL_OK)
            json_object_set_new(d, "error", kvcl_json_text(rows[i].error, strlen(rows[i].error)));
        json_object_set_new(d, "index", json_integer((json_int_t)i));
        if (rows[i].probe.copy_bytes_per_s > 0)
            json_object_set_new(d, "probe",
                                json_pack("{s:f, s:f}", "copy_bytes_per_s",
                                          rows[i].probe.copy_bytes_per_s, "launch_ns",
                                          rows[i].probe.launch_ns));
        json_array_append_new(list, d);
    }
    return kvcl_json_print(app->ctx,
                           json_pack("{s:s, s:o}", "schema", "kvcl.devices/1", "devices", list));
}

static void print_table(kvcl_app *app, const device_row *rows, size_t n, bool probe)
{
    kvcl_table t;
    char mem[32];
    kvcl_table_init(&t, probe ? ">#||id|kind|name|platform|driver|>memory|class|>copy|>operation"
                              : ">#||id|kind|name|platform|driver|>memory|class");
    for (size_t i = 0; i < n; i++) {
        const kvcl_device_info *d = &rows[i].info;
        kvcl_show_size(d->mem_bytes, mem, sizeof mem);
        kvcl_table_add(&t);
        kvcl_table_set(&t, 0, "%zu", i);
        kvcl_table_set(&t, 1, "%s", d->is_default ? "*" : "");
        kvcl_table_set(&t, 2, "%s", d->id);
        kvcl_table_set(&t, 3, "%s", kvcl_kind_name(d->kind));
        kvcl_table_set(&t, 4, "%.40s", d->name);
        kvcl_table_set(&t, 5, "%.28s", d->platform);
        kvcl_table_set(&t, 6, "%.20s", d->driver);
        kvcl_table_set(&t, 7, "%s", mem);
        kvcl_table_set(&t, 8, "%s",
                       rows[i].status == KVCL_OK ? kvcl_exactness_name(d->exactness) : "fails");
        if (rows[i].probe.copy_bytes_per_s > 0) {
            kvcl_table_set(&t, 9, "%.1f GB/s", rows[i].probe.copy_bytes_per_s * 1e-9);
            kvcl_table_set(&t, 10, "%.1f us", rows[i].probe.launch_ns * 1e-3);
        }
    }
    kvcl_table_print(&t, stdout, false, app->out_color);
    puts("\n* is the default; --device takes an id, a number or a part of a name.");
    if (app->common->verbose == 0)
        return;
    puts("");
    for (size_t i = 0; i < n; i++)
        if (rows[i].info.detail[0])
            printf("%s: %s\n", rows[i].info.id, rows[i].info.detail);
    puts("\nEnvironment\n"
         "  KVCL_DEVICE        the default device, as --device\n"
         "  KVCL_THREADS       CPU threads, as -t\n"
         "  KVCL_CPU_CAPS      path of the CPU device: scalar, avx2, avx512, neon\n"
         "  KVCL_OPENCL_LIB    file of the OpenCL loader; off: do without OpenCL\n"
         "  KVCL_CLBLAST_LIB   file of CLBlast; off: do without it\n"
         "  KVCL_CACHE_DIR     folder of compiled OpenCL programs and probes; off: keep none\n"
         "  KVCL_MEM_LIMIT     most bytes on the host and on each device (512M, 2G)");
}

static kvcl_status list_devices(kvcl_app *app, const devices_opts *o)
{
    kvcl_device_info info[KVCL_MAX_DEVICES];
    size_t n;
    void *p;
    KVCL_TRY(kvcl_device_list(app->ctx, info, KVCL_MAX_DEVICES, &n));
    n = kvcl_min_size(n, KVCL_MAX_DEVICES);
    KVCL_TRY(kvcl_mem_array(app->ctx, n + 1, sizeof(device_row), "the list of devices", &p));
    device_row *rows = p;
    for (size_t i = 0; i < n; i++) {
        rows[i].info = info[i];
        if (o->test || o->probe)
            test_device(app, &rows[i], o->probe);
    }
    kvcl_status st = KVCL_OK;
    if (o->json)
        st = print_json(app, rows, n);
    else
        print_table(app, rows, n, o->probe);
    for (size_t i = 0; i < n; i++)
        if (rows[i].status != KVCL_OK)
            kvcl_say(app->err_color, "%s: %s", rows[i].info.id, rows[i].error);
    kvcl_mem_free(app->ctx, rows);
    return st;
}

static int devices(const devices_opts *o, const kvcl_opt_result *parsed)
{
    kvcl_app app;
    /* listing devices that are not exact is no use of them */
    const kvcl_model_opts all = {.allow_inexact = true};
    int code;
    if (!kvcl_app_open(&app, &o->common, &all, parsed, &code))
        return code;
    code = kvcl_app_finish(&app, list_devices(&app, o));
    if (code == 0)
        code = kvcl_app_finish_stdout(&app);
    kvcl_app_close(&app);
    return code;
}

int kvcl_devices_list(const kvcl_common_opts *common, const kvcl_opt_result *parsed)
{
    const devices_opts o = {.common = *common};
    return devices(&o, parsed);
}

static int devices_main(const void *values, const kvcl_opt_result *parsed)
{
    return devices(values, parsed);
}

const kvcl_command kvcl_cmd_devices = {
    .name = "devices",
    .summary = "Lists the devices of this machine",
    .synopsis = "[--test] [--probe] [--json]",
    .examples = "  kvcl devices            # ids, names, memory; * marks the default\n"
                "  kvcl devices --test     # opens each one and tells its class\n"
                "  kvcl devices --probe    # and measures bandwidth and the cost of an operation\n"
                "  kvcl devices -v         # and the environment variables\n",
    .notes = "Classes: exact computes the canonical bits; exact, slow does too, but emulates fma; "
             "fast only failed the self-test and is refused without --allow-inexact; untested was "
             "not opened yet.\n"
             "The default is a discrete GPU, else an integrated one, else the CPU. A CPU behind "
             "OpenCL is used only when named.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(devices_opts),
    .run = devices_main,
};
