// svd.cl - randomised singular value decomposition.  Twin: cpu/svd.c
//
// Several kernels, since PoCL's compiler fails on one with all the barriers; those without barriers
// spread a matrix over the device.  Work is cut into units that a group's items (a multiple of 64)
// take in turn: bits do not depend on the group's size.
//   kvcl_rsvd_scale   group per matrix: scale, bad, the sketch's signs
//   kvcl_rsvd_gram    group per matrix and tile of 64 x 64 sums; local memory 8 KiB
//   kvcl_rsvd_apply   item per matrix and 4 x 4 values of H = G Z
//   kvcl_rsvd_orth    group per matrix: Z from H; local memory 6 KiB
//   kvcl_rsvd_order   item per value: columns to rows, in an order
//   kvcl_rsvd_times   item per matrix and 4 x 4 values of a product with rows
//   kvcl_rsvd_eigen   group per matrix: Jacobi; local memory 2 KiB, with KVCL_SPEC 1 and 32 KiB for
//                     C and W, [ls][ls] with l <= 64, which else are in the matrix's scratch
//   kvcl_rsvd_values  item per matrix and column: signs of V, S, what U's columns are scaled by
//
// A matrix's scratch: `step` floats from scratch + off + matrix * step on; off names the part.  At
// the end of it stand (SVD_META) the scale, the order of the eigenvalues and the columns' factors.

#define SVD_ALL (CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define SVD_ORDER 16
#define SVD_FACTOR (SVD_ORDER + KVCL_SVD_MAX_SKETCH)

#if KVCL_SPEC
#define SVD_SPACE __local
#else
#define SVD_SPACE __global
#endif

typedef struct svd_sizes {
    uint l, np, ls;
} svd_sizes;

static svd_sizes svd_sizes_of(uint cols, uint l)
{
    svd_sizes m = {l, (cols + 15) / 16 * 16, (l + 15) / 16 * 16};
    return m;
}

__kernel void kvcl_rsvd_scale(__global const float *a, ulong a_off, __global const uint *ids,
                              ulong ids_off, __global int *bad, ulong bad_off,
                              __global float *scratch, ulong meta_off, ulong z_off, uint step,
                              uint rows, uint cols, uint l, uint seed_low, uint seed_high)
{
    __local uint most;
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), b = (uint)get_group_id(0);
    svd_sizes m = svd_sizes_of(cols, l);
    __global float *meta = scratch + meta_off + (ulong)b * step;
    __global float *z = scratch + z_off + (ulong)b * step;
    ulong size = (ulong)rows * cols;
    uint bits = 0;
    if (lid == 0)
        most = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    a += a_off + b * size;
    for (ulong i = lid; i < size; i += items)
        bits = max(bits, as_uint(a[i]) & 0x7fffffffu);
    atomic_max(&most, bits);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid == 0) {
        meta[0] = kvcl_svd_scale(most);
        bad[bad_off + b] = most >= KVCL_SVD_BAD_BITS;
    }
    ids += ids_off + 3 * b;
    uint key0 = kvcl_svd_key(seed_low, seed_high, ids[0], ids[1], ids[2], 0);
    uint key1 = kvcl_svd_key(seed_low, seed_high, ids[0], ids[1], ids[2], 1);
    if (lid == 0) {
        meta[1] = as_float(key0);
        meta[2] = as_float(key1);
    }
    for (uint e = lid; e < m.ls * m.np; e += items) {
        uint c = e / m.np, i = kvcl_rest(e, c, m.np);
        z[e] = i < cols && c < l ? kvcl_svd_sign(key0, key1, 0, i, c) : 0.0f;
    }
    for (uint c = lid; c < m.ls; c += items)
        meta[SVD_FACTOR + c] = 1.0f;
}

#define SVD_CHUNK 16 // rows of a tile
#define SVD_TILE 64  // columns of a tile; 4 x 4 sums of 64 x 64 per unit

