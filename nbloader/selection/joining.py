"""Parts that make another pipeline of the same files, with one that takes them."""

from __future__ import annotations

_PIPELINES = {
    "adapter": ("StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline"),
    "controlnet": ("AutoPipelineForText2Image", "AutoPipelineForText2Image"),
    "motion_adapter": ("AnimateDiffPipeline", "AnimateDiffSDXLPipeline"),
}
"""By the pipeline's argument: the class for Stable Diffusion 1 and 2, and the one for XL."""


def joining(argument: str, *, is_xl: bool) -> str:
    """Return the class of a pipeline that takes a part; empty if the usual one does, or none.

    Args:
        argument: what pipelines call the part.
        is_xl: whether the base model is Stable Diffusion XL.
    """
    return _PIPELINES.get(argument, ("", ""))[is_xl]
