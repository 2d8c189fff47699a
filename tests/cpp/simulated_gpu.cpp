// A GPU and a TensorRT in host memory, for tests of examples/cpp/translate_ppm.cpp: what it does with its arguments,
// files, errors and buffers. It shows nothing about the real libraries, and its times are made up.
//
// It is stricter than a GPU where that catches mistakes. Nothing that is queued on a stream happens before somebody
// waits for the stream. The n-th run of the network takes n milliseconds and a copy takes 100, on a clock of its own.
// A frame is gone from the device once the network has run, so every run needs its own upload.
// Breaking a rule (below: `insist`) ends the program with exit code 98; leaving anything allocated, with 99.
//
// A simulated plan is text: "simulated plan", then one line per tensor: NAME uint8|float32|float16 in|out SIZES...
// The image is 255 - frame, and from every number of it the first number of the k-th float input, k times, is taken.
// The environment variable SIMULATE names functions that fail, with CUDA's error code where there is one:
// SIMULATE="cudaMalloc=2 createExecutionContext". "capture" makes the network refuse to be captured.

#include <NvInfer.h>
#include <NvInferPlugin.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Work = std::vector<std::function<void()>>;

std::map<const void*, std::string> alive;       // every handle and what it is
std::map<const char*, std::size_t> allocations;  // begin and size of every buffer
double now = 0;                                  // the simulated clock, in milliseconds
cudaError_t last_error = cudaSuccess;
bool has_plugins = false;

struct AtExit {
    ~AtExit() {
        for (const auto& [handle, kind] : alive) std::fprintf(stderr, "simulated GPU: %s was not freed\n", kind.c_str());
        if (!alive.empty()) std::_Exit(99);
    }
} at_exit;

void insist(bool holds, const char* rule) {
    if (holds) return;
    std::fprintf(stderr, "simulated GPU: %s\n", rule);
    std::_Exit(98);
}

void born(const void* handle, const std::string& kind) {
    alive[handle] = kind;
}

void dead(const void* handle, const char* kind) {
    insist(alive.count(handle) == 1 && alive[handle] == kind, "freed something that is not there");
    alive.erase(handle);
}

// The code with which SIMULATE makes `function` fail, or 0.
int fails(const std::string& function) {
    const char* wanted = std::getenv("SIMULATE");
    std::istringstream words(wanted ? wanted : "");
    for (std::string word; words >> word;) {
        const auto equals = word.find('=');
        if (word.substr(0, equals) == function) return equals == word.npos ? 999 : std::stoi(word.substr(equals + 1));
    }
    return 0;
}

cudaError_t result(const char* function) {
    const int code = fails(function);
    if (code != 0) last_error = static_cast<cudaError_t>(code);
    return static_cast<cudaError_t>(code);
}

bool inside(const void* memory, std::size_t size) {
    const char* at = static_cast<const char*>(memory);
    const auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return false;
    const auto& [begin, length] = *std::prev(next);
    return at + size <= begin + length;
}

}  // namespace

struct CUstream_st {
    Work queue;
    Work* captured = nullptr;
    void add(std::function<void()> work) { (captured ? *captured : queue).push_back(std::move(work)); }
};
struct CUgraph_st {
    Work work;
};
struct CUgraphExec_st {
    Work work;
};
struct CUevent_st {
    double time = -1;
};