// Columns at .. at + 63 of rows t .. t + 15 to local memory.
static void svd_load(__global const float *x, uint rows, uint n, uint stride, float scale,
                     float least, uint t, uint at, __local float *tile)
{
    for (uint e = (uint)get_local_id(0); e < SVD_CHUNK * SVD_TILE; e += (uint)get_local_size(0)) {
        uint row = t + e / SVD_TILE, i = at + e % SVD_TILE;
        tile[e] =
            row < rows && i < n ? kvcl_svd_value(x[(ulong)row * stride + i], scale, least) : 0.0f;
    }
}

// g [g_stride][g_stride] = X^T X, zeros beyond [n][n].  scaled: X's values times the scale.
__kernel void kvcl_rsvd_gram(__global const float *x, ulong x_off, ulong x_step, uint x_stride,
                             uint rows, uint n, __global float *scratch, ulong g_off,
                             ulong meta_off, uint step, uint g_stride, uint scaled)
{
    __local float4 pool4[2 * SVD_CHUNK * SVD_TILE / 4];
    __local float *left = (__local float *)pool4, *right = left + SVD_CHUNK * SVD_TILE;
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), b = (uint)get_group_id(1);
    uint tile = (uint)get_group_id(0), i0 = 0, j0 = 0,
         n_tiles = (g_stride + SVD_TILE - 1) / SVD_TILE;
    while (tile >= n_tiles - i0) {
        tile -= n_tiles - i0;
        i0++;
    }
    j0 = (i0 + tile) * SVD_TILE;
    i0 *= SVD_TILE;
    float scale = scaled ? scratch[meta_off + (ulong)b * step] : 1.0f;
    float least = scaled ? KVCL_SVD_LEAST : KVCL_SVD_LEAST_SUM;
    __global float *g = scratch + g_off + (ulong)b * step;
    x += x_off + b * x_step;
    for (uint first = 0; first < 256; first += items) {
        uint unit = (first + lid) % 256, ty = unit / 16 * 4, tx = unit % 16 * 4;
        float4 acc0 = 0.0f, acc1 = 0.0f, acc2 = 0.0f, acc3 = 0.0f;
        for (uint t = 0; t < rows; t += SVD_CHUNK) {
            barrier(CLK_LOCAL_MEM_FENCE);
            svd_load(x, rows, n, x_stride, scale, least, t, i0, left);
            svd_load(x, rows, n, x_stride, scale, least, t, j0, right);
            barrier(CLK_LOCAL_MEM_FENCE);
            uint n_rows = min((uint)SVD_CHUNK, rows - t);
            for (uint r = 0; r < n_rows; r++) {
                float4 y = *(__local float4 *)(right + r * SVD_TILE + tx);
                __local float *row = left + r * SVD_TILE + ty;
                acc0 = fma((float4)(row[0]), y, acc0);
                acc1 = fma((float4)(row[1]), y, acc1);
                acc2 = fma((float4)(row[2]), y, acc2);
                acc3 = fma((float4)(row[3]), y, acc3);
            }
        }
        float sums[16];
        vstore4(acc0, 0, sums);
        vstore4(acc1, 1, sums);
        vstore4(acc2, 2, sums);
        vstore4(acc3, 3, sums);
        for (uint e = 0; e < 16; e++) {
            uint i = i0 + ty + e / 4, j = j0 + tx + e % 4;
            float sum = kvcl_drop(sums[e], KVCL_SVD_LEAST_SUM);
            if (i <= j && j < g_stride) {
                g[i * g_stride + j] = sum;
                g[j * g_stride + i] = sum;
            }
        }
    }
}

