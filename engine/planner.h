/* planner.h - which codec and which device each tier of the cache gets.
 *
 * Three steps, none of which touches a device:
 *   1. text to wishes: "--tier cold=cpu:quant4", "--cache small", "--cache-mem 512M"
 *   2. a view: the devices that could be used, what their probe said, what wishes name
 *   3. the plan: for each candidate (one preset, or all from the best quality down) the tiers are
 *      filled in and placed; the first that fits the budget and every device wins, with its
 *      reasons; or a refusal with the numbers
 *
 * What is chosen never depends on the machine unless the user hands it over (preset "auto"):
 * without a budget nothing lossy is chosen unasked, and a budget counts bytes of pages, which are
 * the same everywhere.  Where tiers live changes no bit of the output. */
#ifndef KVCL_PLANNER_H
#define KVCL_PLANNER_H

#include "codec.h"

/* ---- wishes -------------------------------------------------------------------------------- */

enum { KVCL_WISH_HOT, KVCL_WISH_WARM, KVCL_WISH_COLD };
extern const char *const kvcl_wish_names[KVCL_MAX_TIERS]; /* "hot", "warm", "cold" */

typedef struct kvcl_tier_wish {
    bool is_given;
    char device[64]; /* as typed, "gpu", "cpu" and "disk" too; "": not said */
    char
        codec[KVCL_CODEC_NAME_CAP]; /* canonical, or "raw": rows as in the hot tier; "": not said */
    uint32_t tokens;                /* 0: not said */
} kvcl_tier_wish;

typedef struct kvcl_cache_wish {
    const char *preset; /* "exact", "balanced", ..., "auto"; NULL: not said.  borrows */
    kvcl_tier_wish tier[KVCL_MAX_TIERS];
    uint64_t budget_bytes; /* of tiers in memory, sinks and means together; 0: none */
    const char *tier_dir;  /* of tiers on disk; NULL: not said.  borrows */
    uint32_t n_prompt;     /* tokens that will come first and at once; 0: not known */
    bool drop_oldest;      /* the last tier may have fewer tokens than the context leaves it */
} kvcl_cache_wish;

/* What a tier on disk has for a device. */
#define KVCL_WISH_DISK "disk"

/* Reads one "NAME=[DEVICE:]CODEC[:TOKENS]", DEVICE perhaps "disk", or several with comma between.
 * DEVICE may hold colons: the last field that is a codec (or "auto": not said) parts it from
 * TOKENS.  `from` names the option in messages.  E_ARG with a sentence; *out is then partly filled.
 */
kvcl_status kvcl_wish_add_tier(kvcl_ctx *ctx, const char *from, const char *text,
                               kvcl_cache_wish *out);
/* True when all is left to the defaults. */
bool kvcl_wish_is_empty(const kvcl_cache_wish *wish);

/* ---- presets ------------------------------------------------------------------------------- */

/* A codec that learns is the better one at its rate, where the prompt is long enough to learn from
 * (KVCL_PLANNER_PROMPT tokens), its cache with all bases no larger than the simple codec's by more
 * than a twentieth, and the heads have a shape that it takes.  Else, and where the prompt is not
 * known, the cold tier gets the simple one; the reasons say which and why. */
typedef struct kvcl_cache_preset {
    const char *name;
    uint32_t hot_tokens; /* 0: all tokens are hot */
    const char *codec;   /* of the cold tier; NULL: there is none */
    const char *learns;  /* instead, where it can serve; NULL: none */
} kvcl_cache_preset;

#define KVCL_PLANNER_PROMPT 1024u

#define KVCL_N_PRESETS 4
extern const kvcl_cache_preset kvcl_cache_presets[KVCL_N_PRESETS]; /* best quality first */

/* ---- the view ------------------------------------------------------------------------------ */

#define KVCL_PLANNER_DEVICES 5
/* For tier_device. */
#define KVCL_PLANNER_UNSAID (-1)
#define KVCL_PLANNER_DISK (-2)

typedef struct kvcl_planner_device {
    char id[64];
    bool may_choose;         /* without being named: exact, and the user's own choice or the CPU */
    uint64_t mem_bytes;      /* that may be used */
    const char *mem_what;    /* "memory" or "KVCL_MEM_LIMIT": for messages */
    double copy_bytes_per_s; /* read and written together; 0: not probed */
    double launch_ns;
} kvcl_planner_device;

/* Tiers filled in. */
typedef struct kvcl_planner_tier {
    uint32_t wish;                   /* KVCL_WISH_... */
    char codec[KVCL_CODEC_NAME_CAP]; /* "f16" ... */
    uint32_t tokens;                 /* 0: all that is left */
    uint32_t device;                 /* of the view */
    bool on_disk;                    /* device is then the engine's */
} kvcl_planner_tier;

typedef struct kvcl_planner_choice {
    const char *name; /* of the preset; "as said" */
    uint32_t n_ctx, n_tiers;
    kvcl_planner_tier tiers[KVCL_MAX_TIERS];
} kvcl_planner_choice;

/* Bytes of a choice; kvcl_session_plan_make() in the program.  Its rows name devices by their id.
 * An error refuses the choice. */
typedef kvcl_status (*kvcl_planner_size_fn)(void *user, const kvcl_planner_choice *choice,
                                            kvcl_session_plan *out);

typedef struct kvcl_planner_view {
    uint32_t n_devices;
    kvcl_planner_device devices[KVCL_PLANNER_DEVICES]; /* [0]: the engine's */
    int32_t tier_device[KVCL_MAX_TIERS];               /* that the wish names, or: */
    uint32_t n_ctx, n_layers;
    const char *raw; /* codec name of raw rows, "f16" or "f32" */
    kvcl_planner_size_fn size;
    void *user;
} kvcl_planner_view;

/* ---- the plan ------------------------------------------------------------------------------ */

#define KVCL_PLANNER_REASONS 8

typedef struct kvcl_planner_plan {
    kvcl_planner_choice choice;
    kvcl_session_plan sizes;
    double read_s; /* about: reading a full cache for one token; 0: not known */
    uint32_t n_reasons;
    char reasons[KVCL_PLANNER_REASONS][256];
} kvcl_planner_plan;

/* Pure.  E_ARG when wishes contradict each other or the hot tier is not on the engine's device,
 * E_MEM when no candidate fits the budget, E_DEVICE_MEM when none fits the devices: each with the
 * numbers; or what `size` said of the only candidate. */
kvcl_status kvcl_planner_make(kvcl_ctx *ctx, const kvcl_cache_wish *wish,
                              const kvcl_planner_view *view, kvcl_planner_plan *out);

#endif
