/* Stands in for the library of NVIDIA's driver, as LocalHub does for the Hub: it tells of one GPU.

   So a machine without one has several plans to choose from. Only what nbloader and torch ask is here,
   by https://docs.nvidia.com/deploy/nvml-api/. Torch asks it with PYTORCH_NVML_BASED_CUDA_CHECK=1. */

#include <stdio.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3 };

struct memory { unsigned long long total, free, used; };

static int device;

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlInit(void) { return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { return "not supported"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "580.65.06");
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 13000;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 1;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = &device;
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    snprintf(text, length, "Tesla T4");
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    snprintf(text, length, "GPU-00000000-0000-0000-0000-000000000000");
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    *major = 7;
    *minor = 5;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    memory->total = 16000000000ULL;
    memory->free = 15500000000ULL;
    memory->used = memory->total - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *next) { return NOT_SUPPORTED; }
