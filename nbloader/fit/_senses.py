"""Families of models of transformers that see, hear and speak, with their figures."""

from __future__ import annotations

from nbloader.fit._family import (
    GIB,
    IMAGE_512,
    IMAGE_1024,
    LANGUAGE_FP16,
    MB,
    NOT_KNOWN_TO_OVERFLOW,
    Family,
)

__all__ = ["SENSES"]

SENSES: tuple[Family, ...] = (
    Family(
        name="image classifier",
        patterns=(
            *("vit", "vit_mae", "vit_msn", "vit_hybrid", "deit", "dinov2*", "dinov3*", "beit"),
            *("data2vec-vision", "swin", "swinv2", "convnext*", "resnet", "regnet", "mobilenet*"),
            *("mobilevit*", "efficientnet", "focalnet", "levit", "cvt", "poolformer", "pvt*"),
            *("hiera", "ijepa", "bit", "swiftformer", "efficientformer", "timm_wrapper"),
            *(
                "timm_backbone",
                "imagegpt",
                "dinat",
                "vitdet",
                "vitpose*",
                "superpoint",
                "radio",
                "hgnet_v2",
                "textnet",
                "*ForImageClassification",
            ),
            *("image-classification", "image-feature-extraction"),
        ),
        workload="one image of 224 x 224",
        activation_bytes=100 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.004 GB for ViT-B, 0.011 for DINOv2-g, 0.057 for Swin-L at 384 x 384",
    ),
    Family(
        name="image and text",
        patterns=(
            *("clip", "clip_*", "siglip*", "altclip", "chinese_clip", "clipseg", "blip", "align"),
            *("flava", "groupvit", "vision-text-dual-encoder", "bridgetower", "vilt", "metaclip*"),
            *("aimv2*", "git", "zero-shot-image-classification"),
        ),
        workload="one image of 384 x 384 and 8 captions",
        activation_bytes=100 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.02 GB for CLIP-L at 336 x 336 and for SigLIP-so400m, 0.03 for BLIP-L",
    ),
    Family(
        name="Segment Anything",
        patterns=("sam", "sam2*", "sam3*", "sam_*", "edgetam*", "mask-generation"),
        workload=IMAGE_1024,
        activation_bytes=1800 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 1.1 GB for ViT-H, 0.85 for ViT-B: its attention keeps the scores",
    ),
    Family(
        name="object detector",
        patterns=(
            *("detr", "*[-_]detr*", "d_fine", "yolos", "deta", "owlvit", "owlv2"),
            *("*grounding-dino", "omdet-turbo", "table-transformer", "*ForObjectDetection"),
            *("object-detection", "zero-shot-object-detection"),
        ),
        workload="one image of 1333 x 800",
        activation_bytes=800 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.16 GB for DETR, 0.09 for OWLv2-B at 960 x 960, 0.06 for RT-DETR at "
        "640 x 640; those of several scales inferred, three times DETR",
    ),
    Family(
        name="Depth Pro",
        patterns=("depth_pro", "DepthPro*"),
        workload="one image of 1536 x 1536",
        activation_bytes=9500 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 8.0 GB, most of it for 35 pieces of the image at once",
    ),
    Family(
        name="segmentation and depth",
        patterns=(
            *("segformer", "mask2former", "maskformer*", "oneformer", "upernet", "eomt*", "dpt"),
            *("depth_anything", "prompt_depth_anything", "zoedepth", "glpn", "vitmatte"),
            *("*ForDepthEstimation", "*Segmentation", "image-segmentation", "depth-estimation"),
        ),
        workload=IMAGE_512,
        activation_bytes=600 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.23 GB for SegFormer-B5, 0.16 for Depth Anything-L, 0.27 for ZoeDepth; "
        "those with masks as queries inferred",
    ),
    Family(
        name="image enlarger",
        patterns=("swin2sr", "*ForImageSuperResolution", "image-to-image"),
        workload=IMAGE_512,
        activation_bytes=2200 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 1.6 GB for Swin2SR",
    ),
    Family(
        name="page reader",
        patterns=("donut*", "vision-encoder-decoder", "nougat", "pix2struct", "image-to-text"),
        workload="one page of 2560 x 1920",
        activation_bytes=2000 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 1.4 GB for Donut, which has windows of attention; TrOCR takes less",
    ),
    Family(
        name="video classifier",
        patterns=(
            *("videomae", "timesformer", "vivit", "vjepa2*", "videoprism", "xclip", "x-clip"),
            *("*ForVideoClassification", "video-classification"),
        ),
        workload="16 frames of 224 x 224",
        activation_bytes=300 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.06 GB for VideoMAE-L, 0.05 for TimeSformer with 8 frames, 0.13 for "
        "ViViT with 32",
    ),
    Family(
        name="speech recogniser",
        patterns=(
            *("whisper", "moonshine*", "speech_to_text*", "speech-encoder-decoder"),
            *("Whisper*", "lite-whisper", "*ForSpeechSeq2Seq"),
        ),
        workload="30 s of speech at 16 kHz, 448 tokens of text",
        activation_bytes=600 * MB,
        fp16_reason="works (huggingface.co/openai/whisper-large-v3)",
        source="counted: 0.37 GB for Whisper-large",
    ),
    Family(
        name="speech encoder",
        patterns=(
            *("wav2vec2*", "hubert", "wavlm", "unispeech*", "data2vec-audio", "sew*", "mctct"),
            *("parakeet*", "seamless_m4t*", "*ForCTC", "*ForAudioFrameClassification"),
            "automatic-speech-recognition",
        ),
        workload="30 s of speech at 16 kHz",
        activation_bytes=750 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.20 GB for wav2vec 2.0 and HuBERT of any size, 0.31 for WavLM-L, 0.47 "
        "for wav2vec 2.0 BERT",
    ),
    Family(
        name="sound classifier",
        patterns=(
            *("audio-spectrogram-transformer", "clap", "encodec", "dac", "mimi", "xcodec*"),
            *("univnet", "*ForAudioClassification", "audio-classification"),
        ),
        workload="10 s of sound",
        activation_bytes=200 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.02 GB for AST, 0.01 for CLAP, 0.06 for EnCodec",
    ),
    Family(
        name="music generator",
        patterns=("musicgen*", "MusicGen*", "Musicgen*"),
        workload="30 s of music",
        activation_bytes=1600 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 1.3 GB for the decoder of MusicGen-large, with guidance",
    ),
    Family(
        name="text to speech",
        patterns=(
            *("speecht5", "vits", "bark", "fastspeech2_conformer*", "csm", "dia", "parler_tts"),
            *("*ForTextToSpeech", "*ForTextToWaveform", "text-to-speech", "text-to-audio"),
        ),
        workload="10 s of speech",
        activation_bytes=500 * MB,
        fp16_reason=NOT_KNOWN_TO_OVERFLOW,
        source="counted: 0.22 GB for Bark, 0.07 for the decoder of VITS, 0.05 for HiFi-GAN",
    ),
    Family(
        name="speech and language model",
        patterns=(
            *("qwen2_audio*", "voxtral*", "granite_speech*", "audioflamingo3", "qwen2_5_omni*"),
            *(
                "qwen3_omni*",
                "*_asr*",
                "moshi",
                "kyutai_speech*",
                "ultravox",
                "phi4_multimodal",
                "audio-text-to-text",
            ),
        ),
        workload="30 s of speech and 4096 tokens of context",
        activation_bytes=int(1.5 * GIB),
        fp16_reason=LANGUAGE_FP16,
        source="inferred: a language model, and the encoder of Whisper",
    ),
    Family(
        name="vision and language model",
        patterns=(
            *("qwen2_vl*", "qwen2_5_vl*", "qwen3_vl*", "qwen3_5*", "llava*", "vipllava"),
            *("video_llava", "idefics*", "smolvlm", "internvl*", "mllama", "pixtral", "mistral3"),
            *("blip-2", "instructblip*", "kosmos*", "fuyu", "chameleon", "janus", "florence2"),
            *("aya_vision", "got_ocr2", "emu3", "ovis2", "glm4v*", "deepseek_vl*", "llama4"),
            *(
                "cohere2_vision",
                "perception_lm",
                "minicpm*v*",
                "*_vl",
                "*_vl_*",
                "*_ocr",
                "*_ocr2",
                "colpali",
                "colqwen2",
                "video_llama*",
                "image-text-to-text",
            ),
            *("visual-question-answering", "*VLForConditionalGeneration"),
        ),
        workload="one image of 1024 x 1024 and 4096 tokens of context",
        activation_bytes=int(1.4 * GIB),
        fp16_reason=LANGUAGE_FP16,
        source="inferred: a language model, and an encoder of images, counted 0.05 GB for CLIP-L",
    ),
)
"""The first match is taken."""
