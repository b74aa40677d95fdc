"""Makes a language model of a few kilobytes that transformers serves as a decision model. Needs torch and transformers.

    python tiny_decider.py HF_HOME [LETTER]

A Llama with two layers of zeros and a vocabulary of bytes plus the labels ``Yes`` and ``No``, in the layout of a
Hugging Face cache as ``tiny/llama``. Every answer is read where the prompt ends, always after the same token, so its
head can be made to prefer one label: LETTER. It shows that the way there and back works, and nothing about quality.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

REPOSITORY = "tiny/llama"
REVISION = "0" * 40
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for token in ("<s>", "</s>", "<pad>", "<unk>"):
        vocabulary[token] = len(vocabulary)
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.add_tokens(["Yes", "No"])
    fast.chat_template = TEMPLATE
    return fast


def main() -> None:
    home, letter = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    folder = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    fast = tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=False,
    ))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        if letter:
            last = model.model.embed_tokens.weight[fast.convert_tokens_to_ids(":")]
            model.lm_head.weight.zero_()
            model.lm_head.weight[fast.convert_tokens_to_ids(letter)] = 5 * last / last.norm()
    model.save_pretrained(folder / "snapshots" / REVISION)
    fast.save_pretrained(folder / "snapshots" / REVISION)


if __name__ == "__main__":
    main()
