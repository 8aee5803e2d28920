"""The Amazon Personalize API: unmodified AWS clients, pointed here by their endpoint."""
