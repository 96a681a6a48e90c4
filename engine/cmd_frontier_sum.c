/* cmd_frontier_sum.c - sums over heads, and whether all promises were kept.  See cmd_frontier.h. */
#include "cmd_frontier.h"

#include <math.h>

kvcl_frontier_sum kvcl_frontier_sum_of(const kvcl_frontier *f, uint32_t spec, uint32_t rule,
                                       uint32_t scan)
{
    kvcl_frontier_sum s = {.worst = INFINITY};
    const kvcl_frontier_spec *sp = &f->specs[spec];
    const double n_q = f->n_queries;
    double n = 0;
    s.is_there =
        kvcl_frontier_fits(sp, &f->rules[rule]) && !(scan && f->rules[rule].aim == KVCL_AIM_THETA);
    for (uint32_t l = 0; l < f->n_layers; l++)
        for (uint32_t h = 0; h < f->n_heads; h++) {
            const kvcl_frontier_cell *c = kvcl_frontier_cell_at(f, spec, rule, scan, l, h);
            if (!f->layer[l] || !f->head[h])
                continue;
            n += n_q;
            s.eliminated += c->eliminated;
            for (uint32_t i = 0; i < KVCL_FRONTIER_TOPS; i++)
                s.missed[i] += c->missed[i];
            s.lost += c->lost;
            s.lost_max = fmax(s.lost_max, c->lost_max);
            s.certificate_max = fmax(s.certificate_max, c->certificate_max);
            s.kept_by_group += c->kept_by_group;
            s.n_broken += c->n_broken;
            s.n_violated += f->n_violated[((size_t)spec * f->n_layers + l) * f->n_heads + h];
            if (c->eliminated / n_q < s.worst) {
                s.worst = c->eliminated / n_q;
                s.worst_layer = l;
                s.worst_head = h;
            }
        }
    s.eliminated /= n;
    s.lost /= n;
    s.kept_by_group /= n;
    for (uint32_t i = 0; i < KVCL_FRONTIER_TOPS; i++)
        s.missed[i] /= n;
    s.read = kvcl_frontier_spec_bytes(sp, f->D) / (4.0 * f->D) + s.kept_by_group;
    return s;
}

uint32_t kvcl_frontier_best(const kvcl_frontier *f, uint32_t rule)
{
    uint32_t best = f->n_specs;
    double most = -1;
    for (uint32_t i = 0; i < f->n_specs; i++) {
        const kvcl_frontier_sum s = kvcl_frontier_sum_of(f, i, rule, 1);
        if (s.is_there && f->specs[i].kind != KVCL_SKETCH_ORACLE && s.eliminated > most) {
            most = s.eliminated;
            best = i;
        }
    }
    return best;
}

kvcl_status kvcl_frontier_verdict(const kvcl_frontier *f)
{
    for (uint32_t i = 0; i < f->n_specs; i++)
        for (uint32_t r = 0; r < f->n_rules; r++)
            for (uint32_t scan = 0; scan < 2; scan++) {
                const kvcl_frontier_sum s = kvcl_frontier_sum_of(f, i, r, scan);
                const char *name = f->specs[i].name;
                if (!s.is_there)
                    continue;
                KVCL_CHECK(f->app.ctx, s.n_violated == 0 || f->specs[i].kind == KVCL_SKETCH_RANDOM,
                           KVCL_E_DIFFERS,
                           "%s: %llu scores lie outside of their proved bounds; please report this",
                           name, (unsigned long long)s.n_violated);
                KVCL_CHECK(f->app.ctx, s.n_broken == 0, KVCL_E_DIFFERS,
                           "%s, %s: %llu queries lost what the rule promises to keep; please "
                           "report this",
                           name, f->rules[r].name, (unsigned long long)s.n_broken);
            }
    return KVCL_OK;
}
