"""quant.scoring.perplexity against closed form, a naive loop, and models whose logits are known."""

import math

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from quant.methods import METHODS
from quant.methods.dlt import DltConfig
from quant.models.tiny import byte_tokenizer
from quant.scoring.perplexity import Perplexity, bos_token, perplexity
from tern_hw.errors import TernError
from tests.quant.models import random_llama

VOCABULARY = 11


class _Known(nn.Module):
    """A causal model that gives the successor (id + 1) a logit of its own and all others 0.

    The logit is the number of tokens seen in the window, times `slope`: so a token's likelihood
    says how much context it had.
    """

    def __init__(self, slope=0.0, context=64):
        super().__init__()
        self.slope = slope
        self.embedding = nn.Embedding(VOCABULARY, 1)
        self.config = type("Config", (), {"max_position_embeddings": context})()

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache=True):
        seen = torch.arange(1, input_ids.shape[1] + 1).float() * self.slope
        successor = nn.functional.one_hot((input_ids + 1) % VOCABULARY, VOCABULARY)
        logits = successor.float() * seen[None, :, None]
        return type("Output", (), {"logits": logits})()


def cost(logit):
    """Negative log-likelihood of the one token with a logit, all others at 0."""
    return math.log(math.exp(logit) + VOCABULARY - 1) - logit


def counting(length, start=0):
    return torch.arange(start, start + length) % VOCABULARY


def test_uniform_model_has_the_vocabulary_as_perplexity():
    result = perplexity(_Known(), torch.randint(VOCABULARY, (100,)), window=16)
    assert result.perplexity == pytest.approx(VOCABULARY, rel=1e-6)
    assert result.nll == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_uniform_model_of_bytes_takes_its_entropy_a_byte():
    result = perplexity(_Known(), torch.randint(VOCABULARY, (96,)), window=16)
    assert result.bits_per_byte(result.tokens) == pytest.approx(math.log2(VOCABULARY), rel=1e-6)
    assert result.bits_per_byte(4 * result.tokens) == pytest.approx(math.log2(VOCABULARY) / 4)


def test_windows_do_not_overlap_and_the_tail_is_dropped():
    result = perplexity(_Known(slope=0.1), counting(20), window=6)
    # Three windows; in each, tokens 1..5 are predicted from 1..5 tokens of context.
    expected = sum(cost(0.1 * seen) for seen in range(1, 6)) / 5
    assert result.nll == pytest.approx(expected, rel=1e-6)
    assert (result.windows, result.predicted, result.tokens) == (3, 15, 18)


def test_a_stride_predicts_each_token_once_with_more_context():
    result = perplexity(_Known(slope=0.1), counting(14), window=6, stride=2)
    # The first window predicts its tokens 1..5; the four after it their last two.
    costs = [cost(0.1 * seen) for seen in range(1, 6)] + 4 * [cost(0.4), cost(0.5)]
    assert result.nll == pytest.approx(sum(costs) / len(costs), rel=1e-6)
    assert (result.windows, result.predicted, result.tokens) == (5, 13, 14)


def test_a_stride_of_one_less_than_the_window_predicts_all_of_it():
    result = perplexity(_Known(slope=0.1), counting(16), window=6, stride=5)
    expected = sum(cost(0.1 * seen) for seen in range(1, 6)) / 5
    assert result.nll == pytest.approx(expected, rel=1e-6)
    assert (result.windows, result.predicted) == (3, 15)


def test_beginning_token_stands_before_the_text_once():
    # After id 10 comes id 0, so the token before counting text is predicted from as well.
    plain = perplexity(_Known(slope=0.1), counting(17), window=6)
    with_bos = perplexity(_Known(slope=0.1), counting(17), window=6, bos=VOCABULARY - 1)
    assert (plain.windows, plain.tokens, plain.bos) == (2, 12, None)
    assert (with_bos.windows, with_bos.tokens, with_bos.bos) == (3, 17, VOCABULARY - 1)
    assert with_bos.nll == pytest.approx(plain.nll, rel=1e-6)


def test_a_wrong_token_costs_what_it_should():
    tokens = counting(6)
    tokens[3] = 0  # so neither it nor the one after it is the successor
    result = perplexity(_Known(slope=0.1), tokens, window=6)
    missed = [math.log(math.exp(0.1 * seen) + VOCABULARY - 1) for seen in (3, 4)]
    expected = sum(cost(0.1 * seen) for seen in (1, 2, 5)) + sum(missed)
    assert result.nll == pytest.approx(expected / 5, rel=1e-6)


