// One picture through an edgeturbo plan, with TensorRT and the CUDA runtime alone.
//
//     translate_ppm engine.plan in.ppm out.ppm [--time N] [--noise noise.bin]
//
// For TensorRT 8.6 to 11 on Linux. A plan runs on the TensorRT version and the kind of GPU it was built with, no other.
// The frame is a binary PPM (P6, 8 bits) of exactly the plan's size; a plan that takes camera bytes (NV12, YUYV, RGBA)
// gets them as a raw file, and gives its image as one if that is not RGB. --noise holds the plan's float32 inputs, one
// after the other as the plan lists them. --time runs N times more and prints one line of JSON: engine_ms is the GPU's
// own time for the network (CUDA events), frame_ms is from pixels in pinned host memory to the image there.
//
// Exit codes: 0 done, 2 wrong use, 3 bad input file, 4 no NVIDIA driver or GPU, 6 device or disk error.

#include <NvInfer.h>
#include <NvInferPlugin.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<char>;

enum Exit : int { kDone = 0, kBug = 1, kWrongUse = 2, kBadInput = 3, kMissing = 4, kDeviceError = 6 };

struct Failure : std::runtime_error {
    Failure(Exit exit, const std::string& what) : std::runtime_error(what), code(exit) {}
    Exit code;
};

void check_cuda(cudaError_t status, const char* where) {
    if (status == cudaSuccess) return;
    const bool missing = status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver;
    throw Failure(missing ? kMissing : kDeviceError, std::string(where) + ": " + cudaGetErrorString(status));
}

template <class Result>
Result check_tensorrt(Result result, Exit code, const char* where) {
    if (!result) throw Failure(code, std::string(where) + " failed; TensorRT's messages say why");
    return result;
}

#define AS_TEXT(line) #line
#define WHERE(call, line) __FILE__ ":" AS_TEXT(line) ": " #call
#define CUDA(call) check_cuda(call, WHERE(call, __LINE__))
#define TRT(code, call) check_tensorrt(call, code, WHERE(call, __LINE__))

// TensorRT says why something failed through its logger alone.
class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", message);
    }
};

// Whatever is made is freed, in the reverse order of its making.
template <auto Free>
struct FreedBy {
    template <class T>
    void operator()(T* handle) const noexcept {
        static_cast<void>(Free(handle));  // nothing can be done about an error here
    }
};

using DeviceBuffer = std::unique_ptr<void, FreedBy<cudaFree>>;
using PinnedBuffer = std::unique_ptr<void, FreedBy<cudaFreeHost>>;
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, FreedBy<cudaStreamDestroy>>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, FreedBy<cudaEventDestroy>>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, FreedBy<cudaGraphDestroy>>;
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, FreedBy<cudaGraphExecDestroy>>;

template <class Owner, class Make>
Owner made(Make make) {
    typename Owner::pointer handle{};
    make(&handle);
    return Owner(handle);
}

Bytes read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    if (size < 0 || fs::is_directory(path)) throw Failure(kBadInput, "cannot read " + path);
    Bytes bytes(static_cast<std::size_t>(size));
    if (!file.seekg(0).read(bytes.data(), size)) throw Failure(kBadInput, "cannot read " + path + " to its end");
    return bytes;
}

// A reader never sees half a file: it is written beside its place and renamed.
void write_file(const std::string& path, const std::string& header, const void* data, std::size_t size) {
    const std::string part = path + ".part";
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    file << header;
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
    file.close();
    std::error_code error;
    if (file) fs::rename(part, path, error);
    if (file && !error) return;
    std::error_code ignored;
    fs::remove(part, ignored);
    throw Failure(kDeviceError, "cannot write " + path + (error ? ": " + error.message() : ""));
}

