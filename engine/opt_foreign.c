/* opt_foreign.c - flags of llama.cpp that users bring along: what they mean here, or why they are
 * not supported.  Flags that kvcl has are in the tables of the subcommands. */
#include "opt.h"

#define YES(n_args, why, ...)                \
    {                                        \
        {__VA_ARGS__}, (n_args), true, (why) \
    }
#define NO(n_args, why, ...)                  \
    {                                         \
        {__VA_ARGS__}, (n_args), false, (why) \
    }

static const char why_chat[] =
    "kvcl has no chat mode yet; 'kvcl run' completes a text: put the whole prompt into -p or -f";
static const char why_sampling[] =
    "the sampler knows repeat penalty, top-k, top-p, min-p and temperature, in that order";
static const char why_rope[] = "positions are encoded as the model file says";
static const char why_split[] = "a model runs on one device; choose it with --device";
static const char why_map[] =
    "weights are read through a mapping of the file, whose pages the system keeps";
static const char why_threads[] =
    "prefill and decode share one set of threads; -t sets their number";
static const char why_state[] = "sessions are not saved to disk yet";
static const char why_download[] = "kvcl downloads nothing; name a GGUF file with -m";
static const char why_vision[] = "only text models are run";
static const char why_draft[] = "there is no speculative decoding";
static const char why_grammar[] = "output is not constrained by grammars";
static const char why_log[] = "messages go to standard error; redirect it with 2>FILE";
static const char why_lora[] = "adapters are not applied; merge them into the model file first";

static const kvcl_opt_foreign table[] = {
    YES(-1, "-fa: attention is always computed page by page, without the full score matrix", "-fa",
        "--flash-attn"),
    YES(0, "--no-conversation: 'kvcl run' never chats", "-no-cnv", "--no-conversation"),
    YES(0, "--simple-io: output is always plain", "--simple-io"),
    YES(0, "--no-warmup: there is no warm-up run", "--no-warmup"),
    YES(0, "--no-context-shift: a full context always ends generation", "--no-context-shift"),
    YES(0, "--no-escape: escapes in the prompt are only read with -e", "--no-escape"),
    YES(0, "--mmap: the model file is always mapped", "--mmap"),
    YES(0, "--no-jinja: templates are never applied", "--no-jinja"),

    NO(0, why_chat, "-cnv", "--conversation", "-i", "--interactive", "-if", "--interactive-first"),
    NO(0, why_chat, "-st", "--single-turn", "-mli", "--multiline-input", "--jinja"),
    NO(1, why_chat, "-sys", "--system-prompt", "-sysf", "--system-prompt-file", "--chat-template",
       "--chat-template-file"),
    NO(1, why_chat, "-r", "--reverse-prompt", "--in-prefix", "--in-suffix", "--reasoning-format"),
    NO(1, why_sampling, "--samplers", "--sampling-seq", "--sampler-seq", "--typical", "--xtc-p",
       "--xtc-probability", "--xtc-threshold", "--top-nsigma"),
    NO(1, why_sampling, "--top-n-sigma", "--presence-penalty", "--frequency-penalty", "--mirostat",
       "--mirostat-lr", "--mirostat-ent", "--dynatemp-range", "--dynatemp-exp"),
    NO(1, why_sampling, "--dry-multiplier", "--dry-base", "--dry-allowed-length",
       "--dry-penalty-last-n", "--dry-sequence-breaker", "-l", "--logit-bias"),
    NO(1, why_rope, "--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale",
       "--yarn-orig-ctx", "--yarn-ext-factor", "--yarn-attn-factor", "--override-kv"),
    NO(1, why_rope, "--yarn-beta-slow", "--yarn-beta-fast", "-gan", "--grp-attn-n", "-gaw",
       "--grp-attn-w"),
    NO(1, why_split, "-sm", "--split-mode", "-ts", "--tensor-split", "-mg", "--main-gpu", "-ot",
       "--override-tensor"),
    NO(0, why_split, "--cpu-moe", "-cmoe", "-nkvo", "--no-kv-offload"),
    NO(0, why_map, "--mlock", "--no-mmap"),
    NO(1, why_threads, "-tb", "--threads-batch"),
    NO(1, "threads are placed by the operating system; use taskset or numactl", "--numa", "-C",
       "--cpu-mask", "-Cr", "--cpu-range", "--prio", "--cpu-strict", "--poll"),
    NO(1, why_state, "--prompt-cache", "--slot-save-path"),
    NO(0, why_state, "--prompt-cache-all", "--prompt-cache-ro"),
    NO(1, why_download, "-mu", "--model-url", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"),
    NO(1, why_download, "-dr", "--docker-repo", "-hft", "--hf-token"),
    NO(1, why_vision, "--mmproj", "--image", "--audio", "-mm", "-mv", "--model-vocoder"),
    NO(1, why_draft, "-md", "--model-draft", "--draft", "--draft-max", "--draft-min",
       "--draft-p-min", "-ngld", "-cd"),
    NO(1, why_grammar, "--grammar", "--grammar-file", "-j", "--json-schema", "-jf",
       "--json-schema-file"),
    NO(1, why_log, "--log-file", "--log-colors"),
    NO(0, why_log, "--log-prefix", "--log-timestamps"),
    NO(1, why_lora, "--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled",
       "--control-vector-layer-range"),
    NO(1, "a full context ends generation instead of dropping tokens from its start", "--keep"),
    NO(0, "a full context ends generation instead of dropping tokens from its start",
       "--context-shift"),
    NO(0, "special tokens have no text; 'kvcl tokenize --pieces' shows them", "-sp", "--special"),
    NO(0, "the ids of a prompt are shown by 'kvcl tokenize --pieces'", "--verbose-prompt"),
    NO(0, "the file's structure is always checked, and 'kvcl inspect' shows it", "--check-tensors"),
    NO(0, "several sequences at once are not run yet", "-cb", "--cont-batching", "-kvu",
       "--kv-unified"),
    NO(1, "several sequences at once are not run yet", "-np", "--parallel", "-ns", "--sequences"),
    NO(1, "there is no server yet; 'kvcl run' works on one prompt", "--host", "--port",
       "--api-key"),
};

const kvcl_opt_foreign *kvcl_opt_foreign_find(const char *name)
{
    for (size_t i = 0; i < kvcl_array_len(table); i++)
        for (size_t k = 0; k < KVCL_OPT_NAMES && table[i].names[k]; k++)
            if (strcmp(table[i].names[k], name) == 0)
                return &table[i];
    return NULL;
}
