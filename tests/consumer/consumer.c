// SPDX-License-Identifier: MIT
// A program outside the tree that uses an installed Tern: y = W x with ternary W, exact.
#include <stdio.h>
#include <tern/matmul.h>

int main(void) {
    const int8_t w[2][3] = {{1, 0, -1}, {1, 1, 1}}, x[3] = {5, 7, 9};
    const float scale = 1;
    int32_t y[2] = {0, 0};
    tern_context *ctx = NULL;
    tern_weights *weights = NULL;
    tern_activations *acts = NULL;
    const int failed = tern_context_create(&ctx, NULL) ||
                       tern_weights_from_trits(ctx, &weights, w[0], &scale, 0, 2, 3, 3, NULL) ||
                       tern_activations_create(ctx, &acts, 1, 3) || tern_activations_set_s8(ctx, acts, x, NULL, 1, 3, 3, 0) ||
                       tern_matmul_s32(ctx, weights, acts, y, 2);
    printf("tern %s: %d %d\n", tern_version(), (int)y[0], (int)y[1]);
    tern_activations_destroy(acts);
    tern_weights_destroy(weights);
    tern_context_destroy(ctx);
    return failed || y[0] != -4 || y[1] != 21;
}
