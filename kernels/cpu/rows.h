// Operations that only move rows.
#pragma once

#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// See EmbedArgs; the table is in the layout of tile_layout.h.
void embed(const EmbedArgs& args, WorkerPool& pool);

/// See GatherRowsArgs.
void gather_rows(const GatherRowsArgs& args, WorkerPool& pool);

}  // namespace augur::cpu
