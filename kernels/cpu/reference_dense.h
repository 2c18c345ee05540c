// Embedding, norm, projections and experts of the reference backend. Contracts: kernels/ops.h.
#pragma once

#include "kernels/cpu/reference_scratch.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

void reference_embed(const EmbedArgs& args, WorkerPool& pool);
void reference_add_rms_norm(const AddRmsNormArgs& args, WorkerPool& pool);
void reference_gather_rows(const GatherRowsArgs& args, WorkerPool& pool);
void reference_linear(const LinearArgs& args, const ReferenceScratch& scratch, WorkerPool& pool);
void reference_mlp(const MlpArgs& args, const ReferenceScratch& scratch, WorkerPool& pool);
void reference_router(const RouterArgs& args, WorkerPool& pool);
void reference_moe(const MoeArgs& args, const ReferenceScratch& scratch, WorkerPool& pool);

}  // namespace augur::cpu