// H = G Z
__kernel void kvcl_rsvd_apply(__global float *scratch, ulong g_off, ulong z_off, ulong h_off,
                              uint step, uint cols, uint l)
{
    svd_sizes m = svd_sizes_of(cols, l);
    uint u = (uint)get_global_id(0), across = m.np / 4, j = u / across;
    uint i = kvcl_rest(u, j, across) * 4;
    ulong base = (ulong)get_global_id(1) * step;
    __global const float *g = scratch + g_off + base + i,
                         *z = scratch + z_off + base + 4 * j * m.np;
    __global float *h = scratch + h_off + base + 4 * j * m.np + i;
    if (4 * j >= m.ls)
        return;
    float4 acc0 = 0.0f, acc1 = 0.0f, acc2 = 0.0f, acc3 = 0.0f;
    for (uint r = 0; r < m.np; r++) {
        float4 x = vload4(0, g + r * m.np);
        acc0 = fma((float4)(z[r]), x, acc0);
        acc1 = fma((float4)(z[m.np + r]), x, acc1);
        acc2 = fma((float4)(z[2 * m.np + r]), x, acc2);
        acc3 = fma((float4)(z[3 * m.np + r]), x, acc3);
    }
    float sums[16];
    vstore4(acc0, 0, sums);
    vstore4(acc1, 1, sums);
    vstore4(acc2, 2, sums);
    vstore4(acc3, 3, sums);
    for (uint e = 0; e < 16; e++)
        h[e / 4 * m.np + e % 4] = kvcl_drop(sums[e], KVCL_SVD_LEAST_UNIT);
}

// Local places of making columns orthonormal: lanes of sums, the column, its parts along others.
#define SVD_LANES 0
#define SVD_COLUMN (8 * KVCL_SVD_MAX_SKETCH)
#define SVD_ALONG (SVD_COLUMN + KVCL_SVD_MAX_COLS)

// Z = the columns of H made orthonormal.  One loop, a pass over a column each: passes 0 and 1 of
// the column of H, 2 and 3 of the one that replaces it when need be.  (PoCL's compiler fails on
// barriers in nested loops here.)
__kernel void kvcl_rsvd_orth(__global float *scratch, ulong h_off, ulong z_off, ulong meta_off,
                             uint step, uint cols, uint l, uint round)
{
    __local float4 pool4[(SVD_ALONG + KVCL_SVD_MAX_SKETCH) / 4];
    __local float *lanes = (__local float *)pool4, *z = lanes + SVD_COLUMN,
                  *along = lanes + SVD_ALONG;
    svd_sizes m = svd_sizes_of(cols, l);
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    ulong base = (ulong)get_group_id(0) * step;
    __global const float *h = scratch + h_off + base;
    __global float *all = scratch + z_off + base;
    uint key0 = as_uint(scratch[meta_off + base + 1]), key1 = as_uint(scratch[meta_off + base + 2]);
    uint c = 0, pass = 0; // the same in all items
    float before = 0.0f;
    while (c < l) {
        for (uint i = lid; i < m.np; i += items) {
            if (pass == 0)
                z[i] = h[c * m.np + i];
            if (pass == 2 && i < cols)
                z[i] = kvcl_svd_sign(key0, key1, round, i, c);
        }
        barrier(SVD_ALL);
        for (uint u = lid; u < 8 * c + 8; u += items) {
            float acc = 0.0f;
            for (uint i = u % 8; i < m.np; i += 8)
                acc = fma(u / 8 < c ? all[u / 8 * m.np + i] : z[i], z[i], acc);
            lanes[u] = acc;
        }
        barrier(SVD_ALL);
        for (uint j = lid; j <= c; j += items)
            along[j] = kvcl_tree8(vload8(j, lanes));
        barrier(SVD_ALL);
        before = pass == 0 ? along[c] : before;
        for (uint i = lid; i < m.np; i += items) {
            float x = z[i];
            for (uint j = 0; j < c; j++)
                x = fma(-along[j], all[j * m.np + i], x);
            z[i] = x;
        }
        barrier(SVD_ALL);
        if (lid < 8) {
            float acc = 0.0f;
            for (uint i = lid; i < m.np; i += 8)
                acc = fma(z[i], z[i], acc);
            lanes[lid] = acc;
        }
        barrier(SVD_ALL);
        float after = kvcl_tree8(vload8(0, lanes));
        float inv = after < KVCL_SVD_LEAST_UNIT ? 0.0f : kvcl_rsqrt(after);
        uint dependent = pass == 1 && !(after > KVCL_SVD_LEAST_UNIT * before);
        uint done = pass == 3 || (pass == 1 && !dependent);
        for (uint i = lid; i < m.np && done; i += items)
            all[c * m.np + i] = kvcl_drop(z[i] * inv, KVCL_SVD_LEAST_UNIT);
        c += done;
        pass = done ? 0 : pass + 1;
        barrier(SVD_ALL);
    }
}

