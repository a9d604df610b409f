"""How good is a model, at what length, and which of several is better? What `apriel eval` is made of."""
