// The one function of TensorRT's plugin library that examples/cpp/translate_ppm.cpp calls; see NvInfer.h here.
#pragma once

#include <NvInfer.h>

extern "C" bool initLibNvInferPlugins(void* logger, const char* plugin_namespace);
