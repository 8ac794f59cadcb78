"""Trains the embedded tokenizer: python train.py SCOWL_DIR OUTPUT_DIR (see README.md beside it)."""

import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# How often each of SCOWL's levels is shown to the trainer: level 10 holds the most frequent words.
LEVELS = {10: 60, 20: 6, 35: 1}
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus(folder):
    for level, times in LEVELS.items():
        for list_name in ("english-words", "american-words"):
            path = folder / f"{list_name}.{level}"
            words = path.read_text(encoding="latin-1").split() if path.exists() else []
            for word in words:
                if word.isascii() and word.isalpha():
                    yield from [" " + word] * times
                    # A word opens a sentence less often than it stands inside one.
                    yield from [word] * (times // 4)
                    yield from ["\n" + word.capitalize()] * (times // 10)


def main(scowl, out):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(scowl), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)


main(Path(sys.argv[1]), Path(sys.argv[2]))
