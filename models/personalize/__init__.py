"""Amazon Personalize beside recommendations: resources, recipes, datasets and jobs."""
