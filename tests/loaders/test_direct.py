"""Which weights are read straight to their device, and what the libraries then make of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nbloader import loaders
from nbloader.errors import CancelledError, ModelLoadError
from nbloader.loaders import reading
from nbloader.loaders.direct import Direct, Way, way, way_of_passing
from nbloader.loaders.handing import handed
from nbloader.loaders.reading import Reading
from nbloader.records import (
    Component,
    Kind,
    Method,
    Notice,
    PlacedComponent,
    Placement,
    RepoFile,
    Selection,
)
from tests.differential.comparison import differences
from tests.models import save_classifier, save_pipeline, selection_of
from tests.samples import MB, SELECTION
from tests.straight import straight_on_the_cpu

VERSIONS = {"accelerate": "1.15.0", "diffusers": "0.42.1", "transformers": "5.23.0"}


def placed(name: str, device: str, size: int) -> PlacedComponent:
    return PlacedComponent(name=name, device=device, dtype="bfloat16", bytes=size)


GPU = Placement(
    method=Method.GPU,
    device="cuda",
    dtype="bfloat16",
    components=(placed("transformer", "cuda", 80 * MB), placed("vae", "cuda", 20 * MB)),
    vram=(120 * MB,),
)
TRANSFORMER, VAE = SELECTION.components[1:]
ALL = Way(components=((TRANSFORMER, "cuda"), (VAE, "cuda")))
SPREAD = replace(
    GPU,
    method=Method.MULTI_GPU,
    components=(placed("transformer", "cuda:1", 80 * MB), placed("vae", "cuda:0", 20 * MB)),
)
CAST = replace(
    GPU, components=(placed("transformer", "cuda", 40 * MB), placed("vae", "cuda", 20 * MB))
)

WAITING = replace(
    GPU,
    method=Method.GROUP_OFFLOAD,
    group_stream=True,
    components=(placed("transformer", "cpu", 80 * MB), placed("vae", "cpu", 20 * MB)),
)


def with_part(index: int, **changes: Any) -> Selection:
    parts = list(SELECTION.components)
    parts[index] = replace(parts[index], **changes)
    return replace(SELECTION, components=tuple(parts))


EITHER_WAY: dict[str, tuple[Selection, Placement, dict[str, Any], Way]] = {
    "with code of its own": (
        replace(SELECTION, custom_code=True),
        GPU,
        {},
        Way(reason="it is built by code of its repository"),
    ),
    "in one file": (
        replace(SELECTION, checkpoint="model.safetensors"),
        GPU,
        {},
        Way(reason="it comes from a single file"),
    ),
    "pickled": (
        with_part(2, weights=("vae/model.bin",)),
        GPU,
        {},
        Way(reason="vae/model.bin is not in safetensors"),
    ),
    "a part from elsewhere": (
        with_part(2, repo_id="org/vae"),
        GPU,
        {},
        Way(components=((TRANSFORMER, "cuda"),)),
    ),
}
"""The same whether or not the files go once they are read."""

TABLE: dict[str, tuple[Selection, Placement, dict[str, Any], Way]] = {
    "all on one GPU": (SELECTION, GPU, {}, ALL),
    "another argument of the caller's": (SELECTION, GPU, {"safety_checker": None}, ALL),
    "on several GPUs": (
        SELECTION,
        SPREAD,
        {},
        Way(components=((TRANSFORMER, "cuda:1"), (VAE, "cuda:0"))),
    ),
    "one that is dealt out": (
        SELECTION,
        replace(SPREAD, components=(placed("transformer", "cuda:0,cuda:1", 80 * MB),)),
        {},
        Way(),
    ),
    "on the CPU": (
        SELECTION,
        replace(GPU, method=Method.CPU, device="cpu", components=(placed("vae", "cpu", 1),)),
        {},
        Way(),
    ),
    "quantized on the way": (SELECTION, replace(GPU, method=Method.FOUR_BIT), {}, Way()),
    "waiting in memory": (SELECTION, replace(GPU, method=Method.GROUP_OFFLOAD), {}, Way()),
    "waiting in pinned memory": (
        SELECTION,
        WAITING,
        {},
        Way(components=((TRANSFORMER, "pinned"), (VAE, "pinned"))),
    ),
    "cast and waiting in pinned memory": (
        SELECTION,
        replace(
            WAITING,
            components=(placed("transformer", "cpu", 40 * MB), placed("vae", "cpu", 20 * MB)),
        ),
        {},
        Way(reason="it is cast in memory"),
    ),
    "of sentence-transformers": (
        replace(SELECTION, kind=Kind.SENTENCE_TRANSFORMERS),
        GPU,
        {},
        Way(),
    ),
    "files alone": (replace(SELECTION, kind=Kind.FILES), GPU, {}, Way()),
    "placed by the caller": (
        SELECTION,
        GPU,
        {"device_map": "balanced"},
        Way(reason="the caller gives device_map"),
    ),
    "cast by the caller": (
        SELECTION,
        GPU,
        {"model_kwargs": {"dtype": "float16"}},
        Way(reason="the caller gives dtype"),
    ),
    **EITHER_WAY,
    "an adapter": (
        with_part(2, library="peft"),
        GPU,
        {},
        Way(components=((TRANSFORMER, "cuda"),)),
    ),
    "cast with room for it": (SELECTION, replace(CAST, vram=(140 * MB,)), {}, ALL),
    "cast without": (
        SELECTION,
        CAST,
        {},
        Way(reason="casting it on cuda takes more memory than using it"),
    ),
    "cast on a GPU of several": (
        SELECTION,
        replace(
            SPREAD,
            components=(placed("transformer", "cuda:1", 40 * MB), placed("vae", "cuda:0", 20 * MB)),
            vram=(20 * MB, 120 * MB),
        ),
        {},
        Way(components=((TRANSFORMER, "cuda:1"), (VAE, "cuda:0"))),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_is_read_straight_to_its_device(case: str) -> None:
    selection, placement, given, expected = TABLE[case]
    assert way(selection, placement, given, VERSIONS) == expected


IN_MEMORY = Way(components=((TRANSFORMER, "cpu"), (VAE, "cpu")))
PASSING_TABLE: dict[str, tuple[Selection, Placement, dict[str, Any], Way]] = {
    "all on one GPU": (SELECTION, GPU, {}, ALL),
    "on several GPUs": (
        SELECTION,
        SPREAD,
        {},
        Way(components=((TRANSFORMER, "cuda:1"), (VAE, "cuda:0"))),
    ),
    "cast": (SELECTION, CAST, {}, Way(components=((TRANSFORMER, "cpu"), (VAE, "cuda")))),
    "on the CPU": (
        SELECTION,
        replace(
            GPU,
            method=Method.CPU,
            device="cpu",
            components=(placed("transformer", "cpu", 1), placed("vae", "cpu", 1)),
        ),
        {},
        IN_MEMORY,
    ),
    "quantized on the way": (SELECTION, replace(GPU, method=Method.FOUR_BIT), {}, IN_MEMORY),
    "waiting in memory": (SELECTION, replace(GPU, method=Method.GROUP_OFFLOAD), {}, IN_MEMORY),
    "waiting in pinned memory": (
        SELECTION,
        WAITING,
        {},
        Way(components=((TRANSFORMER, "pinned"), (VAE, "pinned"))),
    ),
    "of sentence-transformers": (
        replace(SELECTION, kind=Kind.SENTENCE_TRANSFORMERS),
        GPU,
        {},
        IN_MEMORY,
    ),
    "around a model of transformers": (
        with_part(1, library="sentence_transformers.models", class_name="Transformer"),
        replace(GPU, method=Method.CPU),
        {},
        Way(
            components=(
                (
                    replace(
                        TRANSFORMER,
                        library="sentence_transformers.models",
                        class_name="Transformer",
                    ),
                    "cpu",
                ),
                (VAE, "cpu"),
            )
        ),
    ),
    "opened by sentence-transformers itself": (
        with_part(2, library="sentence_transformers.models", class_name="Dense"),
        replace(GPU, method=Method.CPU),
        {},
        Way(components=((TRANSFORMER, "cpu"),)),
    ),
    "placed by the caller": (
        SELECTION,
        GPU,
        {"device_map": "balanced"},
        Way(reason="the caller gives device_map"),
    ),
    **EITHER_WAY,
    "an adapter": (with_part(2, library="peft"), GPU, {}, Way(components=((TRANSFORMER, "cuda"),))),
    "nothing of its own": (
        replace(SELECTION, components=SELECTION.components[:1]),
        GPU,
        {},
        Way(reason="it has no weights of its own"),
    ),
}


@pytest.mark.parametrize("case", PASSING_TABLE)
def test_what_can_go_once_it_is_read(case: str) -> None:
    selection, placement, given, expected = PASSING_TABLE[case]
    assert way_of_passing(selection, placement, given, VERSIONS) == expected


def test_without_accelerate_nothing_can_go() -> None:
    others = {name: version for name, version in VERSIONS.items() if name != "accelerate"}
    found = way_of_passing(SELECTION, GPU, {}, others)
    assert found == Way(reason="accelerate is not installed")


def test_without_accelerate_the_library_moves_a_model() -> None:
    found = way(SELECTION, GPU, {}, {"diffusers": "0.42.1"})
    assert found == Way(reason="accelerate is not installed")


# -- builds, on the CPU ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    save_pipeline(made / "pipeline")
    save_classifier(made / "classifier")
    return made


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let weights be read straight to the CPU, and note the files that are taken."""
    straight_on_the_cpu(monkeypatch)
    found: list[str] = []
    for name in ("take", "take_one"):
        original = getattr(Reading, name)

        def noting(
            self: Reading, path: Any, *names: str, original: Callable[..., Any] = original
        ) -> Any:
            tensors = original(self, path, *names)
            if tensors is not None:
                found.append(Path(path).name)
            return tensors

        monkeypatch.setattr(Reading, name, noting)
    return found


