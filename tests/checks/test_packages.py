from __future__ import annotations

import ast
import importlib.metadata
import json
import shlex
import subprocess
import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nbloader.checks import inspected_packages, install_hint, required_packages
from nbloader.checks.packages import _ENFORCED, _OTHERS, check_packages
from nbloader.libraries import class_facts, distribution_name, package_facts, unmet_requirements
from nbloader.libraries.packages import conflicts, found_conflicts, package_folder
from nbloader.libraries.pip import _LEAST, _OWN_BOUNDS, NOT_RELEASED, RELATED, normal_name, pip_line
from nbloader.records import (
    CheckResult,
    CheckStatus,
    ClassFacts,
    Component,
    Kind,
    PackageFacts,
    UnmetRequirement,
)
from tests.samples import SELECTION

COLAB = {
    "torch": "2.9.0+cu126",
    "torchvision": "0.24.0+cu126",
    "diffusers": "0.39.0",
    "transformers": "5.15.0",
    "accelerate": "1.14.0",
    "peft": "0.20.0",
    "sentence_transformers": "5.7.0",
    "huggingface_hub": "1.27.0",
    "tokenizers": "0.22.2",
    "safetensors": "0.8.0",
    "PIL": "11.3.0",
    "numpy": "2.0.2",
    "hf_xet": "1.6.0",
}
STAY = "torch==2.9.0+cu126 torchvision==0.24.0+cu126"
REST = 'accelerate peft sentence-transformers "huggingface-hub>=1.8,<3" tokenizers safetensors'
TEXT = Component(name="text_encoder", library="transformers", class_name="CLIPTextModel", paths=())
PIPELINE = replace(SELECTION, components=(TEXT,))
BARE = replace(SELECTION, components=())
QWEN = Component(name="processor", library="transformers", class_name="Qwen2VLProcessor", paths=())


def installed(
    versions: Mapping[str, str | None] = COLAB,
    *,
    imported: Mapping[str, str] | None = None,
    editable: bool = False,
) -> dict[str, PackageFacts]:
    return {
        name: PackageFacts(
            name=name,
            installed=version,
            imported=(imported or {}).get(name),
            editable=editable,
        )
        for name, version in versions.items()
    }


# -- facts -----------------------------------------------------------------------------------------


def test_installed_and_imported_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    older = types.ModuleType("diffusers")
    older.__version__ = "0.1.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffusers", older)
    monkeypatch.delitem(sys.modules, "accelerate", raising=False)
    names = ("diffusers", "accelerate", "no_such_package", "PIL")
    facts = package_facts(names)
    version = importlib.metadata.version
    assert facts["accelerate"] == PackageFacts(name="accelerate", installed=version("accelerate"))
    assert facts["no_such_package"] == PackageFacts(name="no_such_package", installed=None)
    assert facts["PIL"].installed == version("pillow")
    assert facts["diffusers"].imported == "0.1.0"
    assert list(facts) == list(names)


@pytest.mark.parametrize(
    ("direct_url", "editable"),
    [
        (None, False),
        ("{", False),
        ("[]", False),
        (json.dumps({"url": "file:///src", "dir_info": {"editable": True}}), True),
        (json.dumps({"url": "file:///src", "dir_info": {}}), False),
        (json.dumps({"url": "https://host/x", "vcs_info": {"vcs": "git"}}), False),
    ],
)
def test_an_editable_install_is_known_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_url: str | None, editable: bool
) -> None:
    write_package(tmp_path, "linked-package", "1.0")
    (tmp_path / "linked_package.py").touch()
    if direct_url is not None:
        (tmp_path / "linked_package-1.0.dist-info" / "direct_url.json").write_text(direct_url)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_facts(["linked_package"])["linked_package"] == PackageFacts(
        name="linked_package", installed="1.0", editable=editable, compiled=False
    )


def test_names_on_the_package_index() -> None:
    names = ("PIL", "google.protobuf", "sentence_transformers", "transformers.models.other", "cv2")
    assert [distribution_name(name) for name in names] == [
        "pillow",
        "protobuf",
        "sentence-transformers",
        "transformers",
        "opencv-python-headless",
    ]


