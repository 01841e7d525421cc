"""The Hub's own client against the local Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from huggingface_hub.utils import parse_ratelimit_headers

from nbloader.localhub import Counters, Fault, LocalHub, RequestClass, Traffic

WriteRepo = Callable[[Path, str, Mapping[str, bytes]], None]
Publish = Callable[[Mapping[str, bytes]], str]


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


def _contents(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_model_info_names_files_and_hashes(
    hub: LocalHub, api: HfApi, publish: Publish, weights: bytes
) -> None:
    repo_id = publish({"config.json": b"{}", "model.safetensors": weights})
    info = api.model_info(repo_id, files_metadata=True)
    tree = {
        entry.path: entry
        for entry in api.list_repo_tree(repo_id, recursive=True)
        if isinstance(entry, RepoFile)
    }
    assert info.siblings is not None
    assert [(file.rfilename, file.size, file.blob_id) for file in info.siblings] == [
        (entry.path, entry.size, entry.blob_id) for entry in tree.values()
    ]
    lfs = tree["model.safetensors"].lfs
    assert lfs is not None
    assert (lfs.size, tree["config.json"].lfs) == (len(weights), None)
    assert (info.id, info.private, info.gated, info.disabled) == (repo_id, False, False, False)
    assert api.model_info(repo_id, revision=info.sha).sha == info.sha


def test_the_tree_comes_in_pages(tmp_path: Path, write_repo: WriteRepo) -> None:
    files = {f"folder {index % 3}/file{index}.txt": b"x" for index in range(10)}
    write_repo(tmp_path, "org/name", files)
    with LocalHub.start(tmp_path, page_size=4, max_seconds=60) as hub:
        api = HfApi(endpoint=hub.endpoint, token=False)
        entries = list(api.list_repo_tree("org/name", recursive=True))
        top = list(api.list_repo_tree("org/name"))
        one = list(api.list_repo_tree("org/name", "folder 0"))
        requests = hub.counters().of(RequestClass.TREE).requests
    assert sorted(entry.path for entry in entries if isinstance(entry, RepoFile)) == sorted(files)
    folders = ["folder 0", "folder 1", "folder 2"]
    assert [entry.path for entry in entries if isinstance(entry, RepoFolder)] == folders
    assert [entry.path for entry in top] == folders
    assert [entry.path for entry in one] == [f"folder 0/file{index}.txt" for index in (0, 3, 6, 9)]
    assert requests == 4 + 1 + 1


def test_paths_info_leaves_out_what_is_not_there(api: HfApi, publish: Publish) -> None:
    repo_id = publish({"config.json": b"{}", "sub/a.txt": b"a"})
    infos = api.get_paths_info(repo_id, ["sub", "sub/a.txt", "nothing"], expand=True)
    assert [(type(info), info.path) for info in infos] == [
        (RepoFolder, "sub"),
        (RepoFile, "sub/a.txt"),
    ]
    assert infos[0].last_commit is not None
    assert infos[0].last_commit.oid == api.model_info(repo_id).sha


def test_a_snapshot_equals_the_folder_and_no_byte_comes_twice(
    hub: LocalHub, publish: Publish, weights: bytes, tmp_path: Path
) -> None:
    files = {
        "config.json": b"{}",
        "empty.txt": b"",
        "a b/ü%20#?.json": b"[1]",
        "unet/model.safetensors": weights,
    }
    repo_id = publish(files)
    folder = snapshot_download(repo_id, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert _contents(folder) == files
    # Blobs bear the names that other libraries expect.
    blobs = {path.name for path in tmp_path.rglob("blobs/*")}
    entries = HfApi(endpoint=hub.endpoint, token=False).list_repo_tree(repo_id, recursive=True)
    files_of_tree = [entry for entry in entries if isinstance(entry, RepoFile)]
    assert blobs == {file.lfs.sha256 if file.lfs else file.blob_id for file in files_of_tree}
    served = hub.counters()
    assert {
        path: count for path, count in served.body_bytes_by_path.items() if path != repo_id
    } == {f"{repo_id}/{path}": len(content) for path, content in files.items() if content}
    assert (served.of(RequestClass.CDN_GET), served.of(RequestClass.CDN_HEAD)) == (
        Traffic(1, len(weights)),
        Traffic(),
    )


def test_a_change_makes_a_new_commit_and_the_old_one_stays(
    hub: LocalHub, api: HfApi, publish: Publish, weights: bytes, tmp_path: Path
) -> None:
    before = {"config.json": b"{}", "model.safetensors": weights}
    repo_id = publish(before)
    old = api.model_info(repo_id).sha
    after = {"config.json": b"{ }", "model.safetensors": weights[::-1]}
    publish(after)
    new = api.model_info(repo_id).sha
    folders = [
        snapshot_download(
            repo_id, revision=sha, endpoint=hub.endpoint, cache_dir=tmp_path, token=False
        )
        for sha in (old, new)
    ]
    assert old != new
    assert [_contents(folder) for folder in folders] == [before, after]


@pytest.mark.parametrize(
    ("name", "kind"), [("v1.0", "tag"), ("feature/x", "branch"), ("refs/pr/1", "pull-request")]
)
def test_a_revision_may_have_a_name(
    hub: LocalHub,
    api: HfApi,
    publish: Publish,
    tmp_path: Path,
    name: str,
    kind: str,
) -> None:
    repo_id = publish({"a.txt": f"before {name}".encode()})
    sha = hub.set_ref(repo_id, name, kind=kind)  # type: ignore[arg-type]  # of the table above
    publish({"a.txt": b"after"})
    path = hf_hub_download(
        repo_id,
        "a.txt",
        revision=name,
        endpoint=hub.endpoint,
        cache_dir=tmp_path,
        token=False,
    )
    assert Path(path).read_bytes() == f"before {name}".encode()
    assert api.model_info(repo_id, revision=name).sha == sha
    refs = api.list_repo_refs(repo_id, include_pull_requests=True)
    named = {"tag": refs.tags, "branch": refs.branches, "pull-request": refs.pull_requests}[kind]
    assert (name, sha) in [(ref.name, ref.target_commit) for ref in named or []]
    assert refs.branches[0].name == "main"


def test_what_is_missing_is_named(
    hub: LocalHub, api: HfApi, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish({"a.txt": b"a"})

    def download(repo: str, file: str, revision: str) -> str:
        return hf_hub_download(
            repo,
            file,
            revision=revision,
            endpoint=hub.endpoint,
            cache_dir=tmp_path,
            token=False,
        )

    with pytest.raises(RepositoryNotFoundError):
        download("org/nothing", "a.txt", "main")
    with pytest.raises(RevisionNotFoundError):
        download(repo_id, "a.txt", "nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo_id, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        download(repo_id, "nothing.txt", "main")
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo_id, "nothing"))
    # The client remembers that the file is not there: the error named the commit.
    assert [path.name for path in tmp_path.rglob(".no_exist/*/*")] == ["nothing.txt"]


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_there_are_no_datasets_and_spaces(
    hub: LocalHub, api: HfApi, publish: Publish, tmp_path: Path, kind: str
) -> None:
    repo_id = publish({"a.txt": b"a"})
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info(repo_id, repo_type=kind)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(
            repo_id,
            "a.txt",
            repo_type=kind,
            endpoint=hub.endpoint,
            cache_dir=tmp_path,
            token=False,
        )


def test_a_private_repository_is_hidden_from_strangers(hub: LocalHub, publish: Publish) -> None:
    repo_id = publish({"a.txt": b"a"})
    hub.set_access(repo_id, private=True)
    hub.add_token("hf_member", repos=[repo_id])
    hub.add_token("hf_stranger")
    for token, status in ((False, 401), ("hf_stranger", 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            HfApi(endpoint=hub.endpoint).model_info(repo_id, token=token)
        assert caught.value.response.status_code == status
    assert HfApi(endpoint=hub.endpoint).model_info(repo_id, token="hf_member").private is True


def test_a_gated_repository_shows_its_listing_but_not_its_files(
    hub: LocalHub, publish: Publish, tmp_path: Path, weights: bytes
) -> None:
    repo_id = publish({"a.txt": b"a", "a.bin": weights})
    hub.set_access(repo_id, gated="manual")
    hub.add_token("hf_member", repos=[repo_id])
    hub.add_token("hf_stranger")
    api = HfApi(endpoint=hub.endpoint)
    assert api.model_info(repo_id, token=False).gated == "manual"
    assert api.list_repo_files(repo_id, token=False) == ["a.bin", "a.txt"]

    def download(token: str | bool) -> str:
        return hf_hub_download(
            repo_id, "a.bin", endpoint=hub.endpoint, cache_dir=tmp_path, token=token
        )

    for token, status in ((False, 401), ("hf_stranger", 403)):
        with pytest.raises(GatedRepoError) as caught:
            download(token)
        assert caught.value.response.status_code == status
    assert Path(download("hf_member")).read_bytes() == weights
    # The client keeps its token from the CDN, and would be seen if it did not.
    assert hub.counters().cdn_authorizations == 0


def test_access_can_be_said_in_a_file(
    hub: LocalHub, hub_root: Path, api: HfApi, publish: Publish
) -> None:
    repo_id = publish({"a.txt": b"a"})
    file = hub_root / f"models/{repo_id}.access.json"
    file.write_text('{"gated": "auto"}')
    assert api.model_info(repo_id).gated == "auto"
    file.write_text('{"private": true}')
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(repo_id)


@pytest.mark.parametrize("token", ["hf_stale", "hf_unknown"])
def test_a_bad_token_is_refused_even_by_a_public_repository(
    hub: LocalHub, publish: Publish, token: str
) -> None:
    repo_id = publish({"a.txt": b"a"})
    hub.add_token("hf_stale", stale=True)
    api = HfApi(endpoint=hub.endpoint, token=token)
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.model_info(repo_id)
    assert caught.value.response.status_code == 401
    assert caught.value.response.json() == {"error": "Invalid credentials in Authorization header"}
    with pytest.raises(HfHubHTTPError) as refused:
        api.whoami()
    assert refused.value.response.status_code == 401


def test_whoami_names_the_user_and_what_the_token_may(hub: LocalHub) -> None:
    hub.add_token("hf_ann", name="ann")
    hub.add_token("hf_fine", name="bob", repos=["a/b"], fine_grained=True, reads_gated=True)
    ann, bob = (
        HfApi(endpoint=hub.endpoint, token=f"hf_{name}").whoami() for name in ("ann", "fine")
    )
    assert (ann["name"], ann["auth"]["accessToken"]["role"]) == ("ann", "read")
    assert (bob["name"], bob["auth"]["accessToken"]["fineGrained"]) == (
        "bob",
        {
            "canReadGatedRepos": True,
            "global": [],
            "scoped": [
                {
                    "entity": {"type": "model", "name": "a/b"},
                    "permissions": ["repo.content.read"],
                }
            ],
        },
    )


@pytest.mark.parametrize(
    ("readme", "card", "tags"),
    [
        ("---\nlicense: mit\nbase: [a/b]\n---\n# A", {"license": "mit", "base": ["a/b"]}, ["mit"]),
        ("---\nwhen: 2026-01-01\n---\n", {"when": "2026-01-01"}, []),
        ("# A\n---\nlicense: mit\n---\n", None, []),
        ("---\n- a\n---\n", None, []),
        ("---\n{\n---\n", None, []),
        ("---\nwhen: 2026-99-99\n---\n", None, []),
    ],
)
def test_the_head_of_the_readme_is_the_card(
    api: HfApi, publish: Publish, readme: str, card: dict[str, object] | None, tags: list[str]
) -> None:
    info = api.model_info(publish({"README.md": readme.encode()}))
    found = info.card_data.to_dict() if info.card_data else None  # type: ignore[no-untyped-call]
    assert found == card
    assert info.tags == [f"license:{tag}" for tag in tags]


def test_the_card_tells_task_library_and_base(api: HfApi, publish: Publish) -> None:
    card = ("pipeline_tag: fill-mask", "library_name: peft", "base_model: org/base", "tags: [lora]")
    readme = "\n".join(("---", *card, "---", ""))
    info = api.model_info(publish({"README.md": readme.encode(), "adapter_config.json": b"{}"}))
    assert (info.pipeline_tag, info.library_name) == ("fill-mask", "peft")
    assert info.tags == [
        "peft",
        "fill-mask",
        "lora",
        "base_model:org/base",
        "base_model:adapter:org/base",
    ]


def test_requests_over_the_rate_limit_are_refused(
    hub: LocalHub, api: HfApi, publish: Publish
) -> None:
    repo_id = publish({"a.txt": b"a"})
    hub.set_rate_limits({"api": 1}, window_s=1000)
    try:
        api.model_info(repo_id)
        with pytest.raises(HfHubHTTPError) as refused:
            api.model_info(repo_id)
    finally:
        hub.set_rate_limits({})
    info = parse_ratelimit_headers(refused.value.response.headers)
    assert info is not None
    assert refused.value.response.status_code == 429
    assert (info.resource_type, info.remaining, info.limit, info.window_seconds) == (
        "api",
        0,
        1,
        1000,
    )
    assert 0 < info.reset_in_seconds <= 1000


def test_a_listing_can_name_what_no_folder_holds(
    hub: LocalHub, api: HfApi, publish: Publish
) -> None:
    repo_id = publish({"a.txt": b"a"})
    hub.list_also(repo_id, ["../outside", "C:\\windows", "/etc/passwd"])
    named = {"a.txt", "../outside", "C:\\windows", "/etc/passwd"}
    siblings = api.model_info(repo_id).siblings or []
    assert {file.rfilename for file in siblings} == named
    assert {entry.path for entry in api.list_repo_tree(repo_id, recursive=True)} == named


def test_an_error_hits_as_often_as_it_is_told_to(
    hub: LocalHub, api: HfApi, publish: Publish
) -> None:
    repo_id = publish({"a.txt": b"a"})
    hub.set_faults([Fault(RequestClass.MODEL_INFO, status=500, skip=1, times=1)])
    first = api.model_info(repo_id).sha
    with pytest.raises(HfHubHTTPError):
        api.model_info(repo_id)
    assert api.model_info(repo_id).sha == first
    assert [entry.status for entry in hub.requests()] == [200, 500, 200]


def test_wrong_bytes_end_in_the_cache_of_the_client(
    hub: LocalHub, publish: Publish, weights: bytes, tmp_path: Path
) -> None:
    """Why a loader has to check hashes itself."""
    repo_id = publish({"a.bin": weights})
    hub.set_faults([Fault(RequestClass.CDN_GET, wrong_bytes=True)])
    path = hf_hub_download(repo_id, "a.bin", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    cached = Path(path).read_bytes()
    assert len(cached) == len(weights)
    assert cached != weights
    assert hub.counters() == Counters(
        by_class={
            RequestClass.RESOLVE_HEAD: Traffic(1, 0),
            RequestClass.CDN_GET: Traffic(1, len(weights)),
        },
        body_bytes_by_path={f"{repo_id}/a.bin": len(weights)},
    )


@pytest.mark.parametrize(("repo_type", "folder"), [("dataset", "datasets"), ("space", "spaces")])
def test_datasets_and_spaces_have_addresses_of_their_own(
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    weights: bytes,
    tmp_path: Path,
    repo_type: str,
    folder: str,
) -> None:
    files = {"README.md": b"# read me\n", "data/part.bin": weights, "data/rows.csv": b"1,2\n"}
    write_repo(hub_root, f"{folder}/org/typed", files)
    write_repo(hub_root, "org/typed", {"other.txt": b"of the model"})
    got = snapshot_download(
        "org/typed",
        repo_type=repo_type,
        endpoint=hub.endpoint,
        cache_dir=tmp_path / "cache",
        token=False,
    )
    assert Path(got).relative_to(tmp_path / "cache").parts[0] == f"{folder}--org--typed"
    assert _contents(got) == files
    named = {request.path for request in hub.requests()}
    assert f"{folder}/org/typed/data/part.bin" in named
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(
            "org/typed",
            "other.txt",
            repo_type=repo_type,
            endpoint=hub.endpoint,
            cache_dir=tmp_path / "cache",
            token=False,
        )
