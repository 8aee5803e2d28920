"""The operations of Amazon Personalize that manage resources."""