def test_to_look_imports_nothing() -> None:
    code = (
        "import sys; from nbloader.machine import *; from nbloader.libraries import "
        "class_facts, package_facts, unmet_requirements; from tests.checks.test_packages import "
        "RELATED, selection_of_qwen; before = set(sys.modules);"
        "names = (*RELATED, 'PIL', 'google.protobuf');"
        "facts = class_facts(selection_of_qwen()); package_facts(names); unmet_requirements(names);"
        "assert all(fact.found for fact in facts), facts;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " & {*names, 'google'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def selection_of_qwen() -> object:
    return replace(SELECTION, class_name="QwenImageEditPlusPipeline", components=(QWEN,))


def test_a_module_that_cannot_tell_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "strange_package", Strange("strange_package"))
    assert package_facts(["strange_package"])["strange_package"].imported is None


def write_package(folder: Path, name: str, version: str, *requires: str) -> None:
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    fields = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    text = "\n".join(["Metadata-Version: 2.1", *fields, "", "Requires-Dist: not-this-one"])
    (place / "METADATA").write_text(text)


def test_requirements_that_are_not_met(tmp_path: Path) -> None:
    write_package(
        tmp_path,
        "transformers",
        "5.15.0",
        "huggingface-hub<2.0,>=1.5.0",
        "tokenizers>=0.22",
        'torch>=2.4; extra == "torch"',
        'colorama; sys_platform == "nowhere"',
        "this is no requirement",
        "regex",
    )
    write_package(tmp_path, "huggingface_hub", "2.4.0")
    write_package(tmp_path, "tokenizers", "0.23.0rc1")
    write_package(tmp_path, "torchvision", "0.24.0", "torch==2.9.0")
    write_package(tmp_path, "torch", "2.9.0+cu126")
    write_package(tmp_path, "peft", "0.1", "transformers<5 or something", "torch (>=3)")
    names = ("transformers", "torchvision", "peft", "not_there", "transformers")
    assert unmet_requirements(names, path=[str(tmp_path)]) == (
        UnmetRequirement(
            package="transformers",
            version="5.15.0",
            requirement="huggingface-hub<2.0,>=1.5.0",
            installed="2.4.0",
        ),
        UnmetRequirement(
            package="transformers", version="5.15.0", requirement="regex", installed=None
        ),
        UnmetRequirement(
            package="peft", version="0.1", requirement="torch>=3", installed="2.9.0+cu126"
        ),
    )


def test_the_packages_of_these_tests_fit_together() -> None:
    assert unmet_requirements(RELATED) == ()


def test_classes_of_custom_code_are_not_judged() -> None:
    own = Component(name="own", library="own_code", class_name="Own", paths=("own/own_code.py",))
    selection = replace(
        SELECTION, class_name="OwnPipeline", components=(own, QWEN), custom_code=True
    )
    qwen = class_facts(replace(SELECTION, class_name=None, components=(QWEN,)))
    assert class_facts(replace(selection, custom_pipeline=True)) == qwen
    # The code of one component says nothing of the others, nor of the pipeline.
    other = replace(own, name="other", library="transformers", paths=())
    found = class_facts(replace(selection, components=(own, other, QWEN)))
    assert [fact.found for fact in found] == [False, False, True]


def test_a_family_that_the_installed_transformers_does_not_know() -> None:
    model = Component(
        name="model",
        library="sentence_transformers",
        class_name="Transformer",
        paths=(),
        model_type="bert",
    )
    selection = replace(
        SELECTION, kind=Kind.SENTENCE_TRANSFORMERS, class_name=None, components=(model,)
    )
    module = ClassFacts(library="sentence_transformers", name="Transformer", found=True)
    bert = ClassFacts(library="transformers", name="bert", found=True)
    assert class_facts(selection) == (module, bert)
    later = replace(selection, components=(replace(model, model_type="later"),))
    assert class_facts(later)[1] == ClassFacts(library="transformers", name="later", found=False)


def test_without_the_library_nothing_is_known() -> None:
    selection = replace(SELECTION, class_name="QwenImagePipeline", components=(QWEN,))
    assert [fact.found for fact in class_facts(selection, find=lambda _name: None)] == [None, None]


# -- what a selection needs
# -----------------------------------------------------------------------------

BASE = ("torch", "diffusers")
OF_DIFFUSERS = (
    "bfl",
    "bitsandbytes_4bit",
    "gguf",
    "modelopt",
    "nunchaku_lite",
    "quanto",
    "torchao",
)


@pytest.mark.parametrize(
    ("class_name", "told", "needs", "method", "more"),
    [
        ("Qwen2VLProcessor", (), (), "", ("torchvision", "PIL")),
        ("CLIPFeatureExtractor", (), (), "", ("PIL",)),
        ("BertJapaneseTokenizer", ("fugashi", "ipadic"), (), "", ("fugashi", "ipadic")),
        ("LMSDiscreteScheduler", (), ("scipy", "torch"), "", ("scipy",)),
        ("Safety", (), ("transformers",), "", ("transformers",)),
        ("Model", (), (), "bitsandbytes_4bit", ("bitsandbytes", "accelerate")),
        ("Model", (), (), "gptq", ("optimum", "gptqmodel", "accelerate")),
        ("Model", (), (), "compressed-tensors", ("compressed_tensors", "accelerate")),
        ("Model", (), (), "fp8", ("accelerate",)),
        ("Model", (), (), "auto-round", ("auto_round", "accelerate")),
        ("Model", (), (), "bfl", ("accelerate",)),
        ("Model", (), (), "gguf", ("gguf", "accelerate")),
        ("Model", (), (), "modelopt", ("modelopt", "accelerate")),
        ("Model", (), (), "nunchaku_lite", ("kernels", "accelerate")),
        ("Model", (), (), "quanto", ("optimum.quanto", "accelerate")),
        ("Model", (), (), "sdnq", ("sdnq", "accelerate")),
        ("Model", (), (), "torchao", ("torchao", "accelerate")),
        ("Model", (), (), "not known", ()),
    ],
)
def test_packages_that_a_selection_needs(
    class_name: str,
    told: tuple[str, ...],
    needs: tuple[str, ...],
    method: str,
    more: tuple[str, ...],
) -> None:
    part = Component(name="part", library="diffusers", class_name=class_name, paths=(), needs=told)
    selection = replace(SELECTION, components=(part,))
    facts = [ClassFacts(library="diffusers", name=class_name, found=True, needs=needs)]
    quantized = [("diffusers" if method in OF_DIFFUSERS else "transformers", method)]
    required = required_packages(selection, facts, quantized)
    assert required == (*BASE, *more)
    inspected = inspected_packages(selection, facts, quantized)
    assert set(inspected) >= {*required, *RELATED, "numpy", "hf_xet"}


@pytest.mark.parametrize("library", ["transformers", "transformers.models.clip"])
def test_transformers_is_needed_where_a_component_comes_from_it(library: str) -> None:
    part = replace(TEXT, library=library)
    assert required_packages(replace(SELECTION, components=(part,))) == (*BASE, "transformers")
    assert required_packages(BARE) == BASE


def test_what_the_check_of_a_load_imports_is_what_the_libraries_import() -> None:
    code = (
        "import sys; from tests.checks.test_packages import RELATED, _OTHERS, Kind;"
        "import transformers; transformers.pipeline; transformers.AutoModel;"
        "assert not _OTHERS[Kind.TRANSFORMERS] & set(sys.modules);"
        "from sentence_transformers import SentenceTransformer;"
        "assert not _OTHERS[Kind.SENTENCE_TRANSFORMERS] & set(sys.modules);"
        "print(sorted(set(RELATED) - set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Of what is installed, embeddings import all but what is another load's.
    there = {name for name in RELATED if package_folder(name)}
    others = sorted(set(RELATED) - (there - _OTHERS[Kind.SENTENCE_TRANSFORMERS]))
    assert (done.returncode, done.stdout.strip()) == (0, str(others)), done.stderr


@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_the_requirements_that_are_enforced_are_those_of_the_library(library: str) -> None:
    folder = package_folder(library)
    assert folder is not None
    tree = ast.parse((folder / "dependency_versions_check.py").read_text("utf-8"))
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pkgs_to_check_at_runtime"
    )
    if isinstance(value, ast.Call):  # "python requests".split()
        assert isinstance(value.func, ast.Attribute)
        checked = set(ast.literal_eval(value.func.value).split())
    else:
        checked = set(ast.literal_eval(value))
    # Python is there, and accelerate is in the table of conflicts. transformers 4 checks requests.
    assert checked - {"python", "accelerate"} | {"requests"} == _ENFORCED[library] | {"requests"}


# -- the check -------------------------------------------------------------------------------------


def result(
    message: str,
    hint: str,
    reference: str = "conflicting-packages",
    link: str = "",
    *,
    forceable: bool = False,
) -> CheckResult:
    return CheckResult(
        name="packages",
        status=CheckStatus.FAILED,
        message=message,
        hint=hint,
        reference=reference,
        link=link,
        forceable=forceable,
    )


def test_packages_that_fit() -> None:
    assert check_packages(PIPELINE, installed()) == CheckResult(
        name="packages",
        status=CheckStatus.PASSED,
        message="torch 2.9.0+cu126, diffusers 0.39.0, transformers 5.15.0, accelerate 1.14.0",
    )


def test_a_package_that_is_missing() -> None:
    selection = replace(SELECTION, components=(QWEN,))
    assert check_packages(selection, installed(COLAB | {"torchvision": None})) == result(
        "not installed: torchvision",
        "Run this, then this cell again: %pip install --extra-index-url "
        "https://download.pytorch.org/whl/cu126 torchvision torch==2.9.0+cu126 diffusers "
        f"transformers {REST}",
        "missing-package",
        forceable=True,  # That the class needs it is known by its name alone.
    )


def test_with_nothing_installed_the_extras_versions_are() -> None:
    packages = installed(dict.fromkeys(COLAB))
    assert check_packages(PIPELINE, packages, notebook=False) == result(
        "not installed: torch, diffusers, transformers",
        'Run this: pip install torch "diffusers>=0.37" transformers accelerate',
        "missing-package",
    )


def test_packages_without_bytecode_are_slow_to_import() -> None:
    packages = installed(COLAB)
    bare = {
        name: replace(each, compiled=name not in ("torch", "diffusers", "numpy"))
        for name, each in packages.items()
    }
    assert check_packages(PIPELINE, bare) == CheckResult(
        name="packages",
        status=CheckStatus.WARNING,
        message="torch, diffusers are not compiled, so that imports take three times as long",
        hint="Compile them once: python -m compileall -q "
        "-j 0 $(python -c \"import sysconfig; print(sysconfig.get_path('purelib'))\")",
        reference="missing-package",
    )
    imported = {name: replace(each, imported=each.installed) for name, each in bare.items()}
    assert check_packages(PIPELINE, imported).status is CheckStatus.PASSED


def test_what_is_compiled_is_seen_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "slowly_imported"
    code.mkdir()
    (code / "__init__.py").write_text("")
    write_package(tmp_path, "slowly-imported", "1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_facts(["slowly_imported"])["slowly_imported"].compiled is False
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(code)], check=True)
    assert package_facts(["slowly_imported"])["slowly_imported"].compiled is True
    assert "slowly_imported" not in sys.modules


