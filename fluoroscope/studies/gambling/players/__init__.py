"""Who plays: a language model here, or an endpoint over HTTP."""
