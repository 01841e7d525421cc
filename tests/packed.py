"""A model of a package that nobody here knows, in place of Nunchaku's, which is not installed.

To nbloader and to diffusers it is what theirs is: a `ModelMixin` that is no class of diffusers,
with parameters of its own names and number formats, which reads its one file by itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from safetensors.torch import save_file


class NunchakuFluxTransformer2dModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A denoiser of one packed layer, under the name of Nunchaku's class.

    Args:
        in_channels, sample_size, time_cond_proj_dim: what pipelines of Stable Diffusion read.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 4,
        sample_size: int = 8,
        time_cond_proj_dim: int | None = None,
    ) -> None:
        super().__init__()
        packed = torch.randint(-8, 8, (in_channels, in_channels), dtype=torch.int8)
        self.qweight = torch.nn.Parameter(packed, requires_grad=False)
        self.wscales = torch.nn.Parameter(torch.rand(in_channels, 1) / 8)
        self.smooth_factor = torch.nn.Parameter(torch.ones(in_channels))

    def forward(
        self, sample: torch.Tensor, timestep: object, encoder_hidden_states: object, **_: Any
    ) -> tuple[torch.Tensor]:
        weight = self.qweight.to(sample.dtype) * self.wscales * self.smooth_factor
        return (torch.einsum("oc,bchw->bohw", weight.to(sample.dtype), sample),)

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str], **_: Any) -> Any:
        """Read a file: its path, or `org/name/file` on the Hub."""
        path = Path(place)
        if not path.is_file():
            org, name, file = str(place).split("/", 2)
            path = Path(hf_hub_download(f"{org}/{name}", file))
        with safe_open(path, framework="pt") as file:
            made = cls(**json.loads(file.metadata()["config"]))
            names = list(file.keys())
            made.load_state_dict({name: file.get_tensor(name) for name in names})
        return made.eval()


def save(path: Path) -> None:
    """Write a model into one file, with its configuration among the metadata."""
    made = NunchakuFluxTransformer2dModel()
    config = {name: value for name, value in made.config.items() if not name.startswith("_")}
    save_file(made.state_dict(), path, metadata={"config": json.dumps(config)})