def test_a_pipeline_loads_without_accelerate() -> None:
    found = check_packages(PIPELINE, installed(COLAB | {"accelerate": None}))
    assert found == CheckResult(
        name="packages",
        status=CheckStatus.WARNING,
        message="not installed: accelerate; without it, loading is slower and takes more memory",
        hint=f"Run this, then this cell again: %pip install accelerate {STAY} diffusers "
        f"transformers {REST.removeprefix('accelerate ')}",
        reference="missing-package",
    )
    # Quantized weights do not.
    packages = installed(COLAB | {"accelerate": None, "bitsandbytes": "0.49"})
    found = check_packages(PIPELINE, packages, quantizations=[("diffusers", "bitsandbytes_4bit")])
    assert (found.status, found.message) == (CheckStatus.FAILED, "not installed: accelerate")


def test_a_pipeline_without_a_text_model_loads_without_transformers() -> None:
    packages = installed(COLAB | {"transformers": None})
    assert check_packages(BARE, packages) == CheckResult(
        name="packages",
        status=CheckStatus.PASSED,
        message="torch 2.9.0+cu126, diffusers 0.39.0, accelerate 1.14.0",
    )
    assert check_packages(PIPELINE, packages).message == "not installed: transformers"
    needs = [ClassFacts(library="diffusers", name="X", found=True, needs=("transformers",))]
    assert check_packages(BARE, packages, needs).message == "not installed: transformers"


