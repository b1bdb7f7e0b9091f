"""What a quantised model is written as: an artifact, a merged folder, a GGUF file."""
