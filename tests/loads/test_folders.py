"""Folders of this machine, loaded: the library's own object, no network, nothing written there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.__main__ import main
from nbloader.checks import PreflightReport
from nbloader.errors import (
    InvalidArgumentError,
    InvalidRepoIdError,
    MalformedFileError,
    NbloaderError,
    NotCachedError,
    UnsupportedRepoError,
)
from nbloader.localhub import LocalHub
from nbloader.records import Checked, CheckStatus, Event, Selected, Stage, StageStarted
from nbloader.redaction import short_path
from nbloader.request import Call, checked
from nbloader.stages import check
from tests.conftest import Publish
from tests.differential.cases import companions
from tests.differential.comparison import differences, paths_in
from tests.differential.harness import seeded
from tests.models import (
    picture,
    save_classifier,
    save_embedder,
    save_pipeline,
)

NOWHERE = "http://127.0.0.1:1"
"""An endpoint at which nobody answers."""

LOAD = partial(nbloader.load, endpoint=NOWHERE, device="cpu", view="none")


def saved(folder: Path, save: Callable[[Path], object]) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seeded(partial(save, folder))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as their libraries save them. No test may change them."""
    root = tmp_path_factory.mktemp("made")
    saved(root / "pipeline", save_pipeline)
    saved(root / "embedder", save_embedder)
    saved(root / "classifier", save_classifier)
    saved(root / "llama", companions.save_llama)
    saved(root / "lora", lambda folder: companions.save_lora(folder, str(root / "llama")))
    return root


@pytest.fixture
def copy_of(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(made / name, tmp_path / name))

    return copy


def pipeline_of(folder: str) -> Any:
    import diffusers

    return diffusers.DiffusionPipeline.from_pretrained(folder)


def embedder_of(folder: str) -> Any:
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(folder, device="cpu", local_files_only=True)


def task_of(task: str, folder: str, **more: Any) -> Any:
    import transformers

    return transformers.pipeline(task, model=folder, device="cpu", **more)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(folder.rglob("*"))
    }


PLAIN: dict[str, tuple[Callable[[str], Any], Callable[[Any], Any]]] = {
    "pipeline": (pipeline_of, picture),
    "embedder": (embedder_of, lambda model: model.encode(["a good b", "bad"])),
    "classifier": (partial(task_of, "text-classification"), lambda pipe: pipe(["a good b", "bad"])),
    "lora": (
        partial(task_of, "text-generation"),
        lambda pipe: pipe("a good", max_new_tokens=3, do_sample=False),
    ),
}


