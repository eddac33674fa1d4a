"""Does a model gamble, which latents go with it, and which of them cause it? (seed 000)"""
