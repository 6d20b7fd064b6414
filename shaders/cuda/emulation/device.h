// Stands for include/device.cuh where the processor runs the kernels: what CUDA has beyond C++, and a scheduler that runs
// the invocations of one workgroup in lock-step. EXPORT_KERNEL, at the end of the source, is the way in from the host.
//
// An invocation runs until it waits for its subgroup (every shuffle does) or its workgroup. Odd workgroups run theirs
// backwards, so that a missing barrier shows, and each finds its workgroup memory filled with NaN. Where some wait for ever,
// as others wait elsewhere or have returned, the launch fails: such a barrier stands in divergent control flow.
#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>
#include <vector>

typedef unsigned int u32;
typedef unsigned short u16;

#define __device__ static
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static __attribute__((section("workgroup_memory")))
#define SHARED_MEMORY(name) __shared__ __align__(16) unsigned char name[SHARED_BYTES]

struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(8) uint2 { u32 x, y; };
struct __align__(16) uint4 { u32 x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

static struct { u32 x, y; } blockIdx, threadIdx;

constexpr u32 SUBGROUP = 32u;
constexpr u32 ALL_LANES = 0xffffffffu;

// ------------------------------------------------------------------------------------------------------------ invocations

namespace emulation {

enum class Wait { Nothing, Subgroup, Workgroup, End };

struct Copy { void* to; const void* from; u32 group; };

struct Invocation {
    Wait waits = Wait::End;
    bool started = false;
    u32 phase = 0; // of its shuffles
    std::vector<Copy> copies; // under way
    u32 groups = 0;           // of copies, closed so far
    jmp_buf position;
    ucontext_t start;
    std::vector<char> stack;
};

constexpr size_t STACK_BYTES = 128 << 10;
static std::vector<Invocation> invocations;
static u32 current;
static jmp_buf scheduler;
static ucontext_t unused;
static void (*body)(void* const*);
static void* const* arguments;
// What the lanes of a subgroup show each other, in two phases: nobody comes to the one after next before all have read.
static u32 shown[2][1024];

static void wait(Wait what) {
    Invocation& self = invocations[current];
    self.waits = what;
    if (_setjmp(self.position) == 0) _longjmp(scheduler, 1);
}

static void run_for_ever() {
    for (;;) {
        Invocation& self = invocations[current];
        self.copies.clear();
        self.groups = 0;
        body(arguments);
        wait(Wait::End);
    }
}

static void resume(u32 index) {
    Invocation& invocation = invocations[index];
    current = index;
    threadIdx.x = index;
    invocation.waits = Wait::Nothing;
    if (_setjmp(scheduler) != 0) return;
    if (invocation.started) _longjmp(invocation.position, 1);
    invocation.started = true;
    setcontext(&invocation.start);
}

static void make_invocations(u32 count) {
    invocations.resize(count);
    for (Invocation& invocation : invocations) {
        invocation.stack.resize(STACK_BYTES);
        getcontext(&invocation.start);
        invocation.start.uc_stack.ss_sp = invocation.stack.data();
        invocation.start.uc_stack.ss_size = STACK_BYTES;
        invocation.start.uc_link = &unused;
        makecontext(&invocation.start, run_for_ever, 0);
    }
}

static bool all(u32 begin, u32 end, Wait what) {
    for (u32 i = begin; i < end; i++) {
        if (invocations[i].waits != what) return false;
    }
    return true;
}

static void resume_all(u32 begin, u32 end, bool backwards) {
    for (u32 i = 0; i < end - begin; i++) resume(backwards ? end - 1 - i : begin + i);
}

// Runs one workgroup; false where it does not come to its end.
static bool run_workgroup(bool backwards) {
    const u32 count = (u32)invocations.size();
    resume_all(0, count, backwards);
    for (;;) {
        for (u32 begin = 0; begin < count; begin += SUBGROUP) {
            const u32 end = begin + SUBGROUP < count ? begin + SUBGROUP : count;
            while (all(begin, end, Wait::Subgroup)) resume_all(begin, end, backwards);
        }
        if (all(0, count, Wait::End)) return true;
        // Subgroups may end early where the others meet at no barrier; all that is left must wait for the workgroup.
        if (!all(0, count, Wait::Workgroup)) return false;
        resume_all(0, count, backwards);
    }
}

} // namespace emulation

static inline void __syncthreads() { emulation::wait(emulation::Wait::Workgroup); }
static inline void __syncwarp() { emulation::wait(emulation::Wait::Subgroup); }

template <class T> static inline T shuffle(T value, u32 from) {
    static_assert(sizeof(T) == 4, "shuffles are of words");
    u32* shown = emulation::shown[emulation::invocations[threadIdx.x].phase ^= 1u];
    memcpy(&shown[threadIdx.x], &value, 4);
    emulation::wait(emulation::Wait::Subgroup);
    memcpy(&value, &shown[from], 4);
    return value;
}
template <class T> static inline T __shfl_xor_sync(u32, T value, u32 mask) { return shuffle(value, threadIdx.x ^ mask); }
template <class T> static inline T __shfl_sync(u32, T value, u32 lane) {
    return shuffle(value, threadIdx.x / SUBGROUP * SUBGROUP + lane);
}

// A copy may be done as soon as it is asked for, or as late as it is waited for: odd workgroups see the one, even ones the
// other.
static inline void copy_async(void* to, const void* from) {
    emulation::Invocation& self = emulation::invocations[threadIdx.x];
    if ((blockIdx.x + blockIdx.y) % 2u == 1u) memcpy(to, from, 16);
    else self.copies.push_back({to, from, self.groups});
}
static inline void close_copies() { emulation::invocations[threadIdx.x].groups++; }
template <u32 NEWEST> static inline void wait_for_copies() {
    emulation::Invocation& self = emulation::invocations[threadIdx.x];
    std::vector<emulation::Copy> later;
    for (const emulation::Copy& copy : self.copies) {
        if (copy.group + NEWEST < self.groups) memcpy(copy.to, copy.from, 16);
        else later.push_back(copy);
    }
    self.copies = later;
}

// -------------------------------------------------------------------------------------------------------------- arithmetic

template <class T> static inline T __ldg(const T* at) { return *at; }
static inline float __uint_as_float(u32 bits) { float f; memcpy(&f, &bits, 4); return f; }
static inline u32 __float_as_uint(float f) { u32 bits; memcpy(&bits, &f, 4); return bits; }
#define __expf expf
// In double the product is exact; rounding twice differs from once in cases too rare to matter, and needs no instruction
// that some processors lack.
static inline float fused(float a, float b, float c) { return (float)((double)a * (double)b + (double)c); }
#define fmaf fused

static inline u32 __byte_perm(u32 low, u32 high, u32 selector) {
    const unsigned long long bytes = (unsigned long long)high << 32 | low;
    u32 out = 0;
    for (u32 i = 0; i < 4; i++) out |= (u32)(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return out;
}

static inline float half_to_float(u16 h) {
    const u32 sign = (u32)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31u) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0u) return __uint_as_float(sign | (exponent + 112u) << 23 | mantissa << 13);
    const float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}
