"""Filter expressions of Amazon Personalize: their grammar, and what they let through."""
