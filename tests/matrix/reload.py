"""A result in its own library alone: `python reload.py FOLDER LIBRARY CLASS INPUTS OUTPUTS`.

Nothing of Secateur can be imported here, and of the model libraries LIBRARY alone. INPUTS and OUTPUTS are
`.npz` files; the outputs are what the library's own forward answers, by name or by place.
"""

import json
import sys
from pathlib import Path

import numpy as np

OURS = ("schemas", "service", "workers", "tests")
LIBRARIES = ("transformers", "timm", "torchvision", "onnxruntime", "onnx")
ALLOWED = {
    "transformers": ("transformers", "torchvision"),
    "timm": ("timm", "torchvision"),
}
"""transformers and timm use torchvision themselves."""


def flat(output):
    """{name or place: array} of the floating tensors that a model answers."""
    if isinstance(output, dict):
        pairs = output.items()
    elif isinstance(output, (tuple, list)):
        pairs = ((str(place), value) for place, value in enumerate(output))
    else:
        pairs = [("0", output)]
    found = {}
    for name, value in pairs:
        if hasattr(value, "is_floating_point") and value.is_floating_point():
            found[str(name)] = value.detach().float().numpy()
    return found


def build(folder, library, cls):
    """The module, by the library's own way to read a folder."""
    if library == "transformers":
        import transformers

        return getattr(transformers, cls).from_pretrained(folder, local_files_only=True).eval()
    if library == "timm":
        import timm

        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    import torch

    if library == "torchvision":
        import torchvision
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text())
        more = {"weights_backbone": None} if cls != "classification" else {}
        model = torchvision.models.get_model(
            config["architecture"], weights=None, num_classes=config["num_classes"], **more
        )
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
    return torch.export.load(folder / "model.pt2").module()


def run(folder, library, cls, inputs):
    if library == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        return {"0": session.run(None, inputs)[0]}
    import torch

    module = build(folder, library, cls)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    with torch.no_grad():
        if library == "torch.export":
            return flat(module(*tensors.values()))
        if library == "transformers":
            return flat(module(**tensors))
        images = tensors["pixel_values"]
        return flat(module(list(images)) if cls == "detection" else module(images))


def main(folder, library, cls, inputs, outputs):
    allowed = ALLOWED.get(library, (library,))
    for name in (*OURS, *(one for one in LIBRARIES if one not in allowed)):
        sys.modules[name] = None  # an import of it fails as if it were not installed
    with np.load(inputs) as stored:
        found = run(Path(folder), library, cls, dict(stored))
    np.savez(outputs, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