def test_classes_that_are_newer_than_the_library() -> None:
    classes = (
        ClassFacts(library="diffusers", name="SomePipeline", found=False),
        ClassFacts(library="transformers", name="SomeModel", found=None),
        ClassFacts(library="some_folder", name="Checker", found=False),
    )
    packages = installed(imported={"diffusers": "0.39.0"})
    assert check_packages(PIPELINE, packages, classes) == result(
        "diffusers 0.39.0 has no 'SomePipeline', 'Checker'",
        f'Run this and restart the kernel: %pip install "diffusers>0.39.0" {STAY} transformers '
        f"{REST}\n(If pip finds none, the class may be in a version that is not released yet.)",
        "unsupported-class",
    )


def test_a_family_that_is_newer_than_transformers() -> None:
    part = Component(name="model", library="transformers", paths=(), model_type="later")
    selection = replace(SELECTION, kind=Kind.TRANSFORMERS, components=(part,))
    later = [ClassFacts(library="transformers", name="later", found=False)]
    found = check_packages(selection, installed(), later)
    assert found.message == "transformers 5.15.0 has no model type 'later'"
    assert '"transformers>5.15.0"' in found.hint
    assert found.hint.endswith(NOT_RELEASED)
    # Without a version there is nothing to be newer than.
    unknown = check_packages(selection, installed(COLAB | {"transformers": "?"}), later)
    assert "%pip install transformers torch" in unknown.hint
    assert NOT_RELEASED not in unknown.hint


