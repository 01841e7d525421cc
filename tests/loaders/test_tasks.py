"""What becomes of a model of transformers: the decision, and what is built by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbloader.errors import InvalidArgumentError, MissingTensorsError, ModelLoadError
from nbloader.loaders import Building
from nbloader.loaders.tasks import Choice, Offer, Wanted, decide, processors_of
from nbloader.loaders.transformers import _Builder
from nbloader.records import Method, Notice, Placement, Selection
from tests.models import WORDS, save_classifier, seeded, selection_of

pytestmark = pytest.mark.filterwarnings("ignore")

CPU = Placement(method=Method.CPU, device="cpu", dtype="float32")
TEXT = frozenset({"tokenizer"})
IMAGE = frozenset({"image_processor", "feature_extractor", "video_processor"})
BOTH = TEXT | IMAGE | {"processor"}

_NEEDS = {
    "feature-extraction": TEXT,
    "text-classification": TEXT,
    "zero-shot-classification": TEXT,
    "fill-mask": TEXT,
    "text-generation": TEXT,
    "zero-shot-audio-classification": TEXT | {"feature_extractor"},
    "image-classification": frozenset({"image_processor"}),
    "image-feature-extraction": frozenset({"image_processor"}),
    "image-segmentation": frozenset({"image_processor"}),
    "zero-shot-image-classification": TEXT | {"image_processor"},
    "image-text-to-text": frozenset({"processor"}),
    "any-to-any": frozenset({"processor"}),
}
_FURTHER = {"image-segmentation": frozenset({"Mask2FormerForUniversalSegmentation"})}


def offers(**builds: str | None) -> tuple[Offer, ...]:
    """The offers of some tasks for one family, in the library's order."""
    by_task = {name.replace("_", "-"): cls for name, cls in builds.items()}
    return tuple(
        Offer(
            task=task,
            builds=by_task[task],
            needs=needs,
            accepts=_FURTHER.get(task, frozenset()),
        )
        for task, needs in _NEEDS.items()
        if task in by_task
    )


def headless(cls: str) -> dict[str, str | None]:
    """What the tasks offer that take models without a head."""
    return dict.fromkeys(
        ("feature_extraction", "zero_shot_audio_classification", "image_feature_extraction"), cls
    )


BERT = offers(
    **headless("BertModel"),
    text_classification="BertForSequenceClassification",
    zero_shot_classification="BertForSequenceClassification",
    fill_mask="BertForMaskedLM",
)
VIT = offers(**headless("ViTModel"), image_classification="ViTForImageClassification")
CLIP = offers(**headless("CLIPModel"), zero_shot_image_classification="CLIPModel")
CLAP = offers(**headless("ClapModel"))
MBART = offers(**headless("MBartModel"), fill_mask="MBartForConditionalGeneration")
T5 = offers(**headless("T5Model"), text_generation=None)
MASKS = offers(**headless("Mask2FormerModel"), image_segmentation=None)
GEMMA = offers(
    **headless("Gemma3Model"),
    text_generation="Gemma3ForConditionalGeneration",
    image_text_to_text="Gemma3ForConditionalGeneration",
    any_to_any="Gemma3ForConditionalGeneration",
)


def alone(cls: str | None) -> Choice:
    return Choice(task=None, builds=cls)


