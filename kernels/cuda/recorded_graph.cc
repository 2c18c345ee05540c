#include "kernels/cuda/recorded_graph.h"

#include "kernels/cuda/handles.h"

namespace augur::cuda {
namespace {

class RecordedGraph final : public RecordedOps {
 public:
  RecordedGraph(GraphExec exec, cudaStream_t stream) : exec_(std::move(exec)), stream_(stream) {}
  void run() override { AUGUR_CUDA(cudaGraphLaunch(exec_.get(), stream_)); }

 private:
  GraphExec exec_;
  cudaStream_t stream_;
};

// Ends a capture that an exception cut short, so that the stream can be used again.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    AUGUR_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  }
  ~Capture() {
    if (is_ended_) return;
    cudaGraph_t graph = nullptr;
    (void)cudaStreamEndCapture(stream_, &graph);
    const Graph dropped(graph);
  }
  Graph end() {
    is_ended_ = true;
    cudaGraph_t graph = nullptr;
    AUGUR_CUDA(cudaStreamEndCapture(stream_, &graph));
    return Graph(graph);
  }

 private:
  cudaStream_t stream_;
  bool is_ended_ = false;
};

}  // namespace

std::unique_ptr<RecordedOps> record_graph(const std::function<void()>& operations,
                                          cudaStream_t stream) {
  Capture capture(stream);
  operations();
  const Graph graph = capture.end();
  cudaGraphExec_t exec = nullptr;
  AUGUR_CUDA(cudaGraphInstantiate(&exec, graph.get(), 0));
  GraphExec owned(exec);
  AUGUR_CUDA(cudaGraphUpload(exec, stream));  // so that the first run is as quick as the others
  return std::make_unique<RecordedGraph>(std::move(owned), stream);
}

}  // namespace augur::cuda
