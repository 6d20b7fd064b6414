// The order of the likeliest tokens: larger values first, equals by the lower column.
struct Ranked { float value; u32 column; };
constexpr u32 NO_COLUMN = 0xffffffffu;
__device__ __forceinline__ bool comes_after(float value, u32 column, Ranked last) {
    return value < last.value || (value == last.value && column > last.column);
}