// To the nearest, ties to even.
static inline u16 float_to_half(float f) {
    const u32 bits = __float_as_uint(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (u16)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (u16)(sign | 0x7c00u);
    // Below the normal halves the unit is 2^-24 throughout.
    if (magnitude < 0x38800000u) return (u16)(sign | (u32)nearbyintf(fabsf(f) * 0x1p24f));
    const u32 rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return (u16)(sign | ((rounded >> 13) - (112u << 10)));
}
static inline float2 unpack_halves(u32 w) { return {half_to_float((u16)w), half_to_float((u16)(w >> 16))}; }
static inline u32 pack_halves(float lo, float hi) { return float_to_half(lo) | (u32)float_to_half(hi) << 16; }

// ------------------------------------------------------------------------------------------------------------ tensor cores

namespace emulation {

// What the lanes of a subgroup show each other for a product: eight elements of a and four of b, as floats.
static float factors[2][1024][12];

// Fragments as PTX defines them for mma.m16n8k16: lane 4 g + t has of a the elements 2 t, 2 t + 1 (+ 8) of rows g (+ 8), of
// b the same elements of column g, and of d the columns 2 t, 2 t + 1 of rows g, g + 8.
static inline void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    float(*shown)[12] = factors[invocations[threadIdx.x].phase ^= 1u];
    for (u32 i = 0; i < 6; i++) {
        const float2 pair = unpack_halves(i < 4 ? a[i] : b[i - 4]);
        shown[threadIdx.x][2 * i] = pair.x;
        shown[threadIdx.x][2 * i + 1] = pair.y;
    }
    wait(Wait::Subgroup);
    const float(*lanes)[12] = shown + threadIdx.x / SUBGROUP * SUBGROUP;
    const u32 group = threadIdx.x % SUBGROUP / 4, t = threadIdx.x % 4;
    for (u32 i = 0; i < 4; i++) {
        double sum = d[i];
        for (u32 k = 0; k < 16; k++) {
            const u32 of_k = k % 8 / 2;
            const double x = lanes[group * 4 + of_k][2 * (i / 2 + k / 8 * 2) + k % 2];
            sum += x * lanes[(2 * t + i % 2) * 4 + of_k][8 + 2 * (k / 8) + k % 2];
        }
        d[i] = (float)sum;
    }
}

static const void* rows[2][1024];

} // namespace emulation

