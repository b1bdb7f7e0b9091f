"""Distillation losses: on features (`features`), on logits and labels (`logits`)."""
