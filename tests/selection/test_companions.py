"""Files of other repositories in a selection: code, and the base models of adapters."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import (
    MalformedFileError,
    NbloaderError,
    NoWeightsError,
    RepoError,
    UnsafePathError,
    UnsupportedRepoError,
)
from nbloader.records import (
    Companion,
    Component,
    Kind,
    Listing,
    RepoFile,
    RepoType,
    Selection,
    SelectionRequest,
)
from nbloader.selection import needed, select
from nbloader.selection.pipeline_code import COMMUNITY

OWN = "org/own"
TRUST = SelectionRequest(trust_remote_code=True)
CONFIG = {"model_type": "bert", "architectures": ["BertModel"]}


def listing(repo_id: str, files: Mapping[str, object], revision: str = "main") -> Listing:
    return Listing(
        repo_id=repo_id,
        revision=revision,
        commit_hash=f"{sum(map(ord, repo_id)):040x}",
        files=tuple(RepoFile(path=path, size=10, etag="0" * 40) for path in files),
    )


def selected(
    repositories: Mapping[str, Mapping[str, object]],
    request: SelectionRequest = TRUST,
    tags: Mapping[str, str] | None = None,
) -> Selection:
    """Selection `org/own` as the worker does. `...` is a file that no selection may read."""
    known: dict[str, bytes] = {}
    others: dict[str, Listing] = {}

    def listed(repo_id: str, revision: str | None) -> Listing:
        found = listing(repo_id, repositories[repo_id], revision or "main")
        return replace(found, pipeline_tag=(tags or {}).get(repo_id))

    own = listed(OWN, None)
    for _ in range(6):
        asked = needed(own, request, known, others)
        for reference in asked.references:
            assert reference.repo_id not in others
            others[reference.repo_id] = listed(reference.repo_id, reference.revision)
        assert not known.keys() & set(asked.reads)
        for path in asked.reads:
            repo_id, colon, inner = path.rpartition(":")
            content = repositories[repo_id if colon else OWN][inner]
            assert content is not ..., f"{path} was read in vain"
            known[path] = content if isinstance(content, bytes) else json.dumps(content).encode()
        if not asked:
            break
    selection = select(own, request, known, others)
    assert sorted(path for part in selection.components for path in part.paths) == [
        file.path for file in selection.files
    ]
    assert all(
        file.path == f"{file.repo_id}:{file.path_in_repo}"
        for file in selection.files
        if file.repo_id
    )
    assert set(known) <= {file.path for file in selection.files}, "read in vain"
    return selection


def companions(selection: Selection) -> list[tuple[str, str, str]]:
    return [(one.repo_id, one.role, one.revision) for one in selection.companions]


def model(auto_map: object = None, **files: object) -> dict[str, object]:
    config = CONFIG | ({"auto_map": auto_map} if auto_map is not None else {})
    return {"config.json": config, "model.safetensors": ..., **files}


CODE = {
    "modeling.py": ...,
    "parts.py": ...,
    "config.json": ...,
    "README.md": ...,
    "sub/deep.py": ...,
}


# --- code ---------------------------------------------------------------------------------------


def test_code_of_another_repository_is_selected_with_its_commit() -> None:
    own = model({"AutoModel": "org/code--modeling.Own"})
    selection = selected({OWN: own, "org/code": CODE})
    commit = listing("org/code", {}).commit_hash
    assert selection == Selection(
        repo_id=OWN,
        revision="main",
        commit_hash=listing(OWN, {}).commit_hash,
        kind=Kind.TRANSFORMERS,
        class_name="BertModel",
        components=(
            Component(
                name="model",
                library="transformers",
                class_name="BertModel",
                paths=("config.json", "model.safetensors"),
                weights=("model.safetensors",),
                model_type="bert",
            ),
            Component(name="config", paths=("org/code:modeling.py", "org/code:parts.py")),
        ),
        files=(
            RepoFile(path="config.json", size=10, etag="0" * 40),
            RepoFile(path="model.safetensors", size=10, etag="0" * 40),
            RepoFile(path="org/code:modeling.py", size=10, etag="0" * 40, repo_id="org/code"),
            RepoFile(path="org/code:parts.py", size=10, etag="0" * 40, repo_id="org/code"),
        ),
        custom_code=True,
        companions=(
            Companion(repo_id="org/code", role="code", revision="main", commit_hash=commit),
        ),
    )
    assert selection.total == 40
    assert [selection.commit_of(file) for file in selection.files] == [
        selection.commit_hash
    ] * 2 + [commit] * 2


def test_code_that_is_not_trusted_is_not_even_listed() -> None:
    selection = selected({OWN: model({"AutoModel": "org/code--modeling.Own"})}, SelectionRequest())
    assert (selection.companions, selection.custom_code) == ((), False)
    assert selection.components[0].code == ("org/code--modeling.py",)


def test_code_that_is_named_with_the_repositorys_own_id_is_its_own() -> None:
    selection = selected({OWN: model({"AutoModel": f"{OWN}--modeling.Own"}) | {"modeling.py": ...}})
    assert (companions(selection), selection.custom_code) == ([(OWN, "code", "main")], True)
    assert "modeling.py" in {file.path for file in selection.files}


@pytest.mark.parametrize(
    ("auto_map", "error", "text"),
    [
        ({"AutoModel": "org/code--gone.Own"}, MalformedFileError, "code that is not there"),
        ({"AutoModel": "../../etc--modeling.Own"}, MalformedFileError, "not a repository"),
        ({"AutoModel": "org/co de--modeling.Own"}, MalformedFileError, "not a repository"),
        ({"AutoModel": "org/code--../modeling.Own"}, MalformedFileError, "cannot be a module"),
        ({"AutoModel": "org/code--/etc/modeling.Own"}, MalformedFileError, "cannot be a module"),
        ({"AutoModel": "org/code--a.b.Own"}, MalformedFileError, "cannot be a module"),
        ({"AutoModel": "org/code--modeling"}, MalformedFileError, "cannot be a module"),
        ({"AutoModel": f"org/code--{'m' * 200}.Own"}, MalformedFileError, "cannot be a module"),
        (
            {"AutoConfig": "org/code--modeling.C", "AutoModel": "org/more--modeling.M"},
            UnsupportedRepoError,
            "'org/code', 'org/more'",
        ),
        (
            {"AutoConfig": f"{OWN}--modeling.C", "AutoModel": "org/more--modeling.M"},
            UnsupportedRepoError,
            "'org/more', 'org/own'",
        ),
        (
            {f"Auto{index}": f"org/code{index}--modeling.C" for index in range(1000)},
            UnsupportedRepoError,
            "several repositories",
        ),
    ],
)
def test_a_reference_that_cannot_be_followed_is_refused(
    auto_map: object, error: type[RepoError], text: str
) -> None:
    others = dict.fromkeys(("org/code", "org/more", "org/code0", "org/code1"), CODE)
    with pytest.raises(error) as raised:
        selected({OWN: model(auto_map) | {"modeling.py": ...}, **others})
    assert text in str(raised.value)


@pytest.mark.parametrize("name", ["../outside.py", "a/../../b.py", "C:\\x.py", "nul\x00.py"])
def test_a_name_in_another_repository_is_as_hostile(name: str) -> None:
    with pytest.raises(UnsafePathError):
        selected(
            {OWN: model({"AutoModel": "org/code--modeling.Own"}), "org/code": CODE | {name: ...}}
        )


def test_a_file_of_another_repository_has_no_colon() -> None:
    name = "org:modeling.py"
    with pytest.raises(UnsafePathError):
        selected(
            {OWN: model({"AutoModel": "org/code--modeling.Own"}), "org/code": CODE | {name: ...}}
        )


def test_a_file_of_another_repository_must_be_possible_on_this_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named: dict[str, Mapping[str, object]] = {
        OWN: model({"AutoModel": "org/code--modeling.Own"}),
        "org/code": CODE | {"con.py": ...},
    }
    monkeypatch.setattr("nbloader.selection.repo.WINDOWS", False)
    selected(named)
    monkeypatch.setattr("nbloader.selection.repo.WINDOWS", True)
    with pytest.raises(UnsafePathError):
        selected(named)


def test_a_file_that_looks_like_one_of_another_repository_is_refused() -> None:
    own = model({"AutoModel": "org/code--modeling.Own"}) | {"org/code:modeling.py": ...}
    with pytest.raises(UnsafePathError):
        selected({OWN: own, "org/code": CODE})


PIPELINE = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
    },
    "unet/config.json": {},
    "unet/diffusion_pytorch_model.safetensors": ...,
}


def test_the_code_of_a_pipeline_may_be_in_another_repository() -> None:
    request = replace(TRUST, custom_pipeline="org/code", custom_revision="v1")
    code = {"pipeline.py": ..., "parts.py": ..., "README.md": ...}
    selection = selected({OWN: PIPELINE, "org/code": code}, request)
    assert companions(selection) == [("org/code", "code", "v1")]
    assert selection.components[-1].paths == (
        "model_index.json",
        "org/code:parts.py",
        "org/code:pipeline.py",
    )
    assert (selection.custom_code, selection.custom_pipeline) == (True, True)
    with pytest.raises(UnsupportedRepoError, match=r"without a pipeline\.py"):
        selected({OWN: PIPELINE, "org/code": {"own.py": ...}}, request)
    with pytest.raises(UnsupportedRepoError, match="trust_remote_code=True"):
        selected({OWN: PIPELINE, "org/code": code}, replace(request, trust_remote_code=False))


# --- adapters -----------------------------------------------------------------------------------


def adapter(base: object = "org/base", **config: object) -> dict[str, object]:
    return {
        "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": base, **config},
        "adapter_model.safetensors": ...,
        "tokenizer.json": ...,
    }


BASE = model(**{"tokenizer.json": ..., "README.md": ...})


def test_an_adapter_and_its_base_are_one_selection() -> None:
    selection = selected({OWN: adapter(), "org/base": BASE}, SelectionRequest())
    assert (selection.class_name, companions(selection)) == (
        "BertModel",
        [("org/base", "base-model", "main")],
    )
    assert selection.components == (
        Component(
            name="org/base",
            library="transformers",
            class_name="BertModel",
            paths=("org/base:config.json", "org/base:model.safetensors"),
            weights=("org/base:model.safetensors",),
            model_type="bert",
        ),
        Component(
            name="adapter",
            library="peft",
            paths=("adapter_config.json", "adapter_model.safetensors"),
            weights=("adapter_model.safetensors",),
            needs=("peft",),
        ),
        # The tokenizer is that of the base: transformers looks at no other.
        Component(name="config", paths=("org/base:tokenizer.json",)),
    )


def test_the_revision_that_an_adapter_names_is_that_of_its_base() -> None:
    selection = selected({OWN: adapter(revision="v1"), "org/base": BASE})
    assert companions(selection) == [("org/base", "base-model", "v1")]


def test_an_empty_revision_of_an_adapter_is_none() -> None:
    selection = selected({OWN: adapter(revision=""), "org/base": BASE})
    assert companions(selection) == [("org/base", "base-model", "main")]


def test_a_base_in_shards_is_selected_by_its_index() -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    base = {
        "config.json": CONFIG,
        "model.safetensors.index.json": index,
        "model-1.safetensors": ...,
        "model-2.safetensors": ...,
        "model-3.safetensors": ...,
    }
    selection = selected({OWN: adapter(), "org/base": base})
    assert selection.components[0].weights == (
        "org/base:model-1.safetensors",
        "org/base:model-2.safetensors",
    )


def test_the_code_of_a_base_is_two_references_away() -> None:
    base = model({"AutoModel": "org/code--modeling.Own"})
    selection = selected({OWN: adapter(), "org/base": base, "org/code": CODE})
    assert companions(selection) == [
        ("org/base", "base-model", "main"),
        ("org/code", "code", "main"),
    ]
    assert selection.custom_code


def test_a_base_that_names_itself_for_its_code_is_a_repository_of_code() -> None:
    base = model({"AutoModel": "org/base--modeling.Own"}) | {"modeling.py": ...}
    selection = selected({OWN: adapter(), "org/base": base})
    assert companions(selection) == [
        ("org/base", "base-model", "main"),
        ("org/base", "code", "main"),
    ]
    assert "org/base:modeling.py" in {file.path for file in selection.files}


@pytest.mark.parametrize("base", [OWN, "/home/someone/out", "", None, 7])
def test_an_adapter_beside_its_own_model_needs_no_other(base: object) -> None:
    selection = selected({OWN: model() | adapter(base)})
    assert companions(selection) == []
    assert [(part.name, part.paths) for part in selection.components] == [
        ("model", ("config.json", "model.safetensors")),
        ("adapter", ("adapter_config.json", "adapter_model.safetensors")),
        ("config", ("tokenizer.json",)),
    ]


def test_an_adapter_beside_another_model_follows_its_name() -> None:
    """As the Hub's id does: what lies beside may be the base with the adapter merged in."""
    selection = selected({OWN: model() | adapter(), "org/base": BASE})
    assert companions(selection) == [("org/base", "base-model", "main")]
    assert "model.safetensors" not in {file.path for file in selection.files}


