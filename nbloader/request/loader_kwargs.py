"""Arguments of the libraries' own loaders: those that are ours, and those that are passed on.

`loader_kwargs` reach the library with a folder on the disk in place of the id. There it ignores
whatever is about the Hub (`revision`, `token`, `subfolder`, ...), without a word, so none of that
may get as far.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from nbloader.errors import InvalidArgumentError
from nbloader.request.call import Call
from nbloader.request.folders import WEIGHTS
from nbloader.request.places import check_inner
from nbloader.request.values import (
    check_attention,
    check_device,
    check_dtype,
    check_endpoint,
    check_flag,
    check_folder,
    check_repo_id,
    check_revision,
    check_task,
    check_token,
    check_variant,
)
from nbloader.text import quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A call, once those of `loader_kwargs` that are ours have found their places.

    Attributes:
        call: with them as its own arguments.
        passed_on: what is left for the library.
        safetensors_only: whether weights in another format are refused (`use_safetensors=True`).
        filename: the file of the repository that is loaded (`gguf_file`); empty if none is named.
        config: the repository that the configuration of a checkpoint is taken from.
    """

    call: Call
    passed_on: Mapping[str, Any]
    safetensors_only: bool = False
    filename: str = ""
    config: str = ""


# By the name that a library has for it: the name of ours, and what makes two values comparable.
_SAME: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "attn_implementation": ("attention", check_attention),
    "cache_dir": ("cache_dir", partial(check_folder, "cache_dir")),
    "cache_folder": ("cache_dir", partial(check_folder, "cache_dir")),
    "device": ("device", check_device),
    "dtype": ("dtype", check_dtype),
    "endpoint": ("endpoint", check_endpoint),
    "local_files_only": ("local_files_only", partial(check_flag, "local_files_only")),
    "revision": ("revision", check_revision),
    "subfolder": ("subfolder", partial(check_inner, "subfolder")),
    "task": ("task", check_task),
    "token": ("token", check_token),
    "torch_dtype": ("dtype", check_dtype),
    "trust_remote_code": ("trust_remote_code", partial(check_flag, "trust_remote_code")),
    "use_auth_token": ("token", check_token),
    "variant": ("variant", check_variant),
}
_DEFAULTS = {each.name: each.default for each in fields(Call)}

# The mappings in which the libraries take arguments for a part. What is about the Hub is for the
# whole repository here; a tokenizer of another commit, or code that only it may run, cannot be had.
_NESTED = ("model_kwargs", "tokenizer_kwargs", "processor_kwargs", "config_kwargs")
_NESTED_NAMES = frozenset(
    {
        "attn_implementation",
        "cache_dir",
        "local_files_only",
        "revision",
        "subfolder",
        "token",
        "trust_remote_code",
        "use_auth_token",
        "variant",
    }
)
_OLD_NESTED: Mapping[str, str] = {
    "automodel_args": "model_kwargs",
    "config_args": "config_kwargs",
    "tokenizer_args": "tokenizer_kwargs",
}
"""Older names of `CrossEncoder` for them. It drops one that stands beside the newer name, and ours
stands there always."""
_WITHOUT_NEEDS = ("sdpa", "eager", "flex_attention")
"""Ways to compute attention for which there is nothing that a library would fetch by itself."""
_OF_THE_WHOLE = frozenset({"revision", "subfolder", "trust_remote_code", "variant"})

_OF_THE_CALL = frozenset(
    {
        "adapters",
        "allow_pickle",
        "cls",
        "components",
        "attention",
        "force",
        "keep_files",
        "kind",
        "loader_kwargs",
        "on_event",
        "plan",
        "replace",
        "settings",
        "verify",
        "view",
    }
)
_IDS = frozenset(
    {
        "model",
        "model_id",
        "model_name",
        "model_name_or_path",
        "pretrained_model_name_or_path",
        "pretrained_model_or_path",
        "repo_id",
    }
)
# What may be handed in as an object, and what makes one. As the id of a repository, the library
# would ask the Hub for it in the middle of a load, unchecked.
_HANDED_IN: Mapping[str, str] = {
    "adapter": "diffusers.T2IAdapter",
    "assistant_model": "transformers.AutoModelForCausalLM",
    "config": "transformers.AutoConfig",
    "controlnet": "diffusers.ControlNetModel",
    "feature_extractor": "transformers.AutoFeatureExtractor",
    "image_encoder": "transformers.CLIPVisionModelWithProjection",
    "image_processor": "transformers.AutoImageProcessor",
    "motion_adapter": "diffusers.MotionAdapter",
    "processor": "transformers.AutoProcessor",
    "scheduler": "diffusers.DPMSolverMultistepScheduler",
    "text_encoder": "transformers.CLIPTextModel",
    "text_encoder_2": "transformers.CLIPTextModelWithProjection",
    "text_encoder_3": "transformers.T5EncoderModel",
    "tokenizer": "transformers.AutoTokenizer",
    "transformer": "diffusers.AutoModel",
    "unet": "diffusers.UNet2DConditionModel",
    "vae": "diffusers.AutoencoderKL",
    "video_processor": "transformers.AutoVideoProcessor",
}
_WITHOUT_MEANING = frozenset({"resume_download"})
"""Downloads are always gone on with; the Hub's library has given this argument up."""