// The pixels of a binary PPM: 8-bit RGB, row by row. https://netpbm.sourceforge.net/doc/ppm.html
Bytes read_ppm(const std::string& path, std::int64_t width, std::int64_t height) {
    const Bytes bytes = read_file(path);
    std::istringstream header(std::string(bytes.data(), std::min<std::size_t>(bytes.size(), 4096)));
    std::string magic;
    std::int64_t sizes[3] = {};  // width, height, the largest value
    header >> magic;
    for (auto& size : sizes) {
        while ((header >> std::ws).peek() == '#') header.ignore(4096, '\n');
        header >> size;
    }
    const auto pixels = static_cast<std::size_t>(header.tellg()) + 1;  // one white space ends the header
    if (!header || magic != "P6" || sizes[2] != 255) {
        throw Failure(kBadInput, path + " is not a binary PPM (P6) of 8 bits; make one: magick frame.png frame.ppm");
    }
    if (sizes[0] != width || sizes[1] != height) {
        throw Failure(kBadInput, path + " is " + std::to_string(sizes[0]) + "x" + std::to_string(sizes[1]) +
                                     ", the plan takes " + std::to_string(width) + "x" + std::to_string(height) +
                                     ": resize it, or export with --frame for the camera's own size");
    }
    if (bytes.size() != pixels + static_cast<std::size_t>(width * height) * 3) {
        throw Failure(kBadInput, path + " has " + std::to_string(bytes.size()) + " bytes, its header asks for " +
                                     std::to_string(pixels + static_cast<std::size_t>(width * height) * 3));
    }
    return Bytes(bytes.begin() + static_cast<std::ptrdiff_t>(pixels), bytes.end());
}

// A tensor at the plan's border, with its buffers on both sides.
struct Port {
    std::string name;
    nvinfer1::Dims shape;
    nvinfer1::DataType type;
    bool is_input;
    std::size_t bytes;
    PinnedBuffer host;
    DeviceBuffer device;

    bool is_rgb_picture() const { return shape.nbDims == 4 && shape.d[0] == 1 && shape.d[3] == 3; }
    std::string text() const {
        std::string sizes;
        for (int i = 0; i < shape.nbDims; ++i) sizes += (i ? "," : "") + std::to_string(shape.d[i]);
        return name + " [" + sizes + "]";
    }
};

Port make_port(const nvinfer1::ICudaEngine& engine, const char* name) {
    Port port{name, engine.getTensorShape(name), engine.getTensorDataType(name),
              engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT, 0, nullptr, nullptr};
    if (port.type != nvinfer1::DataType::kUINT8 && port.type != nvinfer1::DataType::kFLOAT) {
        throw Failure(kBadInput, "the plan's tensor " + port.text() + " is neither uint8 nor float32");
    }
    port.bytes = port.type == nvinfer1::DataType::kFLOAT ? sizeof(float) : 1;
    for (int i = 0; i < port.shape.nbDims; ++i) {
        if (port.shape.d[i] < 1) throw Failure(kBadInput, "the plan's tensor " + port.text() + " has no fixed shape");
        port.bytes *= static_cast<std::size_t>(port.shape.d[i]);
    }
    port.host = made<PinnedBuffer>([&](void** memory) { CUDA(cudaMallocHost(memory, port.bytes)); });
    port.device = made<DeviceBuffer>([&](void** memory) { CUDA(cudaMalloc(memory, port.bytes)); });
    return port;
}

struct Milliseconds {
    double engine, frame;
};

class Translator {
public:
    explicit Translator(const std::string& plan);

    Port* frame = nullptr;
    Port* image = nullptr;
    std::vector<Port*> noise;  // the float32 inputs, as the plan lists them

    void upload(const Port& port);
    // Runs once, as TensorRT asks before a capture, then captures. Says why not if there is no CUDA graph.
    std::string warm_up();
    bool has_graph() const { return graph_ != nullptr; }
    // Frame up, network, image down; returns when the image is in host memory.
    Milliseconds run();

private:
    void add_port(const char* name);
    void enqueue() { TRT(kDeviceError, context_->enqueueV3(stream_.get())); }

    // Freed from the bottom up: the graph and the context go before the buffers that they point to.
    Logger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::deque<Port> ports_;
    Stream stream_;
    Event begin_, end_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    GraphExec graph_;
};