static inline void multiply_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulation::multiply(d, a, b);
}
static inline const void* const* shown_rows(const void* row) {
    using namespace emulation;
    const void** shown = rows[invocations[threadIdx.x].phase ^= 1u];
    shown[threadIdx.x] = row;
    wait(Wait::Subgroup);
    return shown + threadIdx.x / SUBGROUP * SUBGROUP;
}
static inline void load_matrices(u32 (&out)[4], const void* row) {
    const void* const* rows = shown_rows(row);
    const u32 lane = threadIdx.x % SUBGROUP;
    for (u32 i = 0; i < 4; i++) memcpy(&out[i], (const char*)rows[8 * i + lane / 4] + 4 * (lane % 4), 4);
}
static inline void load_matrices_transposed(u32 (&out)[4], const void* row) {
    const void* const* rows = shown_rows(row);
    const u32 lane = threadIdx.x % SUBGROUP;
    for (u32 i = 0; i < 4; i++) {
        u16 pair[2];
        for (u32 j = 0; j < 2; j++) memcpy(&pair[j], (const char*)rows[8 * i + lane % 4 * 2 + j] + 2 * (lane / 4), 2);
        out[i] = pair[0] | (u32)pair[1] << 16;
    }
}

// ------------------------------------------------------------------------------------------------------------------ launch

namespace emulation {

template <class... A, size_t... I>
static inline void call(void (*kernel)(A...), void* const* args, std::index_sequence<I...>) {
    kernel(*(typename std::remove_reference<A>::type*)args[I]...);
}
template <class... A> static inline void call(void (*kernel)(A...), void* const* args) {
    call(kernel, args, std::index_sequence_for<A...>());
}

} // namespace emulation

// Linkers make these of the section's name; there is none in kernels without workgroup memory.
extern "C" char __start_workgroup_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_workgroup_memory[] __attribute__((weak, visibility("hidden")));

// 1 where every workgroup of the grid came to its end, 0 where one waits for ever.
#define EXPORT_KERNEL(name) \
    extern "C" int launch(u32 threads, u32 width, u32 height, void* const* args) { \
        using namespace emulation; \
        if (invocations.size() != threads) make_invocations(threads); \
        body = [](void* const* args) { call(name, args); }; \
        arguments = args; \
        for (blockIdx.y = 0; blockIdx.y < height; blockIdx.y++) { \
            for (blockIdx.x = 0; blockIdx.x < width; blockIdx.x++) { \
                if (__start_workgroup_memory) { \
                    memset(__start_workgroup_memory, 0xff, __stop_workgroup_memory - __start_workgroup_memory); \
                } \
                if (!run_workgroup((blockIdx.x + blockIdx.y) % 2u == 1u)) { \
                    invocations.clear(); \
                    return 0; \
                } \
            } \
        } \
        return 1; \
    }