// out [n][ls]: column c is row c of in (`ordered`: row order[c]) for c < n_used, else zero.
__kernel void kvcl_rsvd_order(__global float *scratch, ulong in_off, ulong out_off, ulong meta_off,
                              uint step, uint in_stride, uint n, uint ls, uint n_used, uint ordered)
{
    uint e = (uint)get_global_id(0), i = e / ls, c = kvcl_rest(e, i, ls);
    ulong base = (ulong)get_global_id(1) * step;
    if (i >= n)
        return;
    uint from = ordered && c < n_used ? as_uint(scratch[meta_off + base + SVD_ORDER + c]) : c;
    scratch[out_off + base + e] = c < n_used ? scratch[in_off + base + from * in_stride + i] : 0.0f;
}

// out [rows][n_out] = X b * the columns' factors, b [n][b_stride].  scaled: X's values times the
// scale.
__kernel void kvcl_rsvd_times(__global const float *x, ulong x_off, ulong x_step, uint x_stride,
                              uint rows, uint n, __global const float *scratch, ulong b_off,
                              ulong meta_off, uint step, uint b_stride, uint scaled, float x_least,
                              float least, __global float *out, ulong out_off, ulong out_step,
                              uint out_stride, uint n_out)
{
    uint u = (uint)get_global_id(0), across = (n_out + 3) / 4, t = u / across;
    uint c = kvcl_rest(u, t, across) * 4;
    ulong matrix = get_global_id(1), row[4];
    __global const float *meta = scratch + meta_off + matrix * step;
    __global const float *b = scratch + b_off + matrix * step + c;
    float4 acc0 = 0.0f, acc1 = 0.0f, acc2 = 0.0f, acc3 = 0.0f;
    float scale = scaled ? meta[0] : 1.0f;
    t *= 4;
    if (t >= rows)
        return;
    x += x_off + matrix * x_step;
    for (uint k = 0; k < 4; k++)
        row[k] = (ulong)min(t + k, rows - 1) * x_stride;
    for (uint i = 0; i < n; i++) {
        float4 y = vload4(0, b + i * b_stride);
        acc0 = fma((float4)(kvcl_svd_value(x[row[0] + i], scale, x_least)), y, acc0);
        acc1 = fma((float4)(kvcl_svd_value(x[row[1] + i], scale, x_least)), y, acc1);
        acc2 = fma((float4)(kvcl_svd_value(x[row[2] + i], scale, x_least)), y, acc2);
        acc3 = fma((float4)(kvcl_svd_value(x[row[3] + i], scale, x_least)), y, acc3);
    }
    float sums[16];
    vstore4(acc0, 0, sums);
    vstore4(acc1, 1, sums);
    vstore4(acc2, 2, sums);
    vstore4(acc3, 3, sums);
    out += out_off + matrix * out_step;
    for (uint e = 0; e < 16; e++)
        if (t + e / 4 < rows && c + e % 4 < n_out)
            out[(ulong)(t + e / 4) * out_stride + c + e % 4] =
                kvcl_zero(kvcl_drop(sums[e], least) * meta[SVD_FACTOR + c + e % 4]);
}

// Local places of Jacobi's rounds, by pair: rotations, new diagonal.
#define SVD_PAIRS (KVCL_SVD_MAX_SKETCH / 2)
#define SVD_T 0
#define SVD_S SVD_PAIRS
#define SVD_TAU (2 * SVD_PAIRS)
#define SVD_NEW_P (3 * SVD_PAIRS)
#define SVD_NEW_Q (4 * SVD_PAIRS)

static kvcl_rotation svd_rotation_of(__local const float *pool, uint pair)
{
    kvcl_rotation r = {pool[SVD_T + pair], pool[SVD_S + pair], pool[SVD_TAU + pair]};
    return r;
}