def on_cpu(selection: Selection, dtype: str) -> Placement:
    names = [part.name for part in selection.components if part.weights]
    parts = tuple(replace(placed(name, "cpu", 1), dtype=dtype) for name in names)
    return Placement(method=Method.CPU, device="cpu", dtype=dtype, components=parts)


def load(folder: Path, dtype: str = "float32", **arguments: Any) -> tuple[Any, list[Notice]]:
    selection = selection_of(folder)
    placement = on_cpu(selection, dtype)
    notices = []
    with closing(loaders.Building(selection, folder, placement, {}, **arguments)) as building:
        while (told := building.step()) is not None:
            if isinstance(told, Notice):
                notices.append(told)
        return building.model(), notices


def plain(folder: Path, dtype: str) -> Any:
    import diffusers
    import transformers

    of_torch = getattr(torch, dtype)
    if (folder / "model_index.json").exists():
        return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=of_torch)
    return transformers.pipeline("text-classification", str(folder), dtype=of_torch, device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["pipeline", "classifier"])
def test_what_comes_out_is_what_the_library_makes(
    folder: Path, taken: list[str], name: str, dtype: str
) -> None:
    ours, notices = load(folder / name, dtype)
    assert differences(ours, plain(folder / name, dtype)) == []
    assert notices == []
    files = {path.name for path in (folder / name).rglob("*.safetensors")}
    assert set(taken) == files