namespace {

struct Tensor {
    std::string name;
    nvinfer1::DataType type;
    bool is_input;
    nvinfer1::Dims shape;
    std::size_t bytes;
};

class Context : public nvinfer1::IExecutionContext {
public:
    explicit Context(const std::vector<Tensor>& tensors) : tensors_(tensors) { born(this, "an execution context"); }
    ~Context() noexcept override {
        for (const auto& [name, address] : addresses_) insist(inside(address, 1), "a context outlived its buffers");
        dead(this, "an execution context");
    }
    bool setTensorAddress(const char* name, void* data) noexcept override {
        if (fails("setTensorAddress")) return false;
        addresses_[name] = data;
        return true;
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        if (fails("enqueueV3") || (stream->captured && fails("capture"))) return false;
        for (const Tensor& tensor : tensors_) insist(addresses_.count(tensor.name), "a tensor has no address");
        insist(!stream->captured || enqueued_, "captured without a run before");
        enqueued_ = true;
        stream->add([this] { network(); });
        return true;
    }

private:
    void network() {
        int offset = 0;
        int float_inputs = 0;
        std::uint8_t* frame = nullptr;
        std::size_t frame_bytes = 1;
        for (const Tensor& tensor : tensors_) {
            insist(inside(addresses_[tensor.name], tensor.bytes), "a tensor's buffer is too small");
            if (tensor.is_input && tensor.type == nvinfer1::DataType::kFLOAT) {
                offset += ++float_inputs * static_cast<int>(*static_cast<const float*>(addresses_[tensor.name]));
            } else if (tensor.is_input) {
                frame = static_cast<std::uint8_t*>(addresses_[tensor.name]);
                frame_bytes = tensor.bytes;
            }
        }
        for (const Tensor& tensor : tensors_) {
            auto* image = static_cast<std::uint8_t*>(addresses_[tensor.name]);
            for (std::size_t i = 0; !tensor.is_input && i < tensor.bytes; ++i) {
                image[i] = static_cast<std::uint8_t>(255 - frame[i % frame_bytes] - offset);
            }
        }
        std::memset(frame, 0xAA, frame_bytes);
        now += ++runs_;
    }

    const std::vector<Tensor>& tensors_;
    std::map<std::string, void*> addresses_;
    bool enqueued_ = false;
    int runs_ = 0;
};

class Engine : public nvinfer1::ICudaEngine {
public:
    explicit Engine(std::istream& plan) {
        std::string name, type, direction;
        for (std::string line; std::getline(plan, line);) {
            std::istringstream words(line);
            words >> name >> type >> direction;
            Tensor tensor{name, nvinfer1::DataType::kUINT8, direction == "in", {}, 1};
            if (type == "float32") tensor.type = nvinfer1::DataType::kFLOAT, tensor.bytes = 4;
            if (type == "float16") tensor.type = nvinfer1::DataType::kHALF;
            for (int size; words >> size; ++tensor.shape.nbDims) {
                tensor.shape.d[tensor.shape.nbDims] = size;
                tensor.bytes *= static_cast<std::size_t>(size);
            }
            tensors_.push_back(tensor);
        }
        born(this, "an engine");
    }
    ~Engine() noexcept override {
        for (const auto& [handle, kind] : alive) insist(kind != "an execution context", "an engine died too early");
        dead(this, "an engine");
    }
    std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(tensors_.size()); }
    const char* getIOTensorName(std::int32_t index) const noexcept override {
        return tensors_[static_cast<std::size_t>(index)].name.c_str();
    }
    nvinfer1::Dims getTensorShape(const char* name) const noexcept override { return find(name).shape; }
    nvinfer1::DataType getTensorDataType(const char* name) const noexcept override { return find(name).type; }
    nvinfer1::TensorIOMode getTensorIOMode(const char* name) const noexcept override {
        return find(name).is_input ? nvinfer1::TensorIOMode::kINPUT : nvinfer1::TensorIOMode::kOUTPUT;
    }
    nvinfer1::IExecutionContext* createExecutionContext() noexcept override {
        return fails("createExecutionContext") ? nullptr : new Context(tensors_);
    }

private:
    const Tensor& find(const std::string& name) const {
        for (const Tensor& tensor : tensors_) {
            if (tensor.name == name) return tensor;
        }
        insist(false, "asked for a tensor that is not there");
        std::abort();
    }
    std::vector<Tensor> tensors_;
};

class Runtime : public nvinfer1::IRuntime {
public:
    explicit Runtime(nvinfer1::ILogger& logger) : logger_(logger) { born(this, "a runtime"); }
    ~Runtime() noexcept override {
        for (const auto& [handle, kind] : alive) insist(kind != "an engine", "a runtime died too early");
        dead(this, "a runtime");
    }
    nvinfer1::ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t size) noexcept override {
        insist(has_plugins, "a plan was read before TensorRT's own plugins were there");
        std::istringstream text(std::string(static_cast<const char*>(plan), size));
        std::string first;
        std::getline(text, first);
        if (first == "simulated plan") return new Engine(text);
        logger_.log(nvinfer1::ILogger::Severity::kINFO, "information that nobody asked for");
        logger_.log(nvinfer1::ILogger::Severity::kERROR, "the plan was built by another version");
        return nullptr;
    }