_PLACING = ("device_map", "quantization_config")

# What cannot be done, by the library's name for it, with the line that helps; `{repo}` and
# `{value}` stand for the call's. A value that asks
# for nothing (None, False, "") may be there.
_REFUSED: Mapping[str, str] = {
    "force_download": "Every file is hashed when it comes. For those that are in the cache already "
    "pass verify=True to load: a wrong one is fetched again.",
    "from_flax": "Look for a repository with safetensors weights.",
    "from_tf": "Look for a repository with safetensors weights.",
    "mirror": 'Pass the address of the mirror to load: endpoint="https://...".',
    "proxies": 'Set the proxy for all of it before: os.environ["HTTPS_PROXY"] = "http://...".',
    "use_flashpack": "Leave it out: safetensors weights are loaded.",
    "use_onnx": "Leave it out: the PyTorch weights are loaded.",
}


def taken_over(call: Call, loader_kwargs: Mapping[str, Any]) -> Taken:
    """Take what is ours out of `loader_kwargs`.

    A name that means the same as an argument of `load` becomes that argument. None says nothing,
    and is left out.

    Args:
        call: an argument with its default counts as not given.
        loader_kwargs: those of the call, which are a mapping.

    Raises:
        InvalidArgumentError: a name is for something that cannot be done, or its value is wrong, or
            not the one that the call has.
    """
    taking = _Taking(call)
    loader_kwargs = _renamed(loader_kwargs)
    passed_on = {
        name: value
        for name, value in loader_kwargs.items()
        if name not in _NESTED and not taking.take(name, value)
    }
    for name in _NESTED:
        if name in loader_kwargs:
            given = loader_kwargs[name]
            passed_on[name] = taking.nested(name, given) if isinstance(given, Mapping) else given
    return Taken(
        call=taking.call,
        passed_on=passed_on,
        safetensors_only=taking.safetensors_only,
        filename=taking.filename,
        config=taking.config,
    )