static void svd_angles(svd_sizes m, uint players, uint round, SVD_SPACE const float *c,
                       __local float *pool, __local uint *pairs)
{
    for (uint i = (uint)get_local_id(0); i < players / 2; i += (uint)get_local_size(0)) {
        uint a = kvcl_svd_player(players, round, i, 0), b = kvcl_svd_player(players, round, i, 1);
        uint p = min(a, b), q = max(a, b);
        float pp = c[p * m.ls + p], qq = c[q * m.ls + q], pq = c[p * m.ls + q];
        kvcl_rotation r = kvcl_svd_rotation(pp, qq, pq);
        pairs[2 * i] = p; // (no vector: Oclgrind takes its making for an uninitialised one)
        pairs[2 * i + 1] = q;
        pool[SVD_T + i] = r.t;
        pool[SVD_S + i] = r.s;
        pool[SVD_TAU + i] = r.tau;
        pool[SVD_NEW_P + i] = kvcl_drop(fma(-r.t, pq, pp), KVCL_SVD_LEAST_SUM);
        pool[SVD_NEW_Q + i] = kvcl_drop(fma(r.t, pq, qq), KVCL_SVD_LEAST_SUM);
    }
    barrier(SVD_ALL);
}

// What the rows of pair a, columns of pair b become: block [2][2], turned and transposed.
static void svd_turn_block(kvcl_rotation a, kvcl_rotation b, float *x)
{
    float m00 = kvcl_svd_turn_p(a, x[0], x[2]), m01 = kvcl_svd_turn_p(a, x[1], x[3]);
    float m10 = kvcl_svd_turn_q(a, x[0], x[2]), m11 = kvcl_svd_turn_q(a, x[1], x[3]);
    x[0] = kvcl_svd_turn_p(b, m00, m01);
    x[1] = kvcl_svd_turn_p(b, m10, m11);
    x[2] = kvcl_svd_turn_q(b, m00, m01);
    x[3] = kvcl_svd_turn_q(b, m10, m11);
}

// C's blocks of pairs (a, b) and (b, a) by one unit, so that it happens in place.
static void svd_turn_pair(svd_sizes m, uint a, uint b, SVD_SPACE float *c,
                          __local const float *pool, __local const uint *pairs)
{
    uint p = pairs[2 * a], q = pairs[2 * a + 1], r = pairs[2 * b], s = pairs[2 * b + 1];
    uint ap = p * m.ls, aq = q * m.ls, bp = r * m.ls, bq = s * m.ls;
    if (a == b) {
        c[ap + p] = pool[SVD_NEW_P + a];
        c[aq + q] = pool[SVD_NEW_Q + a];
        c[ap + q] = 0.0f;
        c[aq + p] = 0.0f;
        return;
    }
    kvcl_rotation ra = svd_rotation_of(pool, a), rb = svd_rotation_of(pool, b);
    float x[4] = {c[ap + r], c[ap + s], c[aq + r], c[aq + s]};
    float y[4] = {c[bp + p], c[bp + q], c[bq + p], c[bq + q]};
    svd_turn_block(ra, rb, x);
    svd_turn_block(rb, ra, y);
    c[bp + p] = x[0];
    c[bp + q] = x[1];
    c[bq + p] = x[2];
    c[bq + q] = x[3];
    c[ap + r] = y[0];
    c[ap + s] = y[1];
    c[aq + r] = y[2];
    c[aq + s] = y[3];
}

static void svd_turn(svd_sizes m, uint n_pairs, SVD_SPACE float *c, SVD_SPACE float *w,
                     __local const float *pool, __local const uint *pairs)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), wide = n_pairs + 1;
    // rows a and n_pairs - 1 - a of the triangle a <= b make one of n_pairs + 1 units
    for (uint u = lid; u < (n_pairs + 1) / 2 * wide; u += items) {
        uint a = u / wide, k = kvcl_rest(u, a, wide);
        if (k < n_pairs - a)
            svd_turn_pair(m, a, a + k, c, pool, pairs);
        else if (a != n_pairs - 1 - a)
            svd_turn_pair(m, n_pairs - 1 - a, k - 1, c, pool, pairs);
    }
    for (uint u = lid; u < n_pairs * m.ls; u += items) {
        uint a = u / m.ls, j = kvcl_rest(u, a, m.ls);
        kvcl_rotation r = svd_rotation_of(pool, a);
        uint p = pairs[2 * a] * m.ls + j, q = pairs[2 * a + 1] * m.ls + j;
        float x = w[p], y = w[q];
        w[p] = kvcl_svd_turn_p(r, x, y);
        w[q] = kvcl_svd_turn_q(r, x, y);
    }
    barrier(SVD_ALL);
}

