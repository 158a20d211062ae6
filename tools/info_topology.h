// SPDX-License-Identifier: MIT
// The part of tern info that tells what the machine offers and where the workers of a context run.
#ifndef TERN_TOOLS_INFO_TOPOLOGY_H
#define TERN_TOOLS_INFO_TOPOLOGY_H

#include "cli.h"

json_t *info_topology_json(tern_context *ctx, const tern_topology_info *t);
void info_topology_print(tern_context *ctx, const tern_topology_info *t);

#endif