def _renamed(loader_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for a part under their newer names.

    Raises:
        InvalidArgumentError: both names are there.
    """
    for old, new in _OLD_NESTED.items():
        if old in loader_kwargs and new in loader_kwargs:
            raise InvalidArgumentError(
                f"loader_kwargs has {quote(old)} and {quote(new)}, which mean the same",
                hint=f"Put all into {new}.",
            )
    return {_OLD_NESTED.get(name, name): value for name, value in loader_kwargs.items()}


def _names_file(repo_id: object) -> bool:
    """Say whether what stands in the place of an id leads to a checkpoint."""
    text = os.fspath(repo_id) if isinstance(repo_id, os.PathLike) else repo_id
    return isinstance(text, str) and WEIGHTS.fullmatch(text.partition("?")[0]) is not None


@dataclass(slots=True)
class _Taking:
    """The call as it is completed."""

    call: Call
    safetensors_only: bool = field(default=False)
    filename: str = ""
    config: str = ""

    def take(self, name: str, value: object) -> bool:
        """Take one argument over; False for one that is the library's own."""
        if isinstance(value, Mapping) and "attn_implementation" in value:
            raise InvalidArgumentError(
                f"loader_kwargs['{name}']['attn_implementation'] is for the whole load",
                hint="Pass it to load: attention=...",
            )
        if name in _SAME:
            return value is None or self._same(name, value, f"loader_kwargs['{name}']")
        if name in _PLACING:
            return value is None
        if name in _WITHOUT_MEANING:
            return True
        if name in _IDS:
            return self._id(name, value)
        if name == "use_safetensors":
            return self._safetensors(value)
        if name == "gguf_file":
            self.filename = check_inner(f"loader_kwargs[{name!r}]", value)
            return True
        if name == "config" and isinstance(value, str) and _names_file(self.call.repo_id):
            self.config = check_repo_id(value)
            return True
        if name in _HANDED_IN and isinstance(value, str):
            return self._part(name, value)
        self._refuse(name, value)
        return False

    def nested(self, place: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take over what is ours in the arguments for a part, and give what is left of them."""
        left = {}
        for name, value in given.items():
            where = f"loader_kwargs['{place}']['{name}']"
            if name in _WITHOUT_MEANING or (name in _NESTED_NAMES and value is None):
                continue
            if name == "use_safetensors" and self._safetensors(value):
                continue
            if name not in _NESTED_NAMES:
                self._refuse(name, value)
                left[name] = value
            elif name not in _OF_THE_WHOLE or (place == "model_kwargs" and name != "subfolder"):
                if not self._same(name, value, where):
                    left[name] = value
            else:
                self._must_agree(name, value, where)
        return left

    def _same(self, name: str, value: object, where: str) -> bool:
        argument, check = _SAME[name]
        if argument == "attention" and isinstance(value, Mapping):
            self._for_parts(value, where)
            return False
        try:
            wanted = check(value)
        except InvalidArgumentError:
            if argument != "dtype":
                raise
            return False  # One for each component, or one that only the library knows.
        if argument == "dtype" and wanted == "auto":
            return False  # To the library it is the dtype of the file.
        own, default = getattr(self.call, argument), _DEFAULTS[argument]
        if type(own) is type(default) and own == default:
            changed: dict[str, Any] = {argument: value}
            self.call = replace(self.call, **changed)
        elif check(own) != wanted:
            raise InvalidArgumentError(
                f"{argument}= and {where} are given, and they differ",
                hint=f"Leave out {where}: {argument}= says it for the whole load.",
            )
        return True

    def _for_parts(self, value: Mapping[object, object], where: str) -> None:
        """See that each part of a model is given a way to compute attention that needs no check."""
        for each in value.values():
            if isinstance(each, Mapping):
                self._for_parts(each, where)
            elif each is not None and check_attention(each) not in _WITHOUT_NEEDS:
                raise InvalidArgumentError(
                    f"{where} names {quote(each)} for a part of the model, which is not checked",
                    hint=f"Pass attention={quote(each)} for the whole model, or name one of "
                    f"{', '.join(map(repr, _WITHOUT_NEEDS))} for its parts.",
                )
        if check_attention(self.call.attention) is not None:
            raise InvalidArgumentError(
                f"attention= and {where} are given, and the second is for parts of the model",
                hint="Leave out one of them.",
            )

    def _must_agree(self, name: str, value: object, where: str) -> None:
        argument, check = _SAME[name]
        if check(getattr(self.call, argument)) != check(value):
            raise InvalidArgumentError(
                f"{where} differs from {argument}=, which is one for the whole repository",
                hint=f"Pass {argument}= to load, and leave it out there.",
            )

    def _id(self, name: str, value: object) -> bool:
        if value is None or value == self.call.repo_id:
            return True
        raise InvalidArgumentError(
            f"loader_kwargs={{{name!r}: ...}} names another model than the first argument",
            hint=f"Pass the id first: nbloader.load({quote(value)})."
            if isinstance(value, str)
            else "Pass the id of a repository first; a model that is there already is loaded.",
        )

    def _part(self, name: str, value: str) -> bool:
        if value == self.call.repo_id:
            return True  # What is loaded anyway.
        line = f"{_HANDED_IN[name]}.from_pretrained({quote(value)})"
        raise InvalidArgumentError(
            f"loader_kwargs[{name!r}] names another repository: {quote(value)}",
            hint=f'For a part of a pipeline: components={{"{name}": {quote(value)}}}. Else hand in '
            f'the object: loader_kwargs={{"{name}": {line}}}.',
        )

    def _safetensors(self, value: object) -> bool:
        if value is None:
            return True
        if check_flag("use_safetensors", value):
            self.safetensors_only = True
            return True
        raise InvalidArgumentError(
            "use_safetensors=False asks for pickled weights",
            hint="Leave it out: safetensors weights are loaded where there are any, and others "
            "where there are none.",
        )

    def _refuse(self, name: str, value: object) -> None:
        if name in _OF_THE_CALL:
            raise InvalidArgumentError(
                f"{name} is an argument of load, not of the library",
                hint=f"Pass it beside loader_kwargs: nbloader.load(..., {name}=...).",
            )
        if name in _REFUSED and value:
            # An address of these may hold a password.
            shown = name if name in ("mirror", "proxies") else f"{name}={quote(value)}"
            raise InvalidArgumentError(
                f"{shown} is not supported",
                hint=_REFUSED[name].format(repo=self._repo, value=quote(value)),
            )

    @property
    def _repo(self) -> str:
        return quote(self.call.repo_id)