def test_a_model_that_is_loaded_where_it_stays_is_as_one_that_is_moved(
    folder: Path, taken: list[str]
) -> None:
    place = folder / "classifier"
    selection = selection_of(place)
    straight = replace(on_cpu(selection, "float32"), method=Method.GPU)
    with closing(loaders.Building(selection, place, straight, {})) as building:
        assert building.step() is None
        ours = building.model()
    assert differences(ours, plain(place, "float32")) == []
    assert set(taken) == {"model.safetensors"}


def test_the_libraries_have_their_functions_back(folder: Path, taken: list[str]) -> None:
    import diffusers.models.model_loading_utils as shards
    import diffusers.models.modeling_utils as models
    import transformers.modeling_utils as others
    from safetensors import safe_open

    before = [vars(module).copy() for module in (shards, models, others)]
    load(folder / "pipeline")
    with closing(Reading()) as each, handed(each):
        kept = others.safe_open, models.load_state_dict
        assert kept[0] is not safe_open
    assert [vars(module) for module in (shards, models, others)] == before
    # A module that was imported meanwhile has kept what stood there.
    file = folder / "classifier" / "model.safetensors"
    with kept[0](str(file), framework="pt") as opened:
        assert isinstance(opened, safe_open)
        assert kept[1](str(file)).keys() == load_file(file).keys()