def naive(model, tokens, window, stride):
    """The mean by one forward pass and one softmax for every predicted token."""
    losses, done = [], 0
    for start in range(0, len(tokens) - window + 1, stride):
        for i in range(start + 1, start + window):
            if i > done or i < stride:
                logits = model(input_ids=tokens[None, start:i]).logits[0, -1].double()
                losses.append(-logits.log_softmax(-1)[tokens[i]].item())
        done = start + window - 1
    return sum(losses) / len(losses)


@pytest.mark.parametrize("stride", [8, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_equals_a_loop_over_tokens(stride, batch):
    model = random_llama(seed=3)
    tokens = torch.randint(257, (37,), generator=torch.Generator().manual_seed(1))
    result = perplexity(model, tokens, window=8, stride=stride, batch=batch)
    with torch.no_grad():
        assert result.nll == pytest.approx(naive(model, tokens, 8, stride), rel=1e-5)


def test_bfloat16_evaluates_close_to_float32():
    tokens = torch.randint(257, (64,), generator=torch.Generator().manual_seed(2))
    full = perplexity(random_llama(), tokens, window=16)
    half = perplexity(random_llama().bfloat16(), tokens, window=16)
    assert half.nll != full.nll
    assert half.nll == pytest.approx(full.nll, rel=1e-2)


def test_model_comes_back_as_it_was():
    model = random_llama().train()
    perplexity(model, torch.arange(40), window=8)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_prepared_weights_are_quantised_once_for_all_windows(monkeypatch):
    model = random_llama()
    METHODS["dlt"].prepare(model, DltConfig(group_size=16))
    quantizer = type(model.model.layers[0].mlp.up_proj.parametrizations["weight"][0])
    calls = []
    forward = quantizer.forward
    monkeypatch.setattr(quantizer, "forward", lambda self, w: calls.append(1) or forward(self, w))
    perplexity(model, torch.arange(64), window=8)
    assert len(calls) == 14


def test_window_is_2048_or_the_context():
    tokens = torch.randint(VOCABULARY, (5000,))
    assert perplexity(_Known(context=64), tokens).window == 64
    assert perplexity(_Known(context=9000), tokens).window == 2048


def test_perplexity_beyond_float64_is_infinite():
    assert Perplexity(1e3, 1, 2, 1, 2, 2, None).perplexity == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 65}, "window must be at most the model's context of 64, not 65"),
        ({"window": 1}, "window must be an integer from 2, not 1"),
        ({"window": 8, "stride": 0}, "stride must be a positive integer, not 0"),
        ({"window": 8, "stride": 9}, "stride must be at most the window of 8, not 9"),
        ({"window": 8, "batch": 0}, "batch must be a positive integer, not 0"),
        ({"window": 64}, "text must have at least the 64 tokens of a window, not 30"),
        ({"window": 8, "bos": 99}, "tokens must be from 0 to 10, as the model has them, not 99"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(TernError, match=f"^{message}$"):
        perplexity(_Known(), counting(30), **options)


def test_logits_that_are_not_finite_are_refused_by_window():
    model = _Known(slope=math.inf)
    with pytest.raises(TernError, match=r"^logits must be finite, not so in window 0$"):
        perplexity(model, counting(30), window=8)


def beginning(tokenizer, *, adds):
    """Give the byte tokenizer a beginning token, "!", which it adds itself or not."""
    from tokenizers.processors import TemplateProcessing

    core = tokenizer.backend_tokenizer
    if adds:
        core.post_processor = TemplateProcessing(
            single="! $A", special_tokens=[("!", core.token_to_id("!"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="!")


@pytest.mark.parametrize(("adds", "auto"), [(True, "!"), (False, None)])
def test_auto_does_as_the_tokenizer_does(adds, auto):
    tokenizer = beginning(byte_tokenizer(), adds=adds)
    bos = tokenizer.bos_token_id
    assert bos_token(tokenizer, "auto") == (bos if auto else None)
    assert bos_token(tokenizer, "yes") == bos
    assert bos_token(tokenizer, "no") is None


def test_a_tokenizer_without_a_beginning_token_has_none_to_add():
    assert bos_token(byte_tokenizer(), "auto") is None
    with pytest.raises(TernError, match=r"^--bos must be no or auto"):
        bos_token(byte_tokenizer(), "yes")
