"""Text and tokens: corpora that are fetched, their split, files, and the excerpt we carry."""