def test_other_threads_read_their_own_files(folder: Path) -> None:
    import transformers.modeling_utils as library

    file = folder / "classifier" / "model.safetensors"
    found: list[str] = []

    def work() -> None:
        with library.safe_open(str(file), framework="pt") as opened:
            found.append(type(opened).__name__)

    with closing(Reading()) as each, handed(each):
        each.add(file, "cpu")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        work()
    assert found == ["safe_open", "_Opened"]


def test_any_thread_gets_what_only_stands_for_a_file(folder: Path, tmp_path: Path) -> None:
    import diffusers.models.modeling_utils as library

    file = folder / "classifier" / "model.safetensors"
    stand_in = tmp_path / "model.safetensors"
    stand_in.write_bytes(b"")
    found: list[Any] = []
    with closing(Reading()) as each, handed(each):
        each.expect(stand_in, "cpu", name="model.safetensors", outline=stand_in)
        each.add_expected(stand_in, file, lambda: None)
        thread = threading.Thread(
            target=lambda: found.append(library.load_state_dict(str(stand_in)))
        )
        thread.start()
        thread.join()
    [tensors] = found
    assert tensors.keys() == load_file(file).keys()


def test_a_tensor_that_is_asked_for_twice_is_not_shared(folder: Path) -> None:
    import transformers.modeling_utils as library

    file = folder / "classifier" / "model.safetensors"
    with closing(Reading()) as each, handed(each):
        each.add(file, "cpu")
        with library.safe_open(str(file), framework="pt", device="cpu") as opened:
            [name, *_] = load_file(file)
            part = opened.get_slice(name)
            first, second = part[...], part[...]
            assert torch.equal(first, second)
            assert first.data_ptr() != second.data_ptr()
            assert part.get_shape() == list(first.shape)
            assert torch.equal(opened.get_tensor(name), first)
            assert opened.metadata() == {"format": "pt"}
            assert torch.equal(part[:1], first[:1])


def test_weights_that_cannot_be_read_so_are_read_by_the_library(
    folder: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_DTYPES", {})
    ours, [notice] = load(folder / "pipeline")
    assert differences(ours, plain(folder / "pipeline", "float32")) == []
    assert taken == []
    assert notice == Notice(
        reference="weights-by-library",
        message="The library itself has read the weights: ValueError: there are tensors of F32",
        hint="Nothing is needed: it takes a little longer.",
        quiet=True,
    )


def test_a_library_that_stumbles_over_them_begins_anew(
    folder: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_arguments: Any) -> Any:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(Reading, "take", wrong)
    ours, notices = load(folder / "pipeline")
    assert differences(ours, plain(folder / "pipeline", "float32")) == []
    assert all(each.quiet for each in notices)
    [told] = [each for each in notices if each.reference == "weights-by-library"]
    assert told.message.endswith("RuntimeError: CUDA error")


def test_an_error_of_the_library_itself_is_told(
    folder: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", broken)
    with pytest.raises(ModelLoadError, match="broken"):
        load(folder / "pipeline")
    assert [each.name for each in threading.enumerate() if each.name == "nbloader-read"] == []


def test_a_cancelled_load_ends_where_it_waits_for_weights(folder: Path, taken: list[str]) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        load(folder / "classifier", cancelled=cancelled)


def test_quantized_weights_are_left_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight_on_the_cpu(monkeypatch)
    for name, config in (("good", {}), ("packed", {"quantization_config": {"quant_method": "x"}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        save_file({"a": torch.zeros(2)}, tmp_path / name / "model.safetensors")
    paths = [f"{name}/model.safetensors" for name in ("good", "packed")]
    selection = replace(
        SELECTION,
        components=tuple(
            Component(name=path.partition("/")[0], paths=(path,), weights=(path,)) for path in paths
        ),
        files=tuple(RepoFile(path=path, size=1, etag="") for path in paths),
    )
    with closing(Direct(selection, tmp_path, on_cpu(selection, "float32"), {})) as each:
        each.begin(lambda path: path.startswith("packed/"))
        assert each.problem == "the weights of packed are quantized"
        each.begin(lambda path: bool(path))
        assert each._reading is not None
        assert each._reading.take(tmp_path / paths[0]) is not None
        assert each._reading.take(tmp_path / paths[1]) is None