Translator::Translator(const std::string& plan) {
    const Bytes bytes = read_file(plan);
    CUDA(cudaSetDevice(0));
    // Plans of TensorRT 8.6 and 10 may hold layers that are plugins of TensorRT's own (InstanceNormalization is one).
    TRT(kDeviceError, initLibNvInferPlugins(&logger_, ""));
    runtime_.reset(TRT(kDeviceError, nvinfer1::createInferRuntime(logger_)));
    engine_.reset(TRT(kBadInput, runtime_->deserializeCudaEngine(bytes.data(), bytes.size())));
    context_.reset(TRT(kDeviceError, engine_->createExecutionContext()));
    stream_ = made<Stream>([](cudaStream_t* stream) { CUDA(cudaStreamCreate(stream)); });
    begin_ = made<Event>([](cudaEvent_t* event) { CUDA(cudaEventCreate(event)); });
    end_ = made<Event>([](cudaEvent_t* event) { CUDA(cudaEventCreate(event)); });
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) add_port(engine_->getIOTensorName(i));
    if (frame && image) return;
    throw Failure(kBadInput, plan + " lacks what edgeturbo's plans have: uint8 'frame' in, uint8 'image' out");
}

void Translator::add_port(const char* name) {
    Port& port = ports_.emplace_back(make_port(*engine_, name));
    TRT(kDeviceError, context_->setTensorAddress(name, port.device.get()));
    const bool is_bytes = port.type == nvinfer1::DataType::kUINT8;
    if (port.is_input && is_bytes && port.name == "frame") frame = &port;
    else if (!port.is_input && is_bytes && port.name == "image") image = &port;
    else if (port.is_input && !is_bytes) noise.push_back(&port);
    else throw Failure(kBadInput, "this program does not know what the plan's tensor " + port.text() + " is for");
}

void Translator::upload(const Port& port) {
    CUDA(cudaMemcpyAsync(port.device.get(), port.host.get(), port.bytes, cudaMemcpyHostToDevice, stream_.get()));
}

std::string Translator::warm_up() {
    upload(*frame);
    enqueue();
    CUDA(cudaStreamSynchronize(stream_.get()));
    CUDA(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal));
    const bool enqueued = context_->enqueueV3(stream_.get());
    cudaGraph_t captured = nullptr;
    cudaError_t status = cudaStreamEndCapture(stream_.get(), &captured);
    const Graph graph(captured);
    cudaGraphExec_t executable = nullptr;
    if (enqueued && status == cudaSuccess) status = cudaGraphInstantiateWithFlags(&executable, captured, 0);
    graph_.reset(executable);
    static_cast<void>(cudaGetLastError());  // a failed capture is told once, here
    if (graph_) return "";
    return enqueued ? cudaGetErrorString(status) : "the network cannot be captured";
}

Milliseconds Translator::run() {
    const auto begin = std::chrono::steady_clock::now();
    upload(*frame);
    CUDA(cudaEventRecord(begin_.get(), stream_.get()));
    if (graph_) CUDA(cudaGraphLaunch(graph_.get(), stream_.get()));
    else enqueue();
    CUDA(cudaEventRecord(end_.get(), stream_.get()));
    CUDA(cudaMemcpyAsync(image->host.get(), image->device.get(), image->bytes, cudaMemcpyDeviceToHost, stream_.get()));
    CUDA(cudaStreamSynchronize(stream_.get()));
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
    float engine = 0;
    CUDA(cudaEventElapsedTime(&engine, begin_.get(), end_.get()));
    return {engine, taken.count()};
}

struct Options {
    std::string plan, in, out, noise;
    int runs = 0;
};

int parse_runs(const std::string& text) {
    int runs = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), runs);
    if (error == std::errc() && *stop == '\0' && runs > 0) return runs;
    throw Failure(kWrongUse, "--time takes a number of runs from 1 on, got '" + text + "'");
}

Options parse(int argc, char** argv) {
    const std::string usage = "usage: translate_ppm engine.plan in.ppm out.ppm [--time N] [--noise noise.bin]";
    Options options;
    std::vector<std::string> files;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        const bool has_value = i + 1 < argc;
        if (argument == "--noise" && has_value) options.noise = argv[++i];
        else if (argument == "--time" && has_value) options.runs = parse_runs(argv[++i]);
        else if (argument.rfind("--", 0) != 0) files.push_back(argument);
        else throw Failure(kWrongUse, "no such option, or one without its value: " + argument + "\n" + usage);
    }
    if (files.size() != 3) throw Failure(kWrongUse, usage);
    options.plan = files[0];
    options.in = files[1];
    options.out = files[2];
    return options;
}