// Eigenvalues of C on its diagonal, their vectors in W's rows; the order.
__kernel void kvcl_rsvd_eigen(__global float *scratch, ulong c_off, ulong w_off, ulong meta_off,
                              uint step, uint cols, uint l)
{
    __local float4 pool4[5 * SVD_PAIRS / 4];
    __local uint pairs[2 * SVD_PAIRS];
    __local float *pool = (__local float *)pool4;
    svd_sizes m = svd_sizes_of(cols, l);
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), players = (l + 1) / 2 * 2;
    ulong base = (ulong)get_group_id(0) * step;
    __global float *c_all = scratch + c_off + base, *w_all = scratch + w_off + base;
#if KVCL_SPEC
    __local float c[64 * 64], w[64 * 64];
#else
    __global float *c = c_all, *w = w_all;
#endif
    for (uint e = lid; e < m.ls * m.ls; e += items) {
        w[e] = e / m.ls == kvcl_rest(e, e / m.ls, m.ls) ? 1.0f : 0.0f;
        c[e] = c_all[e];
    }
    barrier(SVD_ALL);
    for (uint sweep = 0; sweep < KVCL_SVD_SWEEPS; sweep++)
        for (uint round = 0; round < players - 1; round++) {
            svd_angles(m, players, round, c, pool, pairs);
            svd_turn(m, players / 2, c, w, pool, pairs);
        }
    for (uint i = lid; i < l; i += items) {
        uint at = 0;
        float e = c[i * m.ls + i];
        for (uint j = 0; j < l; j++) {
            float other = c[j * m.ls + j];
            at += other > e || (other == e && j < i) ? 1 : 0;
        }
        scratch[meta_off + base + SVD_ORDER + at] = as_float(i);
    }
    for (uint e = lid; e < m.ls * m.ls; e += items) {
        w_all[e] = w[e];
        c_all[e] = c[e];
    }
}

// The sign of a column of V, its singular value, the factor of U's column.
__kernel void kvcl_rsvd_values(__global float *scratch, ulong c_off, ulong meta_off, uint step,
                               __global float *s, ulong s_off, __global float *v, ulong v_off,
                               uint cols, uint rank, uint ls)
{
    uint k = (uint)get_global_id(0), b = (uint)get_global_id(1);
    if (k >= rank)
        return;
    __global const float *c = scratch + c_off + (ulong)b * step;
    __global float *meta = scratch + meta_off + (ulong)b * step;
    float most = 0.0f, at_most = 0.0f;
    v += v_off + (ulong)b * cols * rank + k;
    for (uint i = 0; i < cols; i++) {
        float x = v[i * rank], size = x < 0.0f ? -x : x;
        at_most = size > most ? x : at_most;
        most = size > most ? size : most;
    }
    float sign = at_most < 0.0f ? -1.0f : 1.0f;
    for (uint i = 0; i < cols; i++)
        v[i * rank] = kvcl_zero(v[i * rank] * sign);
    uint order0 = as_uint(meta[SVD_ORDER]), order = as_uint(meta[SVD_ORDER + k]);
    float first = c[order0 * ls + order0], e = c[order * ls + order];
    float inv = e > KVCL_SVD_LEAST_UNIT * first ? kvcl_rsqrt(e) : 0.0f;
    s[s_off + (ulong)b * rank + k] = kvcl_zero((e * inv) * kvcl_svd_unscale(meta[0]));
    meta[SVD_FACTOR + k] = sign * inv;
}
