"""Resources of the Amazon Personalize API: their types, statuses, registry and jobs."""