@pytest.mark.parametrize(
    ("name", "written"),
    [*((name, "relative") for name in PLAIN), ("pipeline", "absolute"), ("lora", "path")],
)
def test_it_is_what_the_library_makes_of_it(
    made: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str
) -> None:
    """The tensors, the outputs, and every place where its path stands."""
    monkeypatch.chdir(made)
    ways: dict[str, str | Path] = {
        "absolute": str(made / name),
        "relative": f"./{name}",
        "path": Path(name),
    }
    folder = ways[written]
    before = contents(made / name)
    events: list[Event] = []
    ours = LOAD(folder, on_event=events.append)
    plain, call = PLAIN[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = plain(str(folder))
    assert differences(ours, theirs) == []
    assert differences(call(ours), call(theirs)) == []
    for place in (str(folder), str(made)):
        assert paths_in(ours, Path(place)) == paths_in(theirs, Path(place))
    assert contents(made / name) == before
    (selected,) = (event for event in events if isinstance(event, Selected))
    assert (selected.selection.repo_id, selected.selection.folder) == (
        str(folder),
        str(made / name),
    )
    assert set(selected.cached) == {file.path for file in selected.selection.files}
    assert selected.hub is None
    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    assert stages[:2] == [Stage.SET_UP, Stage.INITIALISE]
    (checked,) = (event for event in events if isinstance(event, Checked))
    found = {result.name: result.status for result in checked.results}
    assert CheckStatus.FAILED not in found.values()
    assert {key for key, status in found.items() if status is CheckStatus.SKIPPED} == {
        "hub",
        "license",
        "rate-limit",
        "xet",
        "cache",
        "disk",
        "vram",
    }


def test_classes_that_are_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers
    import transformers

    monkeypatch.chdir(made)
    ours = LOAD("./classifier", cls=("AutoModelForSequenceClassification", "AutoTokenizer"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForSequenceClassification.from_pretrained("./classifier")
        theirs = model, transformers.AutoTokenizer.from_pretrained("./classifier")
        unet = diffusers.UNet2DConditionModel.from_pretrained("./pipeline", subfolder="unet")
    assert differences(ours, theirs) == []
    assert paths_in(ours, Path("classifier")) == paths_in(theirs, Path("classifier"))
    own = LOAD("./pipeline", subfolder="unet")
    assert differences(own, unet) == []
    assert paths_in(own, Path("pipeline")) == paths_in(unet, Path("pipeline"))


def test_a_part_in_another_folder(
    made: Path, hub: LocalHub, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a pipeline in a folder, and of one in the Hub."""
    import diffusers

    vae = Path(shutil.copytree(made / "pipeline" / "vae", tmp_path / "vae"))
    config = json.loads((vae / "config.json").read_text())
    (vae / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    monkeypatch.chdir(tmp_path)
    ours = LOAD(made / "pipeline", components={"vae": "./vae"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = diffusers.AutoencoderKL.from_pretrained("./vae")
        theirs = diffusers.DiffusionPipeline.from_pretrained(str(made / "pipeline"), vae=own)
    assert differences(ours, theirs) == []
    assert ours.vae.config.scaling_factor == 0.5
    assert ours.vae.config._name_or_path == own.config._name_or_path == "./vae"
    repo_id = publish(
        {
            path.relative_to(made / "pipeline").as_posix(): path.read_bytes()
            for path in (made / "pipeline").rglob("*")
            if path.is_file()
        }
    )
    load = partial(LOAD, repo_id, endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    assert differences(load(components={"vae": vae}), theirs) == []
    with pytest.raises(InvalidArgumentError, match=r"there is no folder '\./nothing'"):
        load(components={"vae": "./nothing"})


def test_in_the_background_awaited_and_by_the_command_line(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    folder = "./classifier"
    job = nbloader.start(folder, device="cpu", view="none")
    assert job.result(timeout=120).model.name_or_path == folder
    assert "./classifier, a folder, ready" in job.diagnostics()
    built = asyncio.run(nbloader.aload(Path(folder), device="cpu", view="none"))
    assert built.model.name_or_path == "classifier"
    assert main(["load", folder, "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["repo_id"], told["commit_hash"], told["fetched_bytes"]) == (folder, None, 0)
    assert nbloader.load(folder, device="cpu", view="text") is not None
    out = capsys.readouterr().out
    assert out.startswith("set up: ./classifier\n")
    assert "download" not in out


# -- no network ------------------------------------------------------------------------------------

SEEN = """
import os
import sys

def hook(name, args):
    if name.startswith("socket.") and name != "socket.gethostname":
        frame = sys._getframe()
        while frame is not None:
            # urllib3 tries once, when it is imported, whether this machine can bind ::1.
            if frame.f_code.co_name == "_has_ipv6":
                return
            frame = frame.f_back
        with open(os.environ["SOCKETS_SEEN"], "a") as seen:
            print(sys.argv, name, args, file=seen)

sys.addaudithook(hook)
with open(os.environ["SOCKETS_SEEN"], "a") as seen:
    print("begun", file=seen)
"""

LOADS = """
import json
import sys
import nbloader

folder, *relative = json.loads(sys.argv[1])
for each in (folder, *relative):
    nbloader.load(each, device="cpu", view="none")
report = nbloader.preflight(folder, device="cpu")
print([(each.name, str(each.status)) for each in report.results if each.name == "trial"])
"""


def test_no_process_opens_a_socket(made: Path, tmp_path: Path) -> None:
    """Neither this one, nor the worker, nor a trial: each begins with a hook that would see it."""
    (tmp_path / "sitecustomize.py").write_text(SEEN)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "SOCKETS_SEEN": str(tmp_path / "seen"),
    }
    names = [str(made / "classifier"), "./pipeline", "embedder", "lora"]
    done = subprocess.run(
        [sys.executable, "-c", LOADS, json.dumps(names)],
        cwd=made,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[('trial', 'passed')]\n", "")
    # This process, a worker for each load, and for the checks another two and a trial.
    assert (tmp_path / "seen").read_text() == "begun\n" * (1 + len(names) + 3)


# -- what a text means -----------------------------------------------------------------------------


def checked_of(given: Any, **keywords: Any) -> PreflightReport:
    """Make the checks, but for the trial, which takes seconds."""
    keywords = {"endpoint": NOWHERE, "device": "cpu", "view": "none"} | keywords
    return check(checked(Call(given, **keywords)), tries=False)


def test_a_name_that_could_be_an_id_is_a_folder_if_it_holds_a_model(
    made: Path, publish: Publish, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the libraries take it, and it is said; with `hf://` it is the repository."""
    repo_id = publish({"config.json": b"{}"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / repo_id).mkdir(parents=True)
    (tmp_path / repo_id / "config.json").write_text('{"batch_size": 3}')
    asked = partial(checked_of, endpoint=hub.endpoint)
    (access,) = (each for each in asked(repo_id).results if each.name == "access")
    assert (access.status, access.message) == (CheckStatus.PASSED, f"{repo_id} can be read")
    shutil.rmtree(tmp_path / repo_id)
    shutil.copytree(made / "classifier", tmp_path / repo_id)
    report = asked(repo_id)
    (access,) = (each for each in report.results if each.name == "access")
    assert access.status is CheckStatus.WARNING
    assert "is loaded in place of the repository of that name" in access.message
    assert f'"hf://{repo_id}"' in access.hint
    assert report.ok
    (access,) = (each for each in asked(Path(repo_id)).results if each.name == "access")
    assert (access.status, access.message) == (
        CheckStatus.PASSED,
        f"the folder {short_path(str(tmp_path / repo_id))}",
    )
    (access,) = (each for each in asked(f"hf://{repo_id}").results if each.name == "access")
    assert (access.status, access.message) == (CheckStatus.PASSED, f"{repo_id} can be read")


def test_the_home_folder_and_a_separator_at_the_end(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    shutil.copytree(made / "classifier", tmp_path / "a" / "b" / "c" / "m")
    for given in ("~/a/b/c/m", "a/b/c/m", "a/b/c/m/", tmp_path / "a/b/c/m", Path("a/b/c/m")):
        report = checked_of(given)
        assert report.ok, report
        assert report.selection is not None
        assert report.selection.folder == str(tmp_path / "a" / "b" / "c" / "m")
    assert checked_of("~/a/b/c/m").repo_id == str(tmp_path / "a/b/c/m")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("./nothing", "there is no folder './nothing'"),
        ("~/nothing", "there is no folder '~/nothing'"),
        ("/nothing/at/all", "there is no folder '/nothing/at/all'"),
        (Path("nothing"), "there is no folder 'nothing'"),
        (Path("x" * 5000), "there is no folder"),
        ("nothing.safetensors", "there is no file 'nothing.safetensors'"),
        ("./nothing.gguf", "there is no file './nothing.gguf'"),
        (os.fsencode("./bytes"), "is not a repository id"),
    ],
)
def test_a_path_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRepoIdError) as caught:
        LOAD(given)
    assert message in caught.value.message


def test_what_a_folder_has_not(made: Path) -> None:
    folder = made / "classifier"
    with pytest.raises(InvalidArgumentError, match="there is nothing to download") as caught:
        nbloader.download(str(folder), view="none")
    assert caught.value.hint == f'Load it: nbloader.load("{folder}").'
    with pytest.raises(InvalidArgumentError, match="is for a repository"):
        LOAD(folder, revision="main")
    with pytest.raises(InvalidArgumentError, match="is for a repository"):
        LOAD(folder, loader_kwargs={"revision": "v1"})


# -- companions ------------------------------------------------------------------------------------


@pytest.fixture
def hub_with_base(hub: LocalHub, hub_root: Path, made: Path) -> LocalHub:
    """The base of an adapter in the Hub, and the code of a model."""
    if not (hub_root / "models/folders").exists():
        shutil.copytree(made / "llama", hub_root / "models/folders/llama")
        saved(hub_root / "models/folders/code", _with_code)
    return hub


def _with_code(folder: Path) -> None:
    folder.mkdir(parents=True)
    companions.save_code(folder)


def test_the_base_of_an_adapter_comes_from_the_hub(
    made: Path, hub_with_base: LocalHub, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "lora", lambda f: companions.save_lora(f, "folders/llama"))
    before = contents(folder)
    with pytest.raises(NotCachedError) as caught:
        LOAD(folder, local_files_only=True, cache_dir=tmp_path / "cache")
    assert caught.value.message == (
        f"folders/llama, which {folder} needs, is not complete in the cache"
    )
    events: list[Event] = []
    load = partial(LOAD, folder, endpoint=hub_with_base.endpoint, cache_dir=tmp_path / "cache")
    ours = load(on_event=events.append)
    assert Stage.DOWNLOAD in [e.stage for e in events if isinstance(e, StageStarted)]
    (selected,) = (event for event in events if isinstance(event, Selected))
    assert selected.hub is not None
    assert set(selected.cached) == {"adapter_config.json", "adapter_model.safetensors"}
    model = ours.model
    assert (model.name_or_path, ours.tokenizer.name_or_path) == ("folders/llama", "folders/llama")
    assert model.peft_config["default"].base_model_name_or_path == "folders/llama"
    # What the library makes of an adapter whose base is in a folder.
    other = saved(tmp_path / "other", lambda f: companions.save_lora(f, str(made / "llama")))
    shutil.copy(folder / "adapter_model.safetensors", other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = task_of("text-generation", str(other))
        theirs.model.peft_config["default"].base_model_name_or_path = "folders/llama"
    assert differences(ours, theirs) == []
    # From here on the Hub is not needed.
    for again in (load(local_files_only=True), load(endpoint=NOWHERE)):
        assert differences(again, theirs) == []
    assert contents(folder) == before


def test_code_that_lies_in_the_hub(hub_with_base: LocalHub, tmp_path: Path) -> None:
    folder = saved(tmp_path / "coded", lambda f: companions.save_coded(f, "folders/code"))
    load = partial(LOAD, folder, endpoint=hub_with_base.endpoint, cache_dir=tmp_path / "cache")
    made = load(trust_remote_code=True)
    assert (type(made.model).__name__, made.model.width) == ("OwnClassifier", 32)


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    folder = saved(tmp_path / "lora", lambda f: companions.save_lora(f, "/workspace/llama"))
    with pytest.raises(UnsupportedRepoError) as caught:
        LOAD(folder)
    assert "'/workspace/llama' is named, and there is no such folder" in caught.value.message
    assert "base_model_name_or_path" in caught.value.hint


# -- code, pickles, shards -------------------------------------------------------------------------


def test_code_in_the_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "own", lambda f: companions.save_coded(f, "x"))
    companions.save_code(folder)
    path = folder / "config.json"
    path.write_text(path.read_text().replace("x--own_classifier", "own_classifier"))
    before = contents(folder)
    with pytest.raises(NbloaderError, match="own_classifier"):
        LOAD(folder)
    ours = LOAD(folder, trust_remote_code=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = task_of("text-classification", str(folder), trust_remote_code=True)
    assert differences(ours, theirs) == []
    assert type(ours.model).__name__ == "OwnClassifier"
    assert contents(folder) == before


def test_pickled_weights(copy_of: Callable[[str], Path]) -> None:
    import torch
    from safetensors.torch import load_file

    folder = copy_of("classifier")
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = task_of("text-classification", str(folder))
    assert differences(LOAD(folder), theirs) == []
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MalformedFileError, match=r"'pytorch_model.bin' is cut off") as caught:
        LOAD(folder)
    assert caught.value.hint.startswith("The folder may be half copied")


def test_shards(made: Path, tmp_path: Path) -> None:
    import transformers

    folder = Path(shutil.copytree(made / "classifier", tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForSequenceClassification.from_pretrained(made / "classifier")
        model.save_pretrained(folder, max_shard_size="60KB")
        theirs = task_of("text-classification", str(folder))
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    assert differences(LOAD(folder), theirs) == []
    shards[1].rename(folder / "elsewhere")
    with pytest.raises(MalformedFileError) as caught:
        LOAD(folder)
    assert f"names {shards[1].name!r}, which is not there" in caught.value.message
    assert caught.value.hint.startswith("The folder may be half copied")
    shards[1].write_bytes((folder / "elsewhere").read_bytes()[:-1])
    with pytest.raises(MalformedFileError, match=r"should have \d+ bytes, but has \d+") as caught:
        LOAD(folder)
    assert shards[1].name in caught.value.message
    assert caught.value.hint.startswith("The folder may be half copied")


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("unet/diffusion_pytorch_model.safetensors", 1000),
        ("unet/diffusion_pytorch_model.safetensors", 4),
        ("unet/diffusion_pytorch_model.safetensors", 0),
        ("model_index.json", 10),
        ("vae/config.json", 10),
    ],
)
def test_a_file_that_was_cut_off(copy_of: Callable[[str], Path], path: str, left: int) -> None:
    folder = copy_of("pipeline")
    whole = (folder / path).read_bytes()
    (folder / path).write_bytes(whole[:left])
    events: list[Event] = []
    with pytest.raises(NbloaderError) as caught:
        LOAD(folder, on_event=events.append)
    assert path in caught.value.message
    assert caught.value.hint.startswith("The folder may be half copied")
    assert Stage.INITIALISE not in [e.stage for e in events if isinstance(e, StageStarted)]


def test_a_part_that_was_not_copied(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("pipeline")
    shutil.rmtree(folder / "unet")
    with pytest.raises(NbloaderError) as caught:
        LOAD(folder)
    assert "declares a 'UNet2DConditionModel', which has no folder" in caught.value.message
    assert caught.value.hint.startswith("The folder may be half copied")


def test_a_module_that_was_not_copied(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("embedder")
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(NbloaderError) as caught:
        LOAD(folder)
    assert "has a Pooling in '1_Pooling' without a configuration" in caught.value.message
    assert caught.value.hint.startswith("The folder may be half copied")


def test_the_file_of_one_model_is_told_the_line_for_its_folder(
    copy_of: Callable[[str], Path],
) -> None:
    folder = copy_of("pipeline") / "unet"
    with pytest.raises(UnsupportedRepoError) as caught:
        LOAD(folder / "diffusion_pytorch_model.safetensors")
    assert f'nbloader.load("{folder}/")' in caught.value.hint
    assert type(LOAD(f"{folder}/")).__name__ == "UNet2DConditionModel"


# -- hostile and odd folders -----------------------------------------------------------------------


def test_what_is_no_file_is_not_there(copy_of: Callable[[str], Path]) -> None:
    """Links that lead to files are followed, and so are those to folders, once."""
    folder = copy_of("pipeline")
    (folder / "unet").rename(folder.parent / "elsewhere")
    (folder / "unet").symlink_to(folder.parent / "elsewhere")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(folder.parent / "weights")
    weights.symlink_to(folder.parent / "weights")
    os.mkfifo(folder / "diffusion_pytorch_model.fp16.safetensors")
    os.mkfifo(folder / "vae" / "README.md")
    (folder / "loop").symlink_to(folder)
    (folder / "circle").symlink_to("circle")
    (folder / "zero.safetensors").symlink_to("/dev/zero")
    (folder / "dead.json").symlink_to("nowhere")
    (folder / "a:b\\c.json").write_text("{}")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.json")).write_text("{}")
    deep = folder
    for _ in range(40):
        deep = deep / "deep"
        deep.mkdir()
    (deep / "config.json").write_text("{}")
    assert set(contents(folder)) >= {"loop", "circle"}
    ours = LOAD(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pipeline_of(str(folder))
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("name", ["model_index.json", "unet/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "zero", "circle"])
def test_a_file_that_is_needed_and_is_none(
    copy_of: Callable[[str], Path], name: str, kind: str
) -> None:
    folder = copy_of("pipeline")
    path = folder / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "zero" else path.name)
    with pytest.raises(NbloaderError) as caught:
        LOAD(folder)
    assert caught.value.reference in ("unsupported-repo", "no-weights", "malformed-file")


def test_a_folder_without_a_model(tmp_path: Path, made: Path) -> None:
    with pytest.raises(UnsupportedRepoError, match="has no files"):
        LOAD(tmp_path)
    shutil.copytree(made / "classifier", tmp_path / "qwen" / "transformers" / "1")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UnsupportedRepoError, match="is a folder of models, and none") as caught:
        LOAD(tmp_path)
    below = tmp_path / "qwen" / "transformers" / "1"
    assert caught.value.hint == f'There is a model below it: nbloader.load("{below}").'
    # So are those attached that Kaggle has.
    assert checked_of(below).ok


def test_a_path_that_is_no_text(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("classifier")
    odd = os.fsdecode(os.fsencode(folder.parent) + b"/caf\xe9")
    folder.rename(odd)
    with pytest.raises(InvalidRepoIdError, match="is no text in UTF-8"):
        LOAD(odd)


def test_a_folder_that_may_only_be_read(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("embedder")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = contents(folder)
        ours = LOAD(folder)
        assert differences(ours, embedder_of(str(folder))) == []
        assert contents(folder) == before
    finally:
        for path in paths:
            path.chmod(0o755)


def test_a_card_says_what_the_hub_would(made: Path, copy_of: Callable[[str], Path]) -> None:
    del made
    folder = copy_of("llama")
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\npipeline_tag: feature-extraction\n"
        "base_model:\n- org/first\n- 'not an id'\n---\n# Model\npipeline_tag: other\n"
    )
    assert type(LOAD(folder)).__name__ == "FeatureExtractionPipeline"
    assert type(LOAD(folder, task="text-generation")).__name__ == "TextGenerationPipeline"
