"""What the tests of GGUF files share: a model whose layers are whole blocks, and a tokenizer."""

from tokenizers import AddedToken, Tokenizer
from tokenizers import pre_tokenizers as cuts
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from tests.quant import exports
from tests.quant.models import random_llama


def wide_llama(**changes):
    """Return a small LLaMA whose layers all have a multiple of 256 inputs."""
    return random_llama(
        **{
            "hidden_size": 256,
            "intermediate_size": 512,
            "head_dim": 64,
            "vocab_size": 262,
            **changes,
        }
    )


def tokenizer(pre_tokenizer=None):
    """Return a byte-level BPE with one merge, a special token, and one that is merely added."""
    symbols = [*sorted(cuts.ByteLevel.alphabet()), "th"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    words = Tokenizer(BPE(vocab=vocabulary, merges=[("t", "h")]))
    words.pre_tokenizer = pre_tokenizer or cuts.ByteLevel(add_prefix_space=False)
    words.decoder = ByteLevelDecoder()
    words.add_special_tokens([AddedToken("<|end|>", special=True)])
    words.add_tokens([AddedToken("<think>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>")


def prepared(method="dlt", model=None, **options):
    """Return a model prepared in groups of a block of GGUF, without a shift where there is one."""
    if method == "dlt":
        options = {"shift": False, **options}
    model = model if model is not None else wide_llama()
    return exports.prepared(method, model, moved=False, **{"group_size": 256, **options})
