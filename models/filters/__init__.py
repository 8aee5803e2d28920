"""Filter expressions of Amazon Personalize: their grammar, and their evaluation."""