Bytes read_raw(const std::string& path, std::size_t expected, const std::string& what) {
    Bytes bytes = read_file(path);
    if (bytes.size() == expected) return bytes;
    throw Failure(kBadInput, path + " has " + std::to_string(bytes.size()) + " bytes, the plan's " + what + " takes " +
                                 std::to_string(expected));
}

void load_noise(Translator& translator, const std::string& path) {
    std::size_t expected = 0;
    std::string names;
    for (const Port* port : translator.noise) {
        expected += port->bytes;
        names += " " + port->text();
    }
    if (path.empty() && expected == 0) return;
    if (path.empty()) throw Failure(kWrongUse, "this plan takes noise: --noise FILE of float32 for" + names);
    if (expected == 0) throw Failure(kWrongUse, "this plan takes no noise: leave out --noise");
    const Bytes bytes = read_raw(path, expected, "noise");
    const char* next = bytes.data();
    for (const Port* port : translator.noise) {
        std::memcpy(port->host.get(), next, port->bytes);
        translator.upload(*port);
        next += port->bytes;
    }
}

void load_frame(const Port& frame, const std::string& path) {
    const auto* sizes = frame.shape.d;
    const Bytes bytes = frame.is_rgb_picture() ? read_ppm(path, sizes[2], sizes[1])
                                               : read_raw(path, frame.bytes, frame.text());
    std::memcpy(frame.host.get(), bytes.data(), frame.bytes);
}

void save_image(const Port& image, const std::string& path) {
    const auto* sizes = image.shape.d;
    const std::string header = "P6\n" + std::to_string(sizes[2]) + " " + std::to_string(sizes[1]) + "\n255\n";
    write_file(path, image.is_rgb_picture() ? header : "", image.host.get(), image.bytes);
}

// Between the two nearest runs, as numpy.percentile reckons.
std::string percentiles(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const auto at = [&values](double percent) {
        const double position = percent / 100 * static_cast<double>(values.size() - 1);
        const auto below = static_cast<std::size_t>(position);
        const double above = values[std::min(below + 1, values.size() - 1)];
        return values[below] + (position - static_cast<double>(below)) * (above - values[below]);
    };
    char text[96];
    std::snprintf(text, sizeof text, "{\"p50\": %.3f, \"p95\": %.3f, \"p99\": %.3f}", at(50), at(95), at(99));
    return text;
}

// 8.6.1 says 8601, 10.3.0 says 100300.
std::string tensorrt_version() {
    const int number = getInferLibVersion();
    const int scale = number < 100000 ? 1000 : 10000;
    return std::to_string(number / scale) + "." + std::to_string(number % scale / 100) + "." +
           std::to_string(number % 100);
}

std::string compute_capability() {
    int major = 0;
    int minor = 0;
    CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    return "sm_" + std::to_string(major) + std::to_string(minor);
}

void time_runs(Translator& translator, int runs) {
    std::vector<double> engine;
    std::vector<double> frame;
    for (int i = 0; i < runs; ++i) {
        const Milliseconds taken = translator.run();
        engine.push_back(taken.engine);
        frame.push_back(taken.frame);
    }
    std::cout << "{\"tensorrt\": \"" << tensorrt_version() << "\", \"device\": \"" << compute_capability()
              << "\", \"cuda_graph\": " << (translator.has_graph() ? "true" : "false") << ", \"runs\": " << runs
              << ", \"engine_ms\": " << percentiles(engine) << ", \"frame_ms\": " << percentiles(frame) << "}\n";
}

void translate(const Options& options) {
    Translator translator(options.plan);
    load_frame(*translator.frame, options.in);
    load_noise(translator, options.noise);
    const std::string no_graph = translator.warm_up();
    if (!no_graph.empty()) std::cerr << "translate_ppm: runs without a CUDA graph: " << no_graph << "\n";
    translator.run();
    save_image(*translator.image, options.out);
    if (options.runs > 0) time_runs(translator, options.runs);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        translate(parse(argc, argv));
        return kDone;
    } catch (const Failure& failure) {
        std::cerr << "translate_ppm: " << failure.what() << "\n";
        return failure.code;
    } catch (const std::exception& error) {
        std::cerr << "translate_ppm: " << error.what() << "\n";
        return kBug;
    }
}
