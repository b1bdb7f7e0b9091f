"""How good a model is: perplexity, and multiple choice through lm-evaluation-harness."""
