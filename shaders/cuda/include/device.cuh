// What kernels need of the device and the language lacks: conversions of halves, which NVRTC has in headers only (so that
// nothing but its library is needed), reinterpreted bits, and reductions over a subgroup. Constants stand in a prelude,
// WG among them: the invocations of a workgroup.
#pragma nv_diag_suppress 177 // no kernel uses all that it includes
typedef unsigned int u32;
typedef unsigned short u16;

constexpr u32 SUBGROUP = 32u;
constexpr u32 ALL_LANES = 0xffffffffu;

// Two halves in a word, the lower first.
__device__ __forceinline__ float2 unpack_halves(u32 w) {
    float2 f;
    asm("{ .reg .b16 lo, hi; mov.b32 {lo, hi}, %2; cvt.f32.f16 %0, lo; cvt.f32.f16 %1, hi; }"
        : "=f"(f.x), "=f"(f.y) : "r"(w));
    return f;
}
__device__ __forceinline__ u32 pack_halves(float lo, float hi) {
    u32 w;
    asm("{ .reg .b16 lo, hi; cvt.rn.f16.f32 lo, %1; cvt.rn.f16.f32 hi, %2; mov.b32 %0, {lo, hi}; }"
        : "=r"(w) : "f"(lo), "f"(hi));
    return w;
}
__device__ __forceinline__ float half_to_float(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

// SHARED_BYTES bytes of workgroup memory that the host asks for, since kernels may not declare as much.
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]

#if __CUDA_ARCH__ >= 800
// Copies 16 bytes into workgroup memory, on its way while the invocation goes on. Copies belong to the group that is closed
// after them; to wait for all groups but the newest NEWEST is to wait for the invocation's own copies, not for others'.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
    asm volatile(
        "{ .reg .u64 to; cvta.to.shared.u64 to, %0; cp.async.cg.shared.global [to], [%1], 16; }"
        :: "l"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <u32 NEWEST> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(NEWEST) : "memory");
}

// Tensor cores: d += a b of a 16 x 16 and a 16 x 8 matrix, in fragments as PTX defines them for mma.m16n8k16.
__device__ __forceinline__ void multiply_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four 8 x 8 matrices of halves out of workgroup memory: lane 8 i + r names row r of matrix i, and gets elements
// 2 (lane % 4) and the next of row lane / 4 of each.
__device__ __forceinline__ void load_matrices(u32 (&out)[4], const void* row) {
    asm volatile(
        "{ .reg .u64 at; cvta.to.shared.u64 at, %4; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [at]; }"
        : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
        : "l"(row) : "memory");
}
// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(u32 (&out)[4], const void* row) {
    asm volatile(
        "{ .reg .u64 at; cvta.to.shared.u64 at, %4;"
        " ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [at]; }"
        : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
        : "l"(row) : "memory");
}
#endif