@pytest.mark.parametrize(
    ("of", "named", "tag", "processors", "modalities", "expected"),
    [
        # By the class alone.
        (BERT, "BertModel", None, TEXT, "text", "feature-extraction"),
        (BERT, "BertForSequenceClassification", None, TEXT, "text", "text-classification"),
        (BERT, "BertForMaskedLM", None, TEXT, "text", "fill-mask"),
        (BERT, "BertForQuestionAnswering", None, TEXT, "text", alone("BertForQuestionAnswering")),
        (VIT, "ViTModel", None, IMAGE, "image", "image-feature-extraction"),
        (VIT, "ViTModel", None, BOTH, "image", "image-feature-extraction"),
        (VIT, "ViTForImageClassification", None, IMAGE, "image", "image-classification"),
        (CLIP, "CLIPModel", None, BOTH, "image text", "zero-shot-image-classification"),
        (CLIP, "CLIPTextModel", None, TEXT, "text", alone("CLIPTextModel")),
        (CLAP, "ClapModel", None, BOTH, "audio text", "zero-shot-audio-classification"),
        (MASKS, "Mask2FormerModel", None, IMAGE, "image", "image-feature-extraction"),
        (GEMMA, "Gemma3ForConditionalGeneration", None, BOTH, "image text", "image-text-to-text"),
        (GEMMA, "Gemma3ForConditionalGeneration", None, TEXT, "image text", "text-generation"),
        (T5, "T5ForConditionalGeneration", None, TEXT, "text", alone("T5ForConditionalGeneration")),
        (
            MBART,
            "MBartForConditionalGeneration",
            None,
            TEXT,
            "text",
            alone("MBartForConditionalGeneration"),
        ),
        (MBART, "MBartForConditionalGeneration", "fill-mask", TEXT, "text", "fill-mask"),
        # Without the processors that the pipeline needs.
        (BERT, "BertModel", None, frozenset(), "text", alone("BertModel")),
        (BERT, "BertForMaskedLM", "fill-mask", IMAGE, "text", alone("BertForMaskedLM")),
        # By the tag.
        (
            BERT,
            "BertForSequenceClassification",
            "zero-shot-classification",
            TEXT,
            "text",
            "zero-shot-classification",
        ),
        (
            MASKS,
            "Mask2FormerForUniversalSegmentation",
            "image-segmentation",
            IMAGE,
            "image",
            "image-segmentation",
        ),
        (VIT, "ViTModel", "feature-extraction", IMAGE, "image", "image-feature-extraction"),
        (
            T5,
            "T5ForConditionalGeneration",
            "text-generation",
            TEXT,
            "text",
            alone("T5ForConditionalGeneration"),
        ),
        # The tag builds another class: it, if the files have it, else the one that is named.
        (
            BERT,
            "BertForMaskedLM",
            "feature-extraction",
            TEXT,
            "text",
            Choice(
                task="feature-extraction",
                builds="BertModel",
                instead=Choice(task="fill-mask", builds="BertForMaskedLM"),
            ),
        ),
        (
            T5,
            "T5EncoderModel",
            "feature-extraction",
            TEXT,
            "text",
            Choice(task="feature-extraction", builds="T5Model", instead=alone("T5EncoderModel")),
        ),
        # No class is named.
        (BERT, None, "fill-mask", TEXT, "text", "fill-mask"),
        (BERT, None, None, TEXT, "text", alone(None)),
    ],
)
def test_the_task_follows_the_tag_and_the_class(
    of: tuple[Offer, ...],
    named: str | None,
    tag: str | None,
    processors: frozenset[str],
    modalities: str,
    expected: str | Choice,
) -> None:
    wanted = Wanted(
        named=named,
        tag=tag,
        processors=processors,
        modalities=frozenset(modalities.split()),
    )
    choice = decide(wanted, of)
    assert (choice if isinstance(expected, Choice) else choice.task) == expected


def test_code_of_the_repository_says_nothing_of_its_inputs() -> None:
    wanted = Wanted(named="OwnModel", processors=TEXT, own=True)
    of = offers(**headless("OwnModel"))
    assert decide(wanted, of) == alone("OwnModel")
    assert decide(replace(wanted, tag="feature-extraction"), of).task == "feature-extraction"
    headed = (*of, *offers(text_generation="OwnModel"))
    assert decide(wanted, headed).task == "text-generation"


@pytest.mark.parametrize(
    ("names", "config", "expected"),
    [
        ([], {}, frozenset()),
        (["tokenizer.json"], {}, TEXT),
        (["spiece.model", "model.safetensors"], {}, TEXT),
        (["preprocessor_config.json"], {}, IMAGE),
        (["processor_config.json", "vocab.json"], {}, BOTH),
        (["video_preprocessor_config.json"], {}, {"video_processor"}),
        (["model.safetensors"], {"pretrained_cfg": {}}, {"image_processor"}),
    ],
)
def test_the_processors_are_those_that_the_files_can_give(
    names: list[str], config: dict[str, object], expected: frozenset[str]
) -> None:
    assert processors_of(names, config) == expected


# -- what is built ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny BERT of a class, with its tokenizer."""

    def save(cls: str, **changes: Any) -> Path:
        import transformers

        folder = tmp_path_factory.mktemp("bert")
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        config = transformers.BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
        seeded(lambda: getattr(transformers, cls)(config)).save_pretrained(folder)
        transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
        file = folder / "config.json"
        written = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in written.items() if v is not None}))
        return folder

    return save


def told_and_built(
    selection: Selection, folder: Path, **loader_kwargs: Any
) -> tuple[list[str], Any]:
    building = Building(selection, folder, CPU, loader_kwargs)
    told = []
    while (event := building.step()) is not None:
        assert isinstance(event, Notice)
        told.append(f"{event.message} | {event.hint}")
    return told, building.model()


def test_a_head_without_a_pipeline_comes_as_the_model_and_is_told(
    bert: Callable[..., Path],
) -> None:
    import transformers

    folder = bert("BertForPreTraining")
    told, model = told_and_built(selection_of(folder), folder)
    assert (type(model).__name__, model.training) == ("BertForPreTraining", False)
    assert told == [
        "org/name comes as the model itself, BertForPreTraining: transformers "
        f"{transformers.__version__} has no pipeline for it | "
        'Its tokenizer: transformers.AutoTokenizer.from_pretrained("org/name")'
    ]


def test_a_tag_that_drops_a_head_is_followed_and_told(bert: Callable[..., Path]) -> None:
    folder = bert("BertForMaskedLM")
    told, built = told_and_built(replace(selection_of(folder), task="feature-extraction"), folder)
    assert (built.task, type(built.model).__name__) == ("feature-extraction", "BertModel")
    assert told == [
        "org/name comes as BertModel, which is what the task 'feature-extraction' takes; its files "
        "name 'BertForMaskedLM' | With another task comes another class: "
        "nbloader.load(..., task=...)."
    ]


