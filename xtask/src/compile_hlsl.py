"""Compiles the HLSL files of a folder, each named NUMBER.ENTRY_POINT.hlsl, by DirectX's compiler: compile_hlsl.py LIBRARY FOLDER.

The library's interfaces are those of COM, called by their place in the table of methods. Those of releases before 1.7.2212 have
two destructors after the three methods of IUnknown.
"""
import concurrent.futures
import ctypes
import pathlib
import sys
import uuid

COMPILER = uuid.UUID("73e22d93-e6ce-47f3-b5bf-f0664f39c1b0")
COMPILER_3 = uuid.UUID("228b4687-5a6a-4730-900c-9702b2203f54")
RESULT = uuid.UUID("58346cda-dde7-4497-9461-6f87af5e0659")
UTF_8 = 65001

RELEASE = 2  # of IUnknown
COMPILE = 5  # of IDxcCompiler3
GET_STATUS, GET_ERROR_BUFFER = 5, 7  # of IDxcResult
GET_BUFFER_POINTER, GET_BUFFER_SIZE = 5, 6  # of IDxcBlob


class Buffer(ctypes.Structure):
    """DxcBuffer."""

    _fields_ = [("text", ctypes.c_char_p), ("size", ctypes.c_size_t), ("encoding", ctypes.c_uint32)]


def guid(value):
    return (ctypes.c_ubyte * 16).from_buffer_copy(value.bytes_le)


def call(this, method, result, *arguments):
    table = ctypes.cast(this, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *map(type, arguments))(table[method])(this, *arguments)


def compiler_of(library):
    compiler = ctypes.c_void_p()
    status = ctypes.CDLL(library).DxcCreateInstance(guid(COMPILER), guid(COMPILER_3), ctypes.byref(compiler))
    assert status == 0, f"no compiler: {status:#x}"
    return compiler


def errors_of(compiler, file):
    """What the compiler has against the file; None if nothing. The arguments are those of wgpu."""
    text = file.read_bytes()
    entry_point = file.name.split(".")[1]
    arguments = ["-E", entry_point, "-T", "cs_6_0", "-HV", "2018", "-no-warnings"]
    source = Buffer(text, len(text), UTF_8)
    result = ctypes.c_void_p()
    status = call(
        compiler,
        COMPILE,
        ctypes.c_int32,
        ctypes.pointer(source),
        (ctypes.c_wchar_p * len(arguments))(*arguments),
        ctypes.c_uint32(len(arguments)),
        ctypes.c_void_p(),  # no include handler
        guid(RESULT),
        ctypes.pointer(result),
    )
    assert status == 0, f"{file}: {status:#x}"
    status, errors = ctypes.c_int32(), ctypes.c_void_p()
    call(result, GET_STATUS, ctypes.c_int32, ctypes.pointer(status))
    call(result, GET_ERROR_BUFFER, ctypes.c_int32, ctypes.pointer(errors))
    said = ctypes.string_at(
        call(errors, GET_BUFFER_POINTER, ctypes.c_void_p), call(errors, GET_BUFFER_SIZE, ctypes.c_size_t)
    )
    call(errors, RELEASE, ctypes.c_uint32)
    call(result, RELEASE, ctypes.c_uint32)
    return said.decode(errors="replace") if status.value else None


def failures_of(library, files):
    compiler = compiler_of(library)
    return [(file, errors) for file in files if (errors := errors_of(compiler, file))]


def main(library, folder):
    files = sorted(pathlib.Path(folder).glob("*.hlsl"))
    assert files, f"no files in {folder}"
    with concurrent.futures.ProcessPoolExecutor() as pool:
        parts = [files[part::64] for part in range(64)]
        failures = [failure for some in pool.map(failures_of, [library] * len(parts), parts) for failure in some]
    for file, errors in failures:
        print(f"{file.read_text().splitlines()[0]}\n{errors}")
    print(f"{len(files) - len(failures)} of {len(files)} kernels compile")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
