"""Which names our TensorRT code uses: `python surface.py FOLDER NAME...` prints those that the bindings lack.

Runs in a process of its own with the real bindings in FOLDER, and with empty libraries in the place of those
of TensorRT, which no machine without its installer has: a real TensorRT is never shadowed. The bindings ask
for nine functions when they are imported.
"""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def main(folder: Path, names: list[str]) -> None:
    stand_in(folder)
    sys.path.insert(0, str(folder))
    import tensorrt_bindings as trt

    lacking = []
    for name in names:
        found = trt
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None:
            lacking.append(name)
    print(json.dumps({"version": trt.__version__, "lacking": lacking}))


def stand_in(folder: Path) -> None:
    """Compile and load libraries that have the functions and do nothing."""
    (major,) = {name.rpartition(".")[2] for name in needed(folder)}
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}() {{ return 0; }}\n" for name in FUNCTIONS))
    for library in LIBRARIES:
        path = folder / f"lib{library}.so.{major}"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path)]
        subprocess.run(["cc", *flags, str(source)], check=True)
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def needed(folder: Path) -> set[str]:
    """`libnvinfer.so.10` and its like, as the extension module names them."""
    (module,) = folder.glob("tensorrt_bindings/tensorrt*.so")
    text = module.read_bytes()
    return {
        f"lib{library}.so.{number}"
        for library in LIBRARIES
        for number in (10, 11)
        if f"lib{library}.so.{number}\0".encode() in text
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
