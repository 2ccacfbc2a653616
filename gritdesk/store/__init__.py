"""Where documents, chunks, words and embeddings are kept: `base` says what any store does, the others do it."""
