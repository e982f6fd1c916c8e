"""A tiny random CLIP or SigLIP with a real tokenizer: the parity fixture and a vocabulary for it."""

import shutil
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, processors

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


def clip_folder(target: Path, family: str = "clip_small") -> Path:
    """Its words are w0 and on; a text of CLIP is <s> ... </s>, one of SigLIP ends with </s>."""
    vocab, start, end = {"clip_small": (120, 118, 119), "siglip_both": (60, None, 59)}[family]
    names = {f"w{index}": index for index in range(vocab) if index not in (start, end)}
    names |= {"</s>": end} | ({"<s>": start} if start is not None else {})
    made = tokenizers.Tokenizer(models.WordLevel(names, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [("</s>", end)] + ([("<s>", start)] if start is not None else [])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if start is not None else "$A </s>", special_tokens=marks
    )
    made.add_special_tokens([name for name, _ in marks])
    shutil.copytree(PARITY / family, target)
    made.save(str(target / "tokenizer.json"))
    return target
