"""Text -> documents -> packed windows of tokens, split by document."""
