"""A directory of Hugging Face: a classifier of texts with its tokenizer, packed as it is."""

from pathlib import Path

import numpy as np
import torch
from serving import ask, lantern, serve
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

TEXTS = ["Where is my parcel?", "I was charged twice for one order.", "I can't log in."]
LABELS = {0: "delivery", 1: "billing", 2: "account"}

# Make a small BERT. It isn't trained, as there is no large data set here; yours will be.
special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
words = Tokenizer(models.WordPiece(unk_token=special["unk"]))
words.normalizer = normalizers.BertNormalizer()
words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
words.train_from_iterator(TEXTS, trainers.WordPieceTrainer(special_tokens=[*special.values()]))
words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, **{f"{name}_token": token for name, token in special.items()}
)
torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(tokenizer),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
    initializer_range=0.3,
    id2label=LABELS,
    label2id={label: index for index, label in LABELS.items()},
)
BertForSequenceClassification(config).save_pretrained("support")
tokenizer.save_pretrained("support")

# Pack, serve and ask: no tensors, and nothing of transformers.
Path("texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
lantern("model pack support --samples texts.txt --out models/support/1 --replace")
with serve("models/support") as url:
    samples = [{"text": text} for text in TEXTS]
    found = ask(f"{url}/predict/batch", {"samples": samples})["predictions"]

# The answers are those of the library's own pipeline.
classifier = pipeline("text-classification", model="support")
for text, answer, theirs in zip(TEXTS, found, classifier(TEXTS, top_k=None), strict=True):
    expected = {each["label"]: each["score"] for each in theirs}
    np.testing.assert_allclose(
        [*answer["probabilities"].values()], [expected[LABELS[i]] for i in range(3)], atol=1e-5
    )
    print(f"{text} -> {answer['label']}")