private:
    nvinfer1::ILogger& logger_;
};

template <class T>
cudaError_t create(T** handle, const char* function, const char* kind) {
    if (const cudaError_t error = result(function)) return error;
    *handle = new T;
    born(*handle, kind);
    return cudaSuccess;
}

template <class T>
cudaError_t destroy(T* handle, const char* kind) {
    dead(handle, kind);
    delete handle;
    return cudaSuccess;
}

cudaError_t allocate(void** memory, std::size_t size, const char* function, const char* kind) {
    if (const cudaError_t error = result(function)) return error;
    *memory = std::malloc(size);
    std::memset(*memory, 0xAA, size);
    allocations[static_cast<char*>(*memory)] = size;
    born(*memory, kind);
    return cudaSuccess;
}

cudaError_t release(void* memory, const char* kind) {
    dead(memory, kind);
    allocations.erase(static_cast<char*>(memory));
    std::free(memory);
    return cudaSuccess;
}

}  // namespace

nvinfer1::IRuntime* nvinfer1::createInferRuntime(ILogger& logger) noexcept {
    return fails("createInferRuntime") ? nullptr : new Runtime(logger);
}

extern "C" {

#ifdef EDGETURBO_DIMS_32
std::int32_t getInferLibVersion() noexcept { return 8601; }
#else
std::int32_t getInferLibVersion() noexcept { return 101601; }
#endif

bool initLibNvInferPlugins(void* logger, const char* plugin_namespace) {
    insist(logger != nullptr && plugin_namespace != nullptr, "plugins without a logger");
    has_plugins = !fails("initLibNvInferPlugins");
    return has_plugins;
}

const char* cudaGetErrorString(cudaError_t error) {
    static std::string text;
    text = "simulated error " + std::to_string(static_cast<int>(error));
    return text.c_str();
}
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaSetDevice(int) { return result("cudaSetDevice"); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 7;
    return result("cudaDeviceGetAttribute");
}

cudaError_t cudaMalloc(void** memory, std::size_t size) { return allocate(memory, size, "cudaMalloc", "memory"); }
cudaError_t cudaFree(void* memory) { return release(memory, "memory"); }
cudaError_t cudaMallocHost(void** memory, std::size_t size) {
    return allocate(memory, size, "cudaMallocHost", "pinned memory");
}
cudaError_t cudaFreeHost(void* memory) { return release(memory, "pinned memory"); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
    insist(inside(to, size) && inside(from, size), "a copy leaves its buffers");
    const void* host = kind == cudaMemcpyHostToDevice ? from : to;
    insist(alive[host] == "pinned memory", "a copy goes the wrong way");
    stream->add([=] {
        std::memcpy(to, from, size);
        now += 100;
    });
    return result("cudaMemcpyAsync");
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create(stream, "cudaStreamCreate", "a stream"); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy(stream, "a stream"); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    insist(!stream->captured, "waited for a stream that captures");
    for (const auto& work : stream->queue) work();
    stream->queue.clear();
    return result("cudaStreamSynchronize");
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream->captured = new Work;
    return result("cudaStreamBeginCapture");
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const std::unique_ptr<Work> work(stream->captured);
    stream->captured = nullptr;
    const cudaError_t error = create(graph, "cudaStreamEndCapture", "a graph");
    if (error == cudaSuccess) (*graph)->work = *work;
    return error;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    const cudaError_t error = create(executable, "cudaGraphInstantiateWithFlags", "an executable graph");
    if (error == cudaSuccess) (*executable)->work = graph->work;
    return error;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    for (const auto& work : executable->work) stream->add(work);
    return result("cudaGraphLaunch");
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(graph, "a graph"); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return destroy(executable, "an executable graph"); }

cudaError_t cudaEventCreate(cudaEvent_t* event) { return create(event, "cudaEventCreate", "an event"); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event, "an event"); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    stream->add([event] { event->time = now; });
    return result("cudaEventRecord");
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    insist(begin->time >= 0 && end->time >= 0, "read an event that did not happen");
    *milliseconds = static_cast<float>(end->time - begin->time);
    return result("cudaEventElapsedTime");
}
}