READ = "Read its code on the Hub; if you trust it, pass trust_remote_code=True."


@pytest.mark.parametrize(
    ("code", "where"),
    [
        (("modeling_x.py", "parts.py"), ": 'modeling_x.py', 'parts.py'"),
        (("own/model--m.py",), ", in another repository: 'own/model--m.py'"),
        (("<b>\n.py",), r": '<b>\n.py'"),
        (tuple("abcdef"), ": 'a', 'b', 'c', 'd'"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.TRANSFORMERS, Kind.SENTENCE_TRANSFORMERS])
def test_code_that_is_not_trusted_is_named_where_transformers_lacks_the_family(
    kind: Kind, code: tuple[str, ...], where: str
) -> None:
    part = Component(
        name="model", library="transformers", class_name="Own", paths=(), model_type="x", code=code
    )
    selection = replace(SELECTION, kind=kind, components=(part,))
    lacks = ClassFacts(library="transformers", name="x", found=False)
    assert check_packages(selection, installed(), [lacks]) == result(
        "transformers 5.15.0 has no model type 'x', and org/name names code of its own for it"
        f"{where}",
        READ,
        "unsupported-repo",
    )
    # The library's own class is taken where it has one.
    known = check_packages(selection, installed(), [replace(lacks, found=True)])
    assert known.status is CheckStatus.PASSED
    # A line for what is missing besides.
    both = check_packages(selection, installed(COLAB | {"torch": None}), [lacks])
    line, _, last = both.hint.partition("\n")
    assert (line.startswith("Run this, then this cell again: %pip install torch "), last) == (
        True,
        READ,
    )


def test_code_that_is_not_trusted_is_named_where_there_is_no_family() -> None:
    part = Component(
        name="model", library="transformers", class_name="Own", paths=(), code=("m.py",)
    )
    selection = replace(SELECTION, kind=Kind.TRANSFORMERS, components=(part,))
    assert class_facts(selection) == (ClassFacts(library="transformers", name="Own", found=False),)
    found = check_packages(selection, installed(), class_facts(selection))
    assert (found.reference, found.hint) == ("unsupported-repo", READ)


UNMET = UnmetRequirement(
    package="transformers",
    version="5.15.0",
    requirement="huggingface-hub<2.0,>=1.5.0",
    installed="2.4.0",
)


def test_a_requirement_of_the_load_that_is_not_met() -> None:
    assert check_packages(PIPELINE, installed(), (), [UNMET]) == result(
        "transformers 5.15.0 requires huggingface-hub<2.0,>=1.5.0, but 2.4.0 is installed",
        'Run this, then this cell again: %pip install transformers "huggingface-hub>=1.8,<3" '
        f"{STAY} diffusers accelerate peft sentence-transformers tokenizers safetensors",
    )


def test_a_requirement_that_does_not_touch_the_load_is_a_warning() -> None:
    embeddings = replace(PIPELINE, kind=Kind.SENTENCE_TRANSFORMERS)
    needed = replace(SELECTION, components=(QWEN,))
    other = UnmetRequirement(
        package="torchvision", version="0.24.0", requirement="torch==2.9.0", installed="2.8.0"
    )
    assert check_packages(embeddings, installed(), (), [other]).status is CheckStatus.WARNING
    # It is torchvision that has to fit, and not torch.
    found = check_packages(needed, installed(COLAB | {"torch": "2.8.0"}), (), [other])
    assert found.status is CheckStatus.FAILED
    assert "%pip install torchvision torch==2.8.0 diffusers" in found.hint
    # What torch requires, its build has.
    of_torch = replace(other, package="torch", version="2.9.0", requirement="nvidia-nccl-cu12==1")
    assert check_packages(embeddings, installed(), (), [of_torch]).status is CheckStatus.WARNING


@pytest.mark.parametrize(
    ("package", "requirement", "stops"),
    [
        ("transformers", "tokenizers<0.24,>=0.23", True),
        ("transformers", "PyYAML>=5.1", True),
        ("transformers", "typer-slim", False),
        ("diffusers", "numpy", True),
        ("diffusers", "huggingface-hub<2.0,>=0.34", False),
        ("diffusers", "Pillow", False),
        ("huggingface_hub", "typer", False),
        ("tokenizers", "huggingface-hub<2.0,>=0.16.4", False),
        ("accelerate", "psutil", False),
    ],
)
def test_only_what_the_libraries_enforce_stops_the_load(
    package: str, requirement: str, stops: bool
) -> None:
    unmet = UnmetRequirement(package=package, version="1", requirement=requirement, installed=None)
    found = check_packages(PIPELINE, installed(), (), [unmet])
    assert (found.status, found.reference) == (
        CheckStatus.FAILED if stops else CheckStatus.WARNING,
        "conflicting-packages",
    )
    assert found.message == (f"{package} 1 requires {requirement}, but it is not installed")
    wanted = Requirement(requirement).name
    assert f" {wanted} " in found.hint or f'"{wanted}>' in found.hint


def test_known_conflicts() -> None:
    old = installed(COLAB | {"peft": "0.17.0"})
    found = check_packages(PIPELINE, old)
    assert found == result(
        "peft 0.17.0 and transformers 5.15.0: this peft imports HybridCache, which transformers 5 "
        "does not have",
        f'Run this, then this cell again: %pip install "peft>=0.18" {STAY} diffusers transformers '
        + REST.replace(" peft", ""),
        link="https://github.com/huggingface/peft/issues/3333",
    )
    # It ends loads of pipelines and embeddings, and no others.
    assert check_packages(replace(PIPELINE, kind=Kind.TRANSFORMERS), old).status is (
        CheckStatus.PASSED
    )
    xet = check_packages(PIPELINE, installed(COLAB | {"hf_xet": "1.4.3"}))
    assert (xet.status, xet.reference) == (CheckStatus.WARNING, "conflicting-packages")
    assert '"hf-xet>=1.5.1"' in xet.hint


def test_a_package_that_was_upgraded_after_its_import() -> None:
    imported = {"transformers": "5.0.0", "torch": "2.9.0", "PIL": "1.0"}
    assert check_packages(PIPELINE, installed(imported=imported)) == result(
        "transformers 5.0.0 is imported, but 5.15.0 is installed",
        "Restart the kernel, then run the cell again.",
        "restart-needed",
        forceable=True,
    )


@pytest.mark.parametrize(
    ("name", "kind", "editable", "status"),
    [
        ("diffusers", Kind.DIFFUSERS, False, CheckStatus.FAILED),
        ("diffusers", Kind.TRANSFORMERS, False, CheckStatus.WARNING),
        ("diffusers", Kind.SENTENCE_TRANSFORMERS, False, CheckStatus.WARNING),
        ("peft", Kind.SENTENCE_TRANSFORMERS, False, CheckStatus.FAILED),
        ("peft", Kind.TRANSFORMERS, False, CheckStatus.WARNING),
        ("sentence_transformers", Kind.DIFFUSERS, False, CheckStatus.WARNING),
        ("tokenizers", Kind.TRANSFORMERS, False, CheckStatus.FAILED),
        ("diffusers", Kind.DIFFUSERS, True, CheckStatus.WARNING),
    ],
)
def test_a_restart_is_demanded_only_for_what_the_load_imports(
    name: str, kind: Kind, editable: bool, status: CheckStatus
) -> None:
    packages = installed(imported={name: "0.1.dev0"}, editable=editable)
    assert check_packages(replace(BARE, kind=kind), packages) == CheckResult(
        name="packages",
        status=status,
        message=f"{distribution_name(name)} 0.1.dev0 is imported, but {COLAB[name]} is installed",
        hint="It is a link to its sources (editable): restart only if they changed since the "
        "import."
        if editable
        else "Restart the kernel, then run the cell again.",
        reference="restart-needed",
        forceable=status is CheckStatus.FAILED,
    )


def test_one_line_mends_all_that_is_wrong() -> None:
    selection = replace(SELECTION, components=(QWEN,))
    packages = installed(COLAB | {"torchvision": None, "peft": "0.17.0"})
    classes = (ClassFacts(library="diffusers", name="SomePipeline", found=False),)
    found = check_packages(selection, packages, classes, [UNMET])
    assert found.reference == "missing-package"
    assert found.message.count("; ") == 3
    line, _, last = found.hint.partition(": ")[2].partition("\n")
    assert last == NOT_RELEASED
    assert shlex.split(line) == [
        "%pip",
        "install",
        "--extra-index-url",
        "https://download.pytorch.org/whl/cu126",
        "torchvision",
        "diffusers>0.39.0",
        "transformers",
        "huggingface-hub>=1.8,<3",
        "peft>=0.18",
        "torch==2.9.0+cu126",
        "accelerate",
        "sentence-transformers",
        "tokenizers",
        "safetensors",
    ]


def test_what_transformers_4_takes_instead_is_not_missing() -> None:
    packages = installed(COLAB | {"gptqmodel": None, "awq": "0.2.9"})
    found = check_packages(PIPELINE, packages, quantizations=[("transformers", "awq")])
    assert found.status is CheckStatus.PASSED
    packages = installed(COLAB | {"gptqmodel": None, "awq": None})
    found = check_packages(PIPELINE, packages, quantizations=[("transformers", "awq")])
    assert found.message == "not installed: gptqmodel"


def test_what_is_imported_stays_when_something_is_added() -> None:
    packages = installed(imported={"transformers": "5.15.0", "torch": "2.9.0+cu126"})
    assert install_hint(["sentencepiece"], packages) == (
        "Run this and restart the kernel: %pip install sentencepiece "
        f"{STAY} diffusers transformers==5.15.0 {REST}"
    )


# -- the line --------------------------------------------------------------------------------------

VERSIONS = st.sampled_from(["1.2.3", "2.0+cu126", "0.43.0.dev0", "?"])


@given(
    versions=st.fixed_dictionaries({name: st.none() | VERSIONS for name in RELATED}),
    change=st.dictionaries(
        st.sampled_from([*RELATED, "PIL", "sentencepiece", "google.protobuf"]),
        st.sampled_from(["", ">1.0", ">=2,<3"]),
        min_size=1,
    ),
    imported=st.sets(st.sampled_from(RELATED)),
)
def test_every_line_can_be_run_and_names_what_is_there(
    versions: dict[str, str | None], change: dict[str, str], imported: set[str]
) -> None:
    facts = {
        name: PackageFacts(
            name=name, installed=version, imported=version if name in imported else None
        )
        for name, version in versions.items()
    }
    parts = shlex.split(pip_line(change, facts))
    assert parts[:2] == ["%pip", "install"]
    texts = parts[4:] if parts[2].startswith("--extra-index-url") else parts[2:]
    wanted = [Requirement(text) for text in texts]
    names = [requirement.name for requirement in wanted]
    assert len(set(names)) == len(names)
    there = {name for name, version in versions.items() if version}
    assert set(names) == {distribution_name(name) for name in there | change.keys()}
    for requirement in wanted:
        if requirement.name == "torch" and versions["torch"] not in (None, "?"):
            assert change.get("torch") or str(requirement.specifier) == f"=={versions['torch']}"


def test_the_bounds_are_those_of_this_package() -> None:
    texts = importlib.metadata.requires("nbloader-hub") or []
    own = {
        (normal_name(requirement.name), requirement.marker is not None): requirement.specifier
        for requirement in map(Requirement, texts)
    }
    for name, bounds in _OWN_BOUNDS.items():
        assert own[distribution_name(name), False] == SpecifierSet(bounds)
    for name, bounds in _LEAST.items():
        assert own[distribution_name(name), True] == SpecifierSet(bounds)


# -- the table of conflicts ------------------------------------------------------------------------


def test_the_table_of_conflicts_is_sound() -> None:
    for conflict in conflicts():
        assert all(SpecifierSet(versions) for versions in conflict.packages.values())
        assert conflict.change
        for name, versions in conflict.change.items():
            assert name in conflict.packages
            # What is to be installed is no longer in conflict.
            assert not (SpecifierSet(versions) & SpecifierSet(conflict.packages[name])).contains(
                _edge(versions), prereleases=True
            )
        assert conflict.link.startswith("https://github.com/")
        assert conflict.why
        assert "\n" not in conflict.why


def _edge(versions: str) -> str:
    """The version that a bound names."""
    (bound,) = SpecifierSet(versions)
    return bound.version if "=" in bound.operator else "0"


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ({"diffusers": "0.35.1", "transformers": "5.0.0"}, ["diffusers"]),
        ({"diffusers": "0.35.2", "transformers": "5.0.0"}, []),
        ({"diffusers": "0.35.1", "transformers": "4.57.0"}, []),
        ({"diffusers": "0.35.1", "transformers": None}, []),
        ({"diffusers": "?", "transformers": "5.0.0"}, []),
        ({"transformers": "5.0.0", "torch": "2.1.2+cu118", "numpy": "1.26"}, ["transformers"]),
        ({"transformers": "5.23.0", "torch": "2.4.1"}, ["transformers"]),
        ({"transformers": "5.23.0", "torch": "2.5.1"}, ["transformers"]),
        ({"transformers": "5.23.0", "torch": "2.6.0"}, []),
        ({"torch": "2.2.2", "numpy": "2.0.0"}, ["torch"]),
        ({"torch": "2.3.0", "numpy": "2.0.0"}, []),
        ({"accelerate": "1.0.1", "transformers": "5.0.0"}, ["accelerate"]),
        ({"accelerate": "1.1.0", "transformers": "5.0.0"}, []),
        ({"accelerate": "1.0.1", "transformers": "4.57.0"}, []),
    ],
)
def test_conflicts_that_are_found(versions: dict[str, str | None], found: list[str]) -> None:
    assert [next(iter(one.packages)) for one in found_conflicts(installed(versions))] == found