@pytest.mark.parametrize(
    ("asked", "own", "trained", "expected"),
    [
        ("fill-mask", "text-generation", "SEQ_CLS", "fill-mask"),
        (None, "text-generation", "SEQ_CLS", "text-generation"),
        (None, None, "SEQ_CLS", "text-classification"),
        (None, None, "CAUSAL_LM", "feature-extraction"),
        (None, None, ["SEQ_CLS"], "feature-extraction"),
    ],
)
def test_the_task_is_that_of_the_adapter_or_else_of_its_base(
    asked: str | None, own: str | None, trained: object, expected: str
) -> None:
    tags = {"org/base": "feature-extraction"} | ({OWN: own} if own else {})
    request = SelectionRequest(task=asked)
    selection = selected({OWN: adapter(task_type=trained), "org/base": BASE}, request, tags)
    assert selection.task == expected


@pytest.mark.parametrize(
    ("own", "others", "error", "text"),
    [
        (adapter(OWN), {}, UnsupportedRepoError, "names itself"),
        (adapter("/home/someone/base"), {}, UnsupportedRepoError, "named by no repository"),
        (adapter("../base"), {}, UnsupportedRepoError, "named by no repository"),
        (adapter(["org/base"]), {}, UnsupportedRepoError, "named by no repository"),
        (adapter(revision="../x"), {"org/base": BASE}, MalformedFileError, "the revision '../x'"),
        (adapter(peft_type="PREFIX_TUNING"), {}, UnsupportedRepoError, 'cls="PeftModel"'),
        (
            adapter(peft_type="PREFIX_TUNING", task_type="CAUSAL_LM"),
            {},
            UnsupportedRepoError,
            'cls="AutoPeftModelForCausalLM"',
        ),
        (
            {"adapter_config.json": {"base_model_name_or_path": "org/base"}},
            {},
            NoWeightsError,
            "none of its weights",
        ),
        # A loop ends at the first base that is no model.
        (
            adapter(),
            {"org/base": adapter(OWN)},
            UnsupportedRepoError,
            "'org/own' is an adapter for 'org/base', which is an adapter itself",
        ),
        (adapter(), {"org/base": {"a.txt": ...}}, UnsupportedRepoError, "which is not a model"),
        (
            adapter(),
            {"org/base": {"model_index.json": ...}},
            UnsupportedRepoError,
            'nbloader.load("org/base", adapters="org/own")',
        ),
        (adapter(), {"org/base": {"config.json": CONFIG}}, NoWeightsError, "'org/base'"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_refused_with_a_reason(
    own: dict[str, object], others: dict[str, Any], error: type[RepoError], text: str
) -> None:
    with pytest.raises(error) as raised:
        selected({OWN: own, **others}, SelectionRequest())
    assert text in str(raised.value)


# --- pipelines of the community -------------------------------------------------------------------

PROMPTED: dict[str, object] = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
    },
    "scheduler/scheduler_config.json": ...,
}
MIRROR: dict[str, object] = {
    "README.md": ...,
    "main/lpw.py": b"",
    "main/new.py": b"",
    "v0.9.0/lpw.py": b"",
    "v0.10.0/lpw.py": b"",
    "v0.10.0/parted.py": b"from .gone import x",
}


def community(name: str, installed: str | None = None, revision: str | None = None) -> Selection:
    request = replace(
        TRUST, custom_pipeline=name, custom_revision=revision, library_version=installed
    )
    return selected({OWN: PROMPTED, COMMUNITY: MIRROR}, request)


@pytest.mark.parametrize(
    ("installed", "revision", "folder"),
    [
        ("0.10.0", None, "v0.10.0"),
        ("0.9.0.dev0", None, "v0.9.0"),
        ("0.11.0", None, "main"),
        (None, None, "main"),
        ("0.10.0", "main", "main"),
        ("0.10.0", "0.9.0", "v0.9.0"),
        ("0.10.0", "v0.9.0", "v0.9.0"),
    ],
)
def test_a_pipeline_of_the_community_is_that_of_a_version(
    installed: str | None, revision: str | None, folder: str
) -> None:
    selection = community("lpw", installed, revision)
    assert selection.companions == (
        Companion(
            repo_id=COMMUNITY,
            role="code",
            revision="main",
            commit_hash=listing(COMMUNITY, {}).commit_hash,
            repo_type=RepoType.DATASET,
        ),
    )
    config = next(part for part in selection.components if part.name == "config")
    assert config.paths == (f"{COMMUNITY}:{folder}/lpw.py", "model_index.json")
    assert (selection.custom_code, selection.custom_pipeline) == (True, True)


@pytest.mark.parametrize(
    ("name", "revision", "text"),
    [
        ("lwp", None, "'lpw'"),
        ("new", "0.9.0", "in 'v0.9.0'"),
        ("lpw", "0.8.0", "'0.10.0' or '0.9.0' or 'main'"),
        ("lpw", "refs/pr/1", "no pipelines for that version"),
        ("not a name", None, "neither a file"),
    ],
)
def test_one_that_the_community_has_not_is_refused_with_the_nearest(
    name: str, revision: str | None, text: str
) -> None:
    with pytest.raises(UnsupportedRepoError) as raised:
        community(name, "0.10.0", revision)
    assert text in str(raised.value)


def test_one_that_needs_another_file_is_refused() -> None:
    with pytest.raises(MalformedFileError, match=r"imports '\.gone'"):
        community("parted", "0.10.0")


def test_without_trust_nothing_is_asked_of_the_community() -> None:
    request = SelectionRequest(custom_pipeline="lpw")
    with pytest.raises(UnsupportedRepoError, match=r"community(.|\n)*trust_remote_code=True"):
        selected({OWN: PROMPTED}, request)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("org/base"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@given(_json)
def test_whatever_an_adapter_says_there_is_a_selection_or_a_named_error(value: object) -> None:
    for config in (
        value,
        {"base_model_name_or_path": value},
        {"base_model_name_or_path": "org/base", "revision": value, "task_type": value},
        {"base_model_name_or_path": "org/base", "peft_type": value},
    ):
        own = adapter() | {"adapter_config.json": config}
        repositories = defaultdict[str, dict[str, object]](dict, {OWN: own, "org/base": BASE})
        try:
            selection = selected(repositories)
        except NbloaderError:
            continue
        assert companions(selection)[0][:2] == ("org/base", "base-model")
