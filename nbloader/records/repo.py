"""A repository at a commit, which of its files will be loaded, and how the worker brings them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The library that a repository is loaded with.

    Attributes:
        CLASSES: objects of classes of any library, each by its own `from_pretrained`.
        FILES: none; they are only fetched.
    """

    DIFFUSERS = "diffusers"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    TRANSFORMERS = "transformers"
    CLASSES = "classes"
    FILES = "files"


class RepoType(StrEnum):
    """What a repository is to the Hub."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the caller says that a part of a model is.

    Attributes:
        revision: None for `main`.
        subfolder: the folder in the repository; empty for its root.
        filename: the file in that folder; empty where the library is to find its files itself.
    """

    repo_id: str
    revision: str | None = None
    subfolder: str = ""
    filename: str = ""


class AdapterKind(StrEnum):
    """What an adapter is."""

    LORA = "LoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    IP_ADAPTER = "IP-Adapter"
    TEXTUAL_INVERSION = "textual inversion"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRequest:
    """What the caller says of an adapter.

    Attributes:
        where: the argument that names it, for errors.
        source: where it is on the Hub; None for one of this machine.
        path: the file or, for one of PEFT, the folder of this machine; empty for one on the Hub.
        root: the folder that `path` was found in.
        name: what the model calls it; empty for the library's own name.
        scale: how much it counts; None where the caller leaves it to the library.
        image_encoder: of an IP-Adapter, the folder of its image encoder as diffusers takes it: a
            name beside the file, or a path in the repository. None for none.
        token: of a textual inversion, the word to use for it; empty for the one in its file.
    """

    where: str
    source: Source | None = None
    path: str = ""
    root: str = ""
    name: str = ""
    scale: float | None = None
    image_encoder: str | None = "image_encoder"
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAdapter:
    """An adapter of a selection, in the order in which they are put in.

    Attributes:
        component: the component with its files; empty for one of this machine.
        kind: what its tensors show.
        path: its file, as a selection names it; on this machine, its whole path.
        repo_id: the repository that it comes from; empty for one of this machine.
        folder: in that repository, empty for its root; on this machine, the whole path.
        filename: in that folder; empty for one of PEFT, which is loaded as a folder.
        words: of a textual inversion, the names of its tensors.
        name, scale, image_encoder, token: those of the request; `image_encoder` is None where the
            pipeline has one already.
    """

    component: str
    kind: AdapterKind
    path: str
    repo_id: str
    folder: str
    filename: str
    words: tuple[str, ...] = ()
    name: str = ""
    scale: float | None = None
    image_encoder: str | None = None
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFile:
    """One file of a repository at a commit, as the Hub lists it.

    Attributes:
        path: path inside the repository, with `/`.
        size: bytes.
        etag: the name of its blob in the Hub's cache: sha256 of the content for large (LFS, Xet)
            files, git's sha1 of the blob for small ones.
        lfs: whether `etag` is a sha256.
        xet_hash: its name in Xet storage, where it is there.
        repo_id: the repository, where it is another one than that of the selection; `path` then
            begins with it (`org/base:config.json`), so that paths of a selection stay unique.
    """

    path: str
    size: int
    etag: str
    lfs: bool = False
    xet_hash: str | None = None
    repo_id: str = ""

    @property
    def path_in_repo(self) -> str:
        """The path inside its own repository."""
        return self.path.removeprefix(f"{self.repo_id}:") if self.repo_id else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All files of a repository at one commit.

    Attributes:
        revision: what was asked for: a branch, a tag or a commit.
        commit_hash: the commit that it stands for (40 hex digits).
        pipeline_tag: the task that the Hub names for it, such as `text-generation`; None if none.
        library_name: the library that the Hub names for it, such as `peft`; None if none.
        base_models: ids of the repositories that its card says it was made from.
        described: whether the Hub was asked for these three.
        folder: the folder of this machine that the files are in, as an absolute path; None for a
            repository. Then `repo_id` is what its user calls it, and there is no commit.
    """

    repo_id: str
    revision: str
    commit_hash: str
    files: tuple[RepoFile, ...]
    pipeline_tag: str | None = None
    library_name: str | None = None
    base_models: tuple[str, ...] = ()
    described: bool = False
    folder: str | None = None


class Form(StrEnum):
    """What a class makes of a repository."""

    PIPELINE = "pipeline"
    """All parts of one, as diffusers puts them together."""
    MODEL = "model"
    """One set of weights, of diffusers or transformers."""
    ENCODER = "encoder"
    """A whole model of sentence-transformers."""
    ADAPTED = "adapted"
    """A model with an adapter of peft on it."""
    PART = "part"
    """Something without weights: a tokenizer, processor, scheduler or configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A class that the caller names, as the files of its installed library tell of it.

    Attributes:
        library: the package, as it is imported.
        takes: the names of a pipeline's components, in the order of its `__init__`; None where they
            are not known, and for all that is no pipeline.
        optional: those of `takes` that may be left out.
    """

    library: str
    class_name: str
    form: Form
    takes: tuple[str, ...] | None = None
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChoice:
    """Files that are wanted as they are, chosen by their names.

    Attributes:
        allow: patterns of which a file has to match one; None for every file.
        ignore: patterns of which it may match none.
        filename: the path of the only file; None where patterns choose.
    """

    allow: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    filename: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What runs a model of sentence-transformers in the place of torch.

    Attributes:
        name: `onnx` or `openvino`.
        file_name: the file that the caller names; None for the usual one.
        export: whether the file is made anew of the PyTorch weights; None where none is there.
    """

    name: str
    file_name: str | None = None
    export: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRequest:
    """What the caller wants of a repository.

    Attributes:
        kind: the library to load it with; None lets the files decide.
        variant: a variant of the weights, such as `fp16`; None for the plain ones.
        trust_remote_code: whether Python files of the repository may be fetched and run.
        task: what a model of transformers is to be used for, as `transformers.pipeline` names it;
            None lets the Hub and the files decide.
        custom_pipeline: where the code of a pipeline of diffusers is: a repository, a name of the
            library's community pipelines, or a path; None for none.
        custom_revision: the revision of that repository, None for `main`; of a pipeline of the
            community the version of diffusers that it is for, None for the installed one.
        library_version: the installed version of diffusers, where it decides; None if it is not
            there.
        safetensors_only: whether weights in another format are refused.
        handed_in: names that the caller passes on to the library. A component of that name is not
            loaded: it is there already, or left out.
        left_out: those of `handed_in` that are None.
        files: the files, where they are chosen by their names, and not by what a load would use.
        targets: the classes that the caller asks for, in the order in which their objects are
            returned. Each is one of those that the installed libraries have of that name: the files
            decide. Empty lets the files decide the class, too.
        as_tuple: whether the objects are returned as a tuple, also a single one.
        subfolder: where in the repository they are; empty for its root.
        components: the components of a pipeline that are in other places, by the pipeline's names;
            several for one that is a list of models.
        component_lists: those of `components` that are given as a list, also of one.
        component_names: all that the caller names, with those that are handed in or left out.
        checkpoint: the one file that is loaded, from the root of the repository; empty
            for what the files of the repository are together.
        config: the repository that the configuration of such a checkpoint is taken from; empty for
            the one that its tensors tell.
        adapters: what is put into the model, in this order.
        backend: what runs a model of sentence-transformers; None for torch.
    """

    kind: Kind | None = None
    variant: str | None = None
    trust_remote_code: bool = False
    task: str | None = None
    custom_pipeline: str | None = None
    custom_revision: str | None = None
    library_version: str | None = None
    safetensors_only: bool = False
    handed_in: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    files: FileChoice | None = None
    targets: tuple[tuple[Target, ...], ...] = ()
    as_tuple: bool = False
    subfolder: str = ""
    components: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    component_lists: tuple[str, ...] = ()
    component_names: tuple[str, ...] = ()
    checkpoint: str = ""
    config: str = ""
    adapters: tuple[AdapterRequest, ...] = ()
    backend: Backend | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part of a model that is loaded by itself.

    Attributes:
        name: the name in `model_index.json`, the path of the module in `modules.json`, or `model`;
            the files that belong to no part stand under `config`.
        library: the package or module that its class comes from, where the repository says so.
        class_name: the class, where the repository says so.
        paths: all its files that are fetched, weights included, sorted.
        weights: those of `paths` that hold weights.
        model_type: the family of the model that its `config.json` names, such as `bert`, where
            that was read for the selection.
        code: Python files that the `auto_map` of its `config.json` names and that are not fetched,
            because the repository's code is not trusted; those of another repository as
            `org/name--file.py`.
        needs: packages, as they are imported, that its small files ask for beyond those that its
            classes need, such as `fugashi` by the options of a tokenizer.
        repo_id: the repository that the caller names for it, where it is another one than that of
            the selection.
        folder: the folder that its class is given, inside of that repository; empty for the root.
            Of components that are where the repository itself says, only those of `Kind.CLASSES`
            name it.
        argument: the argument of the pipeline that it is one of several for; else its name is that.
        checkpoint: the file that it is taken from, by its path in the selection; empty where
            its class finds its files itself. Its configuration is then in `folder` of `config`.
        config: the repository of that configuration; empty for the one of the selection.
        tensors: what the names of its tensors begin with in that checkpoint; empty for all of them.
    """

    name: str
    library: str | None = None
    class_name: str | None = None
    paths: tuple[str, ...]
    weights: tuple[str, ...] = ()
    model_type: str | None = None
    code: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    repo_id: str = ""
    folder: str = ""
    argument: str = ""
    checkpoint: str = ""
    config: str = ""
    tensors: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Another repository that a repository needs.

    Attributes:
        role: `base-model` of an adapter, `code`, `component` of a pipeline, `configuration` of a
            checkpoint, or `adapter`.
        revision: what the repository says of it; None for `main`.
        repo_type: what it is to the Hub.
    """

    repo_id: str
    role: str
    revision: str | None = None
    repo_type: RepoType = RepoType.MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """Another repository that a selection takes files from, at a commit.

    Attributes:
        role, repo_type: those of its `Reference`.
        folder: see `Listing`.
    """

    repo_id: str
    role: str
    revision: str
    commit_hash: str
    folder: str | None = None
    repo_type: RepoType = RepoType.MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Exactly which files of a commit will be loaded, and by what.

    Attributes:
        class_name: the class of the pipeline, where the repository names one, or the class of
            sentence-transformers that it is for.
        components: every file of `files` is in exactly one of them.
        files: sorted by path.
        custom_code: whether the load runs Python files of the repository, or others that
            it or the caller names.
        custom_pipeline: whether the class of a pipeline of diffusers comes from such code.
        written_with: the version of diffusers that wrote the repository, where it says so.
        variant: the variant of the weights that was chosen, None for the plain ones.
        task: what a model of transformers is to be used for: what the caller asked for, else what
            the Hub names; None if neither does.
        task_asked: whether the caller named the task.
        companions: the other repositories that files of the selection come from; its own among
            them, where its files name code of its own with its id.
        targets: the classes that the caller asks for, or that the files of `Kind.CLASSES` name.
        as_tuple: see `SelectionRequest`.
        backend: the name of what runs the model in the place of torch; None for torch.
        folder: see `Listing`.
        cache_dir: the cache that companions lie in, where there is a `folder`; None otherwise.
        checkpoint: the one file that is loaded, by its path; empty for what the files of the
            repository are together.
        adapters: what is put into the model, in this order.
    """

    repo_id: str
    revision: str
    commit_hash: str
    kind: Kind
    class_name: str | None
    components: tuple[Component, ...]
    files: tuple[RepoFile, ...]
    custom_code: bool = False
    custom_pipeline: bool = False
    written_with: str | None = None
    variant: str | None = None
    task: str | None = None
    task_asked: bool = False
    companions: tuple[Companion, ...] = ()
    targets: tuple[Target, ...] = ()
    as_tuple: bool = False
    backend: str | None = None
    folder: str | None = None
    cache_dir: str | None = None
    checkpoint: str = ""
    adapters: tuple[ChosenAdapter, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def built_class(self) -> str | None:
        """The class of what comes whole: the one that was asked for, else that of the files."""
        return self.targets[0].class_name if self.targets else self.class_name

    @property
    def of_diffusers(self) -> bool:
        """Whether it is diffusers that builds what has weights."""
        return self.kind is Kind.DIFFUSERS or (
            self.kind is Kind.CLASSES
            and any(part.weights and part.library == "diffusers" for part in self.components)
        )

    def commit_of(self, file: RepoFile) -> str:
        """The commit that a file of the selection is taken from."""
        found = (one.commit_hash for one in self.companions if one.repo_id == file.repo_id)
        return next(found, self.commit_hash)


LARGE_FILE_BYTES = 10_000_000_000
"""From this size on a file is a large one."""


class Route(StrEnum):
    """A way for the bytes of a file."""

    HTTP = "http"
    XET = "xet"


SPARE_DISK_BYTES = 4 << 20
"""Left free beside files that wait for room: for journals, links, and what others write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPolicy:
    """How hard the worker tries.

    Attributes:
        max_retries: attempts in a row that may bring nothing, for each file or call.
        retry_delay_min_s, retry_delay_max_s: bounds of the exponential wait between attempts.
        timeout_s: the longest that a file may make no progress over all its attempts.
        large_file_timeout_s: the same for files over 10 GB.
        stall_timeout_s: a connection that brings nothing for so long is given up.
        min_speed: bytes per second; so is one that is slower over that time.
        max_workers: files that are downloaded at the same time.
        answer_timeout_s: the longest that the Hub may take for its first answer.
        route: the only way to take; None for the faster of those that are there.
        max_wait_s: the longest wait that a server may ask for; where one asks for more, the call or
            the file is given up at once. None to wait as long as it asks, up to five minutes.
        check_disk_space: whether to stop early once the rest does not fit on the disk.
    """

    max_retries: int = 5
    retry_delay_min_s: float = 5.0
    retry_delay_max_s: float = 60.0
    timeout_s: float = 300.0
    large_file_timeout_s: float = 1800.0
    stall_timeout_s: float = 30.0
    min_speed: float = 10_000.0
    max_workers: int = 4
    answer_timeout_s: float = 5.0
    route: Route | None = None
    max_wait_s: float | None = None
    check_disk_space: bool = True

    def quiet_limit_s(self, size: int) -> float:
        """Return the longest that a file of `size` bytes may make no progress."""
        return self.large_file_timeout_s if size >= LARGE_FILE_BYTES else self.timeout_s