def test_it_is_told_where_the_pipeline_of_the_tag_cannot_be_made(
    bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bert("BertForMaskedLM")
    make = _Builder.pipeline

    def fails(builder: Any, task: str) -> Any:
        if task == "feature-extraction":
            raise ValueError("no word for it")
        return make(builder, task)

    monkeypatch.setattr(_Builder, "pipeline", fails)
    told, built = told_and_built(replace(selection_of(folder), task="feature-extraction"), folder)
    assert built.task == "fill-mask"
    assert told == [
        "org/name comes as FillMaskPipeline of BertForMaskedLM: the pipeline for "
        "'feature-extraction', which the Hub names, could not be made: ValueError: no word for it "
        "| With another task comes another pipeline: nbloader.load(..., task=...)."
    ]


@pytest.mark.parametrize(
    "error",
    [ImportError("peft"), MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: ...")],
)
def test_what_another_pipeline_would_not_mend_is_raised(
    bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = bert("BertForMaskedLM")

    def fails(builder: Any, task: str) -> Any:
        raise error

    monkeypatch.setattr(_Builder, "pipeline", fails)
    with pytest.raises(ModelLoadError) as caught:
        told_and_built(replace(selection_of(folder), task="feature-extraction"), folder)
    assert caught.value.__cause__ is error


def test_a_tag_that_would_make_a_head_up_is_not_followed(bert: Callable[..., Path]) -> None:
    folder = bert("BertForMaskedLM")
    told, built = told_and_built(replace(selection_of(folder), task="text-classification"), folder)
    assert (built.task, type(built.model).__name__, told) == ("fill-mask", "BertForMaskedLM", [])


def test_a_task_of_the_caller_is_carried_out_and_what_is_missing_refused(
    bert: Callable[..., Path],
) -> None:
    folder = bert("BertForMaskedLM")
    asked = replace(selection_of(folder), task="text-classification", task_asked=True)
    with pytest.raises(MissingTensorsError, match=r"classifier\.bias"):
        told_and_built(asked, folder)
    told, built = told_and_built(asked, folder, task="fill-mask")
    assert (built.task, told) == ("fill-mask", [])


def test_a_task_that_the_library_lacks_is_named_with_those_that_are_near(
    bert: Callable[..., Path],
) -> None:
    folder = bert("BertForMaskedLM")
    with pytest.raises(InvalidArgumentError) as caught:
        told_and_built(selection_of(folder), folder, task="fill-masks")
    assert "has no pipeline for the task 'fill-masks'" in caught.value.message
    assert caught.value.hint.startswith("Tasks that it has: fill-mask")


@pytest.mark.parametrize("tag", ["summarization", "sentence-similarity", "no task at all"])
def test_a_tag_without_a_pipeline_leaves_it_to_the_class(
    bert: Callable[..., Path], tag: str
) -> None:
    folder = bert("BertModel")
    told, built = told_and_built(replace(selection_of(folder), task=tag), folder)
    assert (built.task, told) == ("feature-extraction", [])


def test_without_architectures_the_family_names_the_class(bert: Callable[..., Path]) -> None:
    folder = bert("BertModel", architectures=None)
    told, model = told_and_built(selection_of(folder), folder)
    assert type(model).__name__ == "BertModel"
    assert [line.partition(":")[0] for line in told] == [
        "org/name comes as the model itself, BertModel"
    ]


def test_without_a_family_the_class_that_is_named_comes_alone(bert: Callable[..., Path]) -> None:
    folder = bert("BertForMaskedLM", model_type=None)
    told, model = told_and_built(selection_of(folder), folder)
    assert (type(model).__name__, len(told)) == ("BertForMaskedLM", 1)


def test_a_model_bears_the_name_of_its_repository(bert: Callable[..., Path]) -> None:
    folder = bert("BertModel")
    _, built = told_and_built(selection_of(folder), folder)
    names = (built.model.name_or_path, built.model.config._name_or_path)
    assert names == ("org/name", "org/name")
    tokenizer = built.tokenizer
    assert (tokenizer.name_or_path, tokenizer.init_kwargs["name_or_path"]) == names
    assert not tokenizer.init_kwargs.get("is_local")


def test_a_model_alone_is_whole_where_it_is_called_the_same_as_its_inner_part(
    tmp_path: Path,
) -> None:
    """BART has a `model` inside, as a pipeline has."""
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=16,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=32,
    )
    seeded(lambda: BartForConditionalGeneration(config)).save_pretrained(tmp_path)
    told, model = told_and_built(selection_of(tmp_path), tmp_path)
    assert type(model).__name__ == "BartForConditionalGeneration"
    assert told[0].endswith("Its repository has no tokenizer or processor: call it with tensors.")


def test_a_classifier_of_the_repository_in_another_task_of_the_same_class(tmp_path: Path) -> None:
    save_classifier(tmp_path)
    selection = replace(selection_of(tmp_path), task="zero-shot-classification")
    told, built = told_and_built(selection, tmp_path)
    assert (built.task, told) == ("zero-shot-classification", [])
