"""The argument `attention=`, before anything is known of the model."""

from __future__ import annotations

import pytest

from nbloader.errors import InvalidArgumentError
from nbloader.request import Call, checked

USUAL = (
    "Choose one of 'sdpa', 'eager', 'flex_attention', 'flash_attention_2', 'flash_attention_3', "
    "'flash_attention_4', 'sage', 'xformers', 'flash_varlen', 'sage_varlen', or leave it out."
)


def attention_of(attention: object) -> str | None:
    return checked(Call(repo_id="org/name", attention=attention)).attention  # type: ignore[arg-type]


def test_the_names_of_both_libraries_are_taken() -> None:
    assert checked(Call(repo_id="org/name")).attention is None
    assert attention_of("auto") is None
    assert attention_of("native") == attention_of("sdpa") == "sdpa"
    assert attention_of("_flash_3") == attention_of("flash_attention_3") == "flash_attention_3"
    assert attention_of("sage") == "sage"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("flash_attention2", "Choose one of 'flash_attention_2', "),
        ("SDPA", "Choose one of 'sdpa', or leave it out."),
        ("paged|eager", "Choose one of "),
        ("", USUAL),
        (None, USUAL),
        (2, USUAL),
        ({"": "sdpa"}, USUAL),
        ("\x1b[2J" * 99, USUAL),
    ],
)
def test_what_is_no_name_is_refused_with_the_nearest(given: object, hint: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not known") as caught:
        attention_of(given)
    assert caught.value.hint.startswith(hint)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "kernels-community/flash-attn2@v1:fn",
            "pipe.model.set_attn_implementation('kernels-community/flash-attn2@v1:fn').",
        ),
        ("flash_hub", "pipe.transformer.set_attention_backend('flash_hub')."),
        ("_flash_3_hub", "pipe.transformer.set_attention_backend('_flash_3_hub')."),
    ],
)
def test_a_kernel_of_the_hub_is_refused_with_the_line_of_the_library(
    given: str, line: str, *, trusted: bool
) -> None:
    with pytest.raises(InvalidArgumentError, match="is a kernel of the Hub") as caught:
        checked(Call(repo_id="org/name", attention=given, trust_remote_code=trusted))
    assert caught.value.hint.endswith(line)
